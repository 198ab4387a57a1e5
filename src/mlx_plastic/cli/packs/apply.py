"""`plastic packs apply`: check a pack, prove that it acts, wear it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import base_option, base_ref, open_base
from mlx_plastic.cli.output import json_option, note, print_json, print_table

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.packs.ranks.ranks import Profile
    from mlx_plastic.packs.wear.apply import Applied


@click.command("apply")
@click.option("--name", required=True, metavar="PACK", help="A pack's name, or with --dry-run its folder.")
@base_option
@click.option(
    "--profile",
    type=click.Choice(["lite", "heavy"]),
    default="lite",
    show_default=True,
    help="lite: attention ranks <= 8 and at most 10 MB.",
)
@click.option("--force", is_flag=True, help="Wear it although it is quarantined.")
@click.option("--dry-run", is_flag=True, help="Check it and measure what it changes; wear nothing.")
@json_option
@pass_home
def apply(
    home: Home, name: str, base: str | None, profile: Profile, force: bool, dry_run: bool, as_json: bool
) -> None:
    """Check a pack against its base, prove that it acts, and wear it; `plastic rollback` undoes it.

    Checked are the files, the base's fingerprint, the shapes of every module and the profile's limits. Then
    a few fixed texts are read with and without the pack: a pack that changes no logit is refused.

    Example: plastic packs apply --name cooking --base nano --dry-run
    """
    from mlx_plastic.packs import Store
    from mlx_plastic.packs.wear.apply import apply_pack

    store = Store(home)
    store.open(name)  # a broken pack is told before the base is loaded
    found = apply_pack(store, open_base(home, base), name, profile=profile, force=force, dry_run=dry_run)
    if as_json:
        print_json(found.as_dict() | {"dry_run": dry_run})
    else:
        _show(found)
    _tell_base(home, base)


def _show(found: Applied) -> None:
    value = found.as_dict()
    rows: list[tuple[str, object]] = [
        ("base", f"{value['base']} {value['base_fingerprint'][:12]}: the pack was made for it and fits"),
        ("modules", value["modules"]),
        ("rank", _listed(value["ranks"])),
        ("alpha", _listed(value["alphas"])),
        ("dropout", value["dropout"]),
        ("size", f"{value['megabytes']:.2f} MB"),
        ("largest logit change", f"{value['max_logit_change']:.4g}"),
        ("KL from the bare base", f"{value['kl_nats']:.4g} nats a token, on {value['probes']} probes"),
        ("worn", f"yes (before: {found.change.name_before})" if found.change else "no: this was a dry run"),
    ]
    print_table(["PACK", value["name"]], rows)


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _tell_base(home: Home, base: str | None) -> None:
    """A pack acts on its own base only, and chats may use another."""
    usual = base_ref(home, None)
    if base is not None and base_ref(home, base) != usual:
        note(f"chats of this home use the base {usual}: for this pack start them with --base {base}")
