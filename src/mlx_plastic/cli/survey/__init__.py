"""`plastic survey`: a group whose commands are imported only when they are run."""

from __future__ import annotations

import click

from mlx_plastic.cli.main import LazyGroup

COMMANDS = {
    "run": (
        "mlx_plastic.cli.survey.collect",
        "run_all",
        "Survey a checkpoint (a folder, a file or a URL), or go on with a run folder: all four steps.",
    ),
    "init": (
        "mlx_plastic.cli.survey.collect",
        "init",
        "Make a run folder with a config that can be edited; one that is there stays.",
    ),
    "collect": (
        "mlx_plastic.cli.survey.collect",
        "collect",
        "Read every weight once and write the rows of RUN; goes on where it was interrupted.",
    ),
    "tables": (
        "mlx_plastic.cli.survey.show",
        "tables",
        "Sum the rows of RUN up, by layer, by block of four and as a whole; compare schemes.",
    ),
    "plots": (
        "mlx_plastic.cli.survey.show",
        "plots",
        "Draw the pictures of RUN, and one HTML report that needs nothing else.",
    ),
    "compare": (
        "mlx_plastic.cli.survey.show",
        "compare",
        "Show what differs between two runs, matrix by matrix.",
    ),
    "watch": (
        "mlx_plastic.cli.survey.watch",
        "watch",
        "Run a text through a mixture of experts and count which experts it goes to.",
    ),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def survey() -> None:
    """See what is fragile in a checkpoint, and what bits cost.

    Example: plastic survey run /models/Qwen3-30B-A3B
    """
