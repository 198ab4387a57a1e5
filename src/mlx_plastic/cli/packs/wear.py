"""`plastic packs activate`: which pack is worn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import json_option

if TYPE_CHECKING:
    from mlx_plastic.home import Home


@click.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Wear it although it is quarantined.")
@click.option("--dry-run", is_flag=True, help="Check everything and change nothing.")
@json_option
@pass_home
def activate(home: Home, name: str, force: bool, dry_run: bool, as_json: bool) -> None:
    """Wear the pack NAME from the next turn on; `plastic rollback` undoes it.

    Example: plastic packs activate 2026-11-19
    """
    from mlx_plastic.cli.rollback import show_change
    from mlx_plastic.packs import Store

    store = Store(home)
    act = store.plan_activate if dry_run else store.activate
    show_change(act(name, force=force), dry_run=dry_run, as_json=as_json)
