"""The page and the picture of what was measured: docs/benchmarks.md and docs/benchmarks.svg."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from proof.plan import BENCHES, QUOTED, Bench, Figure

HEAD = """\
# Benchmarks

Written by `make bench`, which runs each script here beside what it is compared with, on the same work, and
keeps what they print in `docs/benchmarks.json`. A figure is the median of its runs, with the lowest and the
highest where there were several. Each section tells when it was run, on which commit and on what machine: all
of them take hours, so a run may renew only some (`python benchmarks/run_all.py --only NAME`). Aims that are
missed stay in the table.

![Figures over their aims](benchmarks.svg)
"""

BEGINS, ENDS = "<!-- figures: written by make bench -->", "<!-- end of figures -->"


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def values(figure: Figure, runs: list[dict[str, Any]]) -> list[float]:
    found = [figure.of(run) for run in runs]
    return [value for value in found if value is not None]


def aim(figure: Figure) -> str:
    if figure.aim is None:
        return ""
    return f"{'at least' if figure.better == 'more' else 'at most'} {number(figure.aim)}"


def line(figure: Figure, runs: list[dict[str, Any]]) -> str:
    """A row of the table; one that no run has a figure for says so."""
    found = values(figure, runs)
    if not found:
        return f"| {figure.says} | not measured | | {aim(figure)} | |"
    middle = statistics.median(found)
    spread = (
        f"{number(min(found))} to {number(max(found))}, n = {len(found)}" if len(found) > 1 else "one run"
    )
    holds = {None: "", True: "yes", False: "**no**"}[figure.holds(middle)]
    return f"| {figure.says} | {number(middle)} | {spread} | {aim(figure)} | {holds} |"


def quoted(readme: str, kept: dict[str, Any]) -> str:
    """README with the figures of QUOTED between its two marks, each as the page tells it."""
    rows = ["| | measured | |", "|---|---|---|"]
    for says, (name, begins) in QUOTED.items():
        figures = {bench.name: bench.figures for bench in BENCHES}[name]
        figure = next(figure for figure in figures if figure.says.startswith(begins))
        found = values(figure, kept[name]["runs"]) if name in kept else []
        measured = number(statistics.median(found)) if found else "not measured"
        rows.append(f"| {says} | {measured} | {aim(figure)} |")
    before, rest = readme.split(BEGINS)
    return "\n".join([before + BEGINS, "", *rows, "", ENDS + rest.split(ENDS)[1]])


def section(bench: Bench, kept: dict[str, Any]) -> list[str]:
    rows = [line(figure, kept["runs"]) for figure in bench.figures]
    beside = f", beside {bench.peer}" if bench.peer else ""
    where = f"{kept['date']}, commit {kept['commit']}, {kept['machine']}"
    return [
        f"## {bench.shows[0].upper()}{bench.shows[1:]}{beside}",
        "",
        f"`{' '.join(bench.command)}` ({where})",
        "",
        "| | median | spread | aim | holds |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]


def page(kept: dict[str, Any]) -> str:
    """docs/benchmarks.md for what docs/benchmarks.json holds."""
    parts = [HEAD]
    for bench in BENCHES:
        if bench.name in kept:
            parts += section(bench, kept[bench.name])
    missing = [bench.name for bench in BENCHES if bench.name not in kept]
    if missing:
        parts += ["## Not measured yet", "", ", ".join(missing) + ".", ""]
    return "\n".join(parts).rstrip() + "\n"


def over_aim(kept: dict[str, Any]) -> list[tuple[str, float]]:
    """How many times better than its aim each figure is; under 1 it is missed."""
    found = []
    for bench in BENCHES:
        for figure in bench.figures:
            measured = values(figure, kept.get(bench.name, {}).get("runs", []))
            if figure.aim and measured and (middle := statistics.median(measured)) > 0:
                ratio = middle / figure.aim if figure.better == "more" else figure.aim / middle
                found.append((f"{bench.name}: {figure.says}", ratio))
    return found


def picture(kept: dict[str, Any], out: Path) -> None:
    """One bar for each figure with an aim. Raises ModuleNotFoundError without matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "benchmarks"  # the same figures give the same file
    from matplotlib import pyplot

    found = over_aim(kept)
    if not found:
        return
    names, ratios = zip(*reversed(found), strict=True)
    shown = [min(ratio, 1000.0) for ratio in ratios]
    figure, axes = pyplot.subplots(figsize=(10, 0.8 + 0.26 * len(names)), layout="constrained")
    axes.barh(
        names, [r - 1 for r in shown], left=1, color=["#2a7f62" if r >= 1 else "#b5452c" for r in shown]
    )
    axes.set_xscale("log")
    axes.axvline(1, color="#444", linewidth=1)
    axes.set_xlabel("times better than the aim (log scale; left of the line it is missed)")
    axes.tick_params(axis="y", labelsize=8)
    axes.margins(y=0.01)
    figure.savefig(out, metadata={"Date": None})
    pyplot.close(figure)
