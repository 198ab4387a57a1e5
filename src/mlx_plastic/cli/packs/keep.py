"""`plastic packs add`, `gc`, `remove`: what the store holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import Number
from mlx_plastic.cli.output import json_option, note, print_json, print_table

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.packs.store.store import Fate, Store


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", metavar="N", help="The name it gets here, instead of its own.")
@click.option("--trust", "keys", multiple=True, metavar="FILE", help="Take it only if this key signed it.")
@click.option("--require-signature", is_flag=True, help="Take it only if it is signed.")
@click.option("--dry-run", is_flag=True, help="Check everything and change nothing.")
@json_option
@pass_home
def add(
    home: Home,
    folder: Path,
    name: str | None,
    keys: tuple[str, ...],
    require_signature: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy a pack from elsewhere into the store, after every check; it is a candidate there.

    What is copied are the very bytes that were verified. Nothing of it is run, and it is not worn.

    Example: plastic packs add ./cooking --name cooking
    """
    from mlx_plastic.cli.packs.sign import demanded
    from mlx_plastic.packs import Store
    from mlx_plastic.packs.format.audit import check

    demand = demanded(keys, require_signature)
    manifest = Store(home).take(folder, name, check=lambda pack: check(pack, demand), dry_run=dry_run)
    if as_json:
        found = {"name": manifest.name, "base": manifest.base_id, "sha256": manifest.sha256}
        print_json({**found, "dry_run": dry_run})
        return
    click.echo(f"{'would add' if dry_run else 'added'}: {manifest.name}, for base {manifest.base_id}")
    if not dry_run:
        note(f"to try it: plastic packs apply --name {manifest.name} --dry-run")


@click.command()
@click.option("--keep", default=10, show_default=True, metavar="N", help="Packs worn last, and steps back.")
@click.option(
    "--days",
    type=Number(min=0),
    default=30.0,
    show_default=True,
    help="Leave packs alone that were never worn for so long.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed and change nothing.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@json_option
@pass_home
def gc(home: Home, keep: int, days: float, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove packs that nobody would go back to: not worn, not pinned, not among the last N.

    Kept are what is worn, what is pinned, the N packs worn last, all that N rollbacks would lead to, and
    candidates and quarantined packs younger than --days. What was worn when stays in the history.

    Example: plastic packs gc --keep 5 --dry-run
    """
    from mlx_plastic.packs import Store

    if keep < 0 or not days >= 0:
        raise click.UsageError("--keep and --days cannot be negative")
    store = Store(home)
    fates = store.plan_gc(keep=keep, days=days)
    _remove(store, [fate for fate in fates if not fate.keep], dry_run, yes, as_json, fates)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--dry-run", is_flag=True, help="Check everything and change nothing.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@json_option
@pass_home
def remove(home: Home, names: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete packs for ever; one that is worn or pinned is refused.

    Example: plastic packs remove trial --dry-run
    """
    from mlx_plastic.packs import Store

    store = Store(home)
    _remove(store, store.plan_remove(*names), dry_run, yes, as_json)


def _remove(
    store: Store, gone: Sequence[Fate], dry_run: bool, yes: bool, as_json: bool, shown: Sequence[Fate] = ()
) -> None:
    if not as_json:
        _show_fates(shown or gone)
    if gone and not (dry_run or yes):
        click.confirm(f"delete {len(gone)} packs for ever?", abort=True, err=True)
    if gone and not dry_run:
        store.remove(*(fate.name for fate in gone))
    freed = sum(fate.bytes for fate in gone)
    if as_json:
        kept = [dataclasses.asdict(fate) for fate in shown if fate.keep]
        removed = [dataclasses.asdict(fate) for fate in gone]
        print_json({"removed": removed, "kept": kept, "freed_bytes": freed, "dry_run": dry_run})
        return
    click.echo(f"{'would remove' if dry_run else 'removed'}: {len(gone)} packs, {freed / 1e6:.1f} MB")


def _show_fates(fates: Sequence[Fate]) -> None:
    if fates:
        rows = [
            (fate.name, "keep" if fate.keep else "remove", f"{fate.bytes / 1e6:.2f}", fate.reason)
            for fate in fates
        ]
        print_table(["NAME", "FATE", "MB", "WHY"], rows)
