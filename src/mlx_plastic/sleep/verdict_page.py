"""A night's verdict as one page that needs nothing else: what was measured, each bound, and its reason."""

from __future__ import annotations

import math
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from mlx_plastic.evals import WHY, Report, Verdict
from mlx_plastic.sleep.journal import Record

if TYPE_CHECKING:
    from jinja2 import Template


def page(record: Record, verdict: Verdict, before: Report, after: Report) -> str:
    """HTML without scripts. It holds ids, counts and figures, never what was said."""
    return _template().render(
        record=record,
        verdict=verdict,
        scores=[(score, before.score(score.name)) for score in after.scores],
        turned=turned(before, after),
        tasks=len(after.tasks),
        why=WHY,
        number=number,
    )


def turned(before: Report, after: Report) -> list[tuple[str, bool]]:
    """Tasks whose outcome changed, with what it is now."""
    names = sorted(before.tasks.keys() & after.tasks.keys())
    return [(name, after.tasks[name]) for name in names if before.tasks[name] != after.tasks[name]]


def number(value: Any) -> str:
    """As a person reads it; what is missing or no number is a dash."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    text = resources.files("mlx_plastic.sleep").joinpath("verdict.html").read_text("utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(text)
