"""`plastic rollback`: the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import json_option, print_json

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.packs import Change


@click.command()
@click.argument("tag", required=False)
@click.option("--dry-run", is_flag=True, help="Show what would be worn and change nothing.")
@json_option
@pass_home
def rollback(home: Home, tag: str | None, dry_run: bool, as_json: bool) -> None:
    """Go back to the pack worn before, or to TAG.

    TAG is the name of a pack, or `base` for the bare base. Nothing is deleted.

    Example: plastic rollback base
    """
    from mlx_plastic.packs import Store

    store = Store(home)
    act = store.plan_rollback if dry_run else store.rollback
    show_change(act(tag), dry_run=dry_run, as_json=as_json)


def show_change(change: Change, *, dry_run: bool, as_json: bool) -> None:
    """What is worn now, and what was before."""
    if as_json:
        print_json(
            {
                "action": change.action,
                "before": list(change.before),
                "now": list(change.now),
                "dry_run": dry_run,
            }
        )
        return
    click.echo(f"{'would wear' if dry_run else 'worn'}: {change.name} (before: {change.name_before})")
