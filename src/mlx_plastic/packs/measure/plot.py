"""One scatter plot as an SVG of its own: no dependency, no script, nothing loaded from anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 50, 55  # margins
# Okabe & Ito 2008: told apart also by the colour-blind
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8b8d98")
STYLE = "text{font:12px system-ui,sans-serif;fill:#333}.grid{stroke:#8883}"


@dataclass(frozen=True)
class Mark:
    """A point. title: what a browser shows when it is pointed at."""

    x: float
    y: float
    series: str
    label: str = ""
    title: str = ""
    filled: bool = True


def scatter(marks: Sequence[Mark], *, title: str, x_label: str, y_label: str) -> str:
    """The marks as an SVG document; those at no finite place are left out and counted in the title."""
    seen = [m for m in marks if math.isfinite(m.x) and math.isfinite(m.y)]
    lost = f" ({len(marks) - len(seen)} not finite)" if len(seen) < len(marks) else ""
    x_ticks, y_ticks = ticks([m.x for m in seen]), ticks([m.y for m in seen])
    across = _scale(x_ticks, LEFT, WIDTH - RIGHT)
    up = _scale(y_ticks, HEIGHT - BOTTOM, TOP)
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(sorted({m.series for m in seen}))}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<style>{STYLE}</style><rect width='100%' height='100%' fill='#fff'/>",
        f'<text x="{LEFT}" y="26" font-weight="bold">{escape(title + lost)}</text>',
        *(_vertical(value, across(value)) for value in x_ticks),
        *(_horizontal(value, up(value)) for value in y_ticks),
        _axis(x_label, f"translate({(LEFT + WIDTH - RIGHT) / 2:.0f} {HEIGHT - 14})"),
        _axis(y_label, f"translate(18 {HEIGHT / 2:.0f}) rotate(-90)"),
        *(_dot(m, across(m.x), up(m.y), colours[m.series]) for m in seen),
        *(_legend(name, colour, TOP + 20 * i) for i, (name, colour) in enumerate(colours.items())),
        "</svg>\n",
    ]
    return "\n".join(parts)


def ticks(values: Sequence[float], about: int = 5) -> list[float]:
    """Round numbers, evenly spaced, that reach from below the smallest value to above the largest."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    span = (high - low) or abs(high) or 1.0
    rough = span / about
    step = next(
        m * 10.0 ** math.floor(math.log10(rough))
        for m in (1, 2, 5, 10)
        if m * 10.0 ** math.floor(math.log10(rough)) >= rough * 0.999
    )
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def _scale(ticks_: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    low, high = ticks_[0], ticks_[-1]
    return lambda value: start + (end - start) * (value - low) / (high - low)


def _axis(label: str, transform: str) -> str:
    return f'<text transform="{transform}" text-anchor="middle">{escape(label)}</text>'


def _vertical(value: float, x: float) -> str:
    return (
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:g}</text>'
    )


def _horizontal(value: float, y: float) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
    )


def _dot(mark: Mark, x: float, y: float, colour: str) -> str:
    fill = colour if mark.filled else "#fff"
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="{colour}" stroke-width="2">'
        f"<title>{escape(mark.title)}</title></circle>"
        + (f'<text x="{x + 8:.1f}" y="{y - 6:.1f}">{escape(mark.label)}</text>' if mark.filled else "")
    )


def _legend(name: str, colour: str, y: float) -> str:
    x = WIDTH - RIGHT + 24
    dot = f'<circle cx="{x}" cy="{y}" r="5" fill="{colour}"/>'
    return f'{dot}<text x="{x + 12}" y="{y + 4}">{escape(name)}</text>'
