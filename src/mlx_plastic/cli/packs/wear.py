"""`plastic packs activate`, `pin`, `unpin`: which packs are worn, and which are never removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import json_option, print_json

if TYPE_CHECKING:
    from mlx_plastic.home import Home


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--force", is_flag=True, help="Wear it although it is quarantined.")
@click.option("--dry-run", is_flag=True, help="Check everything and change nothing.")
@json_option
@pass_home
def activate(home: Home, names: tuple[str, ...], force: bool, dry_run: bool, as_json: bool) -> None:
    """Wear the pack NAME from the next turn on; `plastic rollback` undoes it.

    Several packs of one base are worn together: their updates add up.

    Example: plastic packs activate 2026-11-19
    """
    from mlx_plastic.cli.rollback import show_change
    from mlx_plastic.packs import Store

    store = Store(home)
    act = store.plan_activate if dry_run else store.activate
    show_change(act(*names, force=force), dry_run=dry_run, as_json=as_json)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--dry-run", is_flag=True, help="Show what would be pinned and change nothing.")
@json_option
@pass_home
def pin(home: Home, names: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Keep packs for good: `packs gc` never removes them.

    Example: plastic packs pin 2026-11-19
    """
    _pin(home, names, dry_run, as_json, pinned=True)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--dry-run", is_flag=True, help="Show what would stay pinned and change nothing.")
@json_option
@pass_home
def unpin(home: Home, names: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Let `packs gc` judge pinned packs again.

    Example: plastic packs unpin 2026-11-19
    """
    _pin(home, names, dry_run, as_json, pinned=False)


def _pin(home: Home, names: tuple[str, ...], dry_run: bool, as_json: bool, *, pinned: bool) -> None:
    from mlx_plastic.packs import Store

    store = Store(home)
    act = store.plan_pins if dry_run else store.pin
    pins = act(*names, pinned=pinned)
    if as_json:
        print_json({"pinned": list(pins), "dry_run": dry_run})
    else:
        click.echo(f"{'would be pinned' if dry_run else 'pinned'}: {', '.join(pins) or 'none'}")
