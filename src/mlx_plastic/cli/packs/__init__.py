"""`plastic packs`: a group whose commands are imported only when they are run."""

from __future__ import annotations

import click

from mlx_plastic.cli.main import LazyGroup

COMMANDS = {
    "list": ("mlx_plastic.cli.packs.show", "list_packs", "List every pack and whether it is worn."),
    "inspect": (
        "mlx_plastic.cli.packs.show",
        "inspect",
        "Show what a pack is: its base, ranks, data, lineage and eval results; its files are verified.",
    ),
    "activate": (
        "mlx_plastic.cli.packs.wear",
        "activate",
        "Wear the pack NAME from the next turn on; `plastic rollback` undoes it.",
    ),
    "rollback": ("mlx_plastic.cli.rollback", "rollback", "Go back to the pack worn before, or to TAG."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def packs() -> None:
    """Make, look at, wear, measure and exchange packs.

    Example: plastic packs list
    """
