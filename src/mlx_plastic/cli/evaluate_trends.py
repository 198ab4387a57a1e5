"""`plastic eval trends`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.evaluate_common import OUT, write_rows
from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import Number
from mlx_plastic.cli.output import json_option, note, print_json, print_table

if TYPE_CHECKING:
    from mlx_plastic.evals.trends import Series
    from mlx_plastic.home import Home


@click.command()
@click.option("--series", "wanted", metavar="TEXT", help="Only series whose name holds this.")
@click.option("--last", type=click.IntRange(min=1), help="Only the last so many measurements of each.")
@click.option("--tolerance", type=Number(min=0), default=2.0, show_default=True,
              help="Percent by which the last may be worse than the best before it.")  # fmt: skip
@click.option("--fail-on-regression", is_flag=True, help="Exit with 1 if a series got worse than that.")
@click.option("--plot", type=OUT, help="Draw them into this .png, .svg or .pdf (extra: plots).")
@click.option("--csv", type=OUT, help="Append a row for each measurement to this file.")
@click.option("--jsonl", type=OUT, help="Append an object for each measurement to this file.")
@json_option
@pass_home
def trends(
    home: Home,
    wanted: str | None,
    last: int | None,
    tolerance: float,
    fail_on_regression: bool,
    plot: Path | None,
    csv: Path | None,
    jsonl: Path | None,
    as_json: bool,
) -> None:
    """Show how measurements went over nights, and what got worse.

    Every night, and every eval of loss, tasks, style and search, is kept in the home's logs; what was
    measured on the same data makes a series. A night that was set apart is shown, and does not count.

    Example: plastic eval trends --fail-on-regression --plot trends.png
    """
    from mlx_plastic.evals import History
    from mlx_plastic.evals.trends import trends as collected

    nights, others = (History(home.logs / name).entries() for name in ("nights.jsonl", "experiments.jsonl"))
    found = [one for one in collected(nights, others) if not wanted or wanted in one.name]
    if plot:
        from mlx_plastic.evals.trend_plots import draw

        draw([one.shortened(last) for one in found], plot)
        note(f"drawn: {plot}")
    rows = [row for one in found for row in one.shortened(last).rows()]
    worse = [one for one in found if one.regressed(tolerance)]
    if rows:
        write_rows(rows, csv=csv, jsonl=jsonl)
    if as_json:
        print_json({"rows": rows, "regressed": [one.name for one in worse]})
    elif found:
        _show(found, last, tolerance)
    else:
        note("nothing was measured yet" if not wanted else f"no series holds {wanted!r}")
    for one in worse:
        last_, best = one.worn[-1].value, one.best
        note(f"worse: {one.name} is {last_:.4g}, and was {best.value:.4g} ({best.tag or best.when})")
    if worse and fail_on_regression:
        raise click.exceptions.Exit(1)


def _show(found: list[Series], last: int | None, tolerance: float) -> None:
    rows = []
    for one in found:
        points = one.shortened(last).points
        values = [p.value for p in points]
        told = "worse" if one.regressed(tolerance) else ""
        rows.append([one.name, len(points), values[0], values[-1], one.change, one.unit, _bars(values), told])
    print_table(("series", "n", "first", "last", "change", "unit", "course", ""), rows)


def _bars(values: list[float]) -> str:
    """The course in block characters; a gap where there is no number."""
    known = [v for v in values if v == v and abs(v) != float("inf")][-24:]
    if not known:
        return ""
    low, high = min(known), max(known)
    height = (high - low) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[int(7.99 * (v - low) / height)] if v in known else " " for v in values[-24:])
