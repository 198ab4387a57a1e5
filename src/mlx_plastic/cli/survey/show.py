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


@click.command()
@click.argument("first", type=FOLDER)
@click.argument("second", type=FOLDER)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Every row, as .csv or .parquet."
)
@click.option("--limit", type=click.IntRange(min=0), default=10, show_default=True, help="Matrices shown.")
@json_option
def compare(first: Path, second: Path, out: Path | None, limit: int, as_json: bool) -> None:
    """Show what differs between two runs, matrix by matrix.

    Matrices are the same if kind, projection, layer and expert are.

    Example: plastic survey compare runs/model/bf16 runs/model-4bit/default --out moved.csv
    """
    from mlx_plastic.survey.compare import compare_runs, write_comparison
    from mlx_plastic.survey.folder import open_run

    found = compare_runs(open_run(first), open_run(second))
    written = write_comparison(found, out) if out else None
    if as_json:
        only = {"only_first": found.only_first, "only_second": found.only_second}
        print_json(
            {"summary": found.summary(), "largest": found.rows[:limit], **only, "out": str(written or "")}
        )
        return
    rows = found.summary()
    print_table([name.upper() for name in rows[0]], [list(row.values()) for row in rows])
    for which, names in (("first", found.only_first), ("second", found.only_second)):
        if names:
            click.echo(f"only in the {which}: {len(names)}, as {', '.join(names[:3])}")
    shown = ("derived_tensor", "scheme", "measure", "first", "second", "relative")
    if limit and found.rows:
        print_table([n.upper() for n in shown], [[row[n] for n in shown] for row in found.rows[:limit]])
