"""`plastic survey tables`, `plots`, `compare`."""

from __future__ import annotations

from pathlib import Path

import click

from mlx_plastic.cli.output import json_option, print_json, print_table

FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=FOLDER)
@json_option
def tables(run: Path, as_json: bool) -> None:
    """Sum the rows of RUN up, by layer, by block of four and as a whole; compare schemes.

    RUN is a run folder; its tables/ are written anew.

    Example: plastic survey tables runs/Qwen3-30B-A3B/default
    """
    from mlx_plastic.survey.folder import open_run
    from mlx_plastic.survey.tables import make_tables

    counts = make_tables(open_run(run))
    if as_json:
        print_json(counts)
    else:
        print_table(["TABLE", "ROWS"], [list(item) for item in counts.items()])


@click.command()
@click.argument("run", type=FOLDER)
@json_option
def plots(run: Path, as_json: bool) -> None:
    """Draw the pictures of RUN, and one HTML report that needs nothing else.

    RUN is a run folder; its plots/ are written anew.

    Example: plastic survey plots runs/Qwen3-30B-A3B/default
    """
    from mlx_plastic.survey.folder import open_run
    from mlx_plastic.survey.report import make_report

    folder = open_run(run)
    report = make_report(folder)
    drawn = sorted(path.name for path in folder.plots.glob("*.svg"))
    if as_json:
        print_json({"report": str(report), "plots": drawn})
    else:
        click.echo(report)
