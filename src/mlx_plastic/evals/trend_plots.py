"""Trends as one picture: a small chart for each series."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlx_plastic.errors import NotInstalled, PlasticError
from mlx_plastic.evals.trends import Series

ENDINGS = (".png", ".svg", ".pdf")
WIDE = 2  # charts beside each other


def draw(series: Sequence[Series], path: Path) -> None:
    """Write the picture; its ending says as what. Nights that were set apart are crosses.

    Raises NotInstalled without matplotlib, PlasticError for another ending and if there is nothing to draw.
    """
    if path.suffix not in ENDINGS:
        raise PlasticError(f"cannot draw {path.name}", hint=f"let the name end with {', '.join(ENDINGS)}")
    if not series:
        raise PlasticError("nothing was measured yet", hint="plastic sleep, or plastic eval loss")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NotInstalled("matplotlib is not installed", hint="pip install 'mlx-plastic[plots]'") from error

    rows = -(-len(series) // WIDE)
    figure = Figure(figsize=(6 * WIDE, 2.8 * rows), layout="constrained")
    axes = figure.subplots(rows, WIDE, squeeze=False).flat
    for axis, one in zip(axes, series, strict=False):
        numbers = range(len(one.points))
        worn = [(i, p) for i, p in zip(numbers, one.points, strict=True) if p.passed]
        apart = [(i, p) for i, p in zip(numbers, one.points, strict=True) if not p.passed]
        axis.errorbar(
            [i for i, _ in worn],
            [p.value for _, p in worn],
            yerr=[p.error if p.error is not None and p.error < float("inf") else 0.0 for _, p in worn],
            marker="o",
            capsize=2,
        )
        axis.plot([i for i, _ in apart], [p.value for _, p in apart], "rx")
        axis.set_title(one.name, fontsize=10)
        axis.set_ylabel(one.unit)
        axis.set_xticks(list(numbers), [p.tag or p.when[:10] for p in one.points], rotation=60, fontsize=7)
        axis.grid(alpha=0.3)
    for axis in list(figure.axes)[len(series) :]:
        axis.set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
