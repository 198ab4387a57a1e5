"""Small pictures as SVG: lines, marks and heatmaps, with no dependency, no script and nothing to load."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 74, 190, 40, 50  # margins
# Okabe & Ito 2008: told apart also by the colour-blind
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8b8d98", "#000000")
SHADES = 24  # of a heatmap
# not "font:", which would undo the bold of titles
STYLE = "text{font-size:12px;font-family:system-ui,sans-serif;fill:#333}.grid{stroke:#8883}"

Points = Sequence[tuple[float, float]]
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Mark:
    """A point of a scatter plot. title: what a browser shows when it is pointed at."""

    x: float
    y: float
    series: str
    label: str = ""
    title: str = ""
    filled: bool = True


def lines(
    series: Mapping[str, Points], *, title: str, x_label: str, y_label: str, log_y: bool = False,
    level: tuple[float, str] | None = None, dots: bool = True, names: Sequence[str] = (),
) -> str:  # fmt: skip
    """One line for each series. log_y: what is not above 0 is left out. level: a line at a height.

    names: of all series of several pictures, so that each has one colour in all of them.
    """
    seen = {name: _seen(points, log_y) for name, points in series.items()}
    xs = [x for points in seen.values() for x, _ in points] or [0.0]
    ys = [y for points in seen.values() for _, y in points] + ([level[0]] if level else []) or [1.0]
    x_ticks = ticks(min(xs), max(xs))
    y_ticks = decades(min(ys), max(ys)) if log_y else ticks(min(ys), max(ys))
    across = _scale(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT)
    up = _scale(_lg(y_ticks[0], log_y), _lg(y_ticks[-1], log_y), HEIGHT - BOTTOM, TOP)
    parts = [_frame(title, x_label, y_label)]
    parts += [_grid_x(value, across(value)) for value in x_ticks]
    parts += [_grid_y(value, up(_lg(value, log_y))) for value in y_ticks]
    if level:
        y = up(_lg(level[0], log_y))
        ends = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
        parts.append(f'<line {ends} stroke="#c00" stroke-dasharray="5 4"/>')
        place = f'x="{WIDTH - RIGHT - 6}" y="{y - 5:.1f}" text-anchor="end"'
        parts.append(f'<text {place} fill="#c00">{escape(level[1])}</text>')
    for i, (name, points) in enumerate(seen.items()):
        colour = COLOURS[(names.index(name) if name in names else i) % len(COLOURS)]
        at = [(across(x), up(_lg(y, log_y))) for x, y in points]
        if len(at) > 1:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
            parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{path}"/>')
        if dots:
            parts += [
                _dot(px, py, colour, f"{name}: {x:g}, {y:.4g}")
                for (px, py), (x, y) in zip(at, points, strict=True)
            ]
        parts.append(_legend(name, colour, TOP + 18 * i))
    return "\n".join([*parts, "</svg>\n"])


def scatter(marks: Sequence[Mark], *, title: str, x_label: str, y_label: str) -> str:
    """A colour for each series; marks at no finite place are left out and counted in the title."""
    seen = [m for m in marks if math.isfinite(m.x) and math.isfinite(m.y)]
    lost = f" ({len(marks) - len(seen)} not finite)" if len(seen) < len(marks) else ""
    xs, ys = [m.x for m in seen] or [0.0, 1.0], [m.y for m in seen] or [0.0, 1.0]
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
    across = _scale(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT)
    up = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    names = sorted({m.series for m in seen})
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    parts = [_frame(title + lost, x_label, y_label)]
    parts += [_grid_x(value, across(value)) for value in x_ticks]
    parts += [_grid_y(value, up(value)) for value in y_ticks]
    parts += [_mark(m, across(m.x), up(m.y), colours[m.series]) for m in seen]
    parts += [_legend(name, colours[name], TOP + 18 * i) for i, name in enumerate(names)]
    return "\n".join([*parts, "</svg>\n"])


def _mark(mark: Mark, x: float, y: float, colour: str) -> str:
    fill = colour if mark.filled else "#fff"
    named = f'<text x="{x + 8:.1f}" y="{y - 6:.1f}">{escape(mark.label)}</text>' if mark.filled else ""
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="{colour}" stroke-width="2">'
        f"<title>{escape(mark.title)}</title></circle>{named}"
    )


def heatmap(
    values: Mapping[tuple[int, int], float], *, title: str, x_label: str, y_label: str, unit: str = ""
) -> str:
    """values by (column, row); the colour goes from the smallest to the largest finite one."""
    finite = {at: v for at, v in values.items() if math.isfinite(v)}
    if not finite:
        return ""
    columns, rows = max(x for x, _ in finite) + 1, max(y for _, y in finite) + 1
    low, high = min(finite.values()), max(finite.values())
    wide, tall = (WIDTH - LEFT - RIGHT) / columns, (HEIGHT - TOP - BOTTOM) / rows
    shades: dict[int, list[str]] = {}
    for (x, y), value in finite.items():
        shade = round((SHADES - 1) * (value - low) / (high - low)) if high > low else 0
        left, top = LEFT + x * wide, TOP + y * tall
        shades.setdefault(shade, []).append(f"M{left:.1f} {top:.1f}h{wide:.2f}v{tall:.2f}h-{wide:.2f}z")
    parts = [_frame(title, x_label, y_label)]
    parts += [
        f'<path fill="{_colour(shade)}" d="{"".join(cells)}"/>' for shade, cells in sorted(shades.items())
    ]
    for x in _some(columns):
        parts.append(
            f'<text x="{LEFT + (x + 0.5) * wide:.1f}" y="{HEIGHT - BOTTOM + 16}" '
            f'text-anchor="middle">{x}</text>'
        )
    for y in _some(rows):
        parts.append(
            f'<text x="{LEFT - 8}" y="{TOP + (y + 0.5) * tall + 4:.1f}" text-anchor="end">{y}</text>'
        )
    step = (HEIGHT - TOP - BOTTOM) / SHADES
    for i in range(SHADES):
        place = f'x="{WIDTH - RIGHT + 24}" y="{HEIGHT - BOTTOM - (i + 1) * step:.1f}"'
        parts.append(f'<rect {place} width="14" height="{step + 0.5:.1f}" fill="{_colour(i)}"/>')
    parts.append(f'<text x="{WIDTH - RIGHT + 44}" y="{TOP + 10}">{high:.4g} {escape(unit)}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT + 44}" y="{HEIGHT - BOTTOM}">{low:.4g} {escape(unit)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers, evenly spaced, from below the smallest to above the largest."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= 0.999 * span / about)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def decades(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    step = max(1, (last - first) // 8)
    return [10.0**i for i in range(first, last + step, step)]


def _seen(points: Points, log_y: bool) -> Points:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log_y)]


def _lg(value: float, log: bool) -> float:
    return math.log10(value) if log else value


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    return lambda value: start + (end - start) * (value - low) / ((high - low) or 1.0)


def _some(count: int) -> list[int]:
    return list(range(0, count, max(1, math.ceil(count / 12))))


def _colour(shade: int) -> str:
    """From pale yellow over orange to dark violet, evenly darker: it also reads in grey."""
    stops = ((255, 250, 205), (253, 174, 97), (215, 48, 79), (106, 0, 95), (30, 0, 50))
    at = shade / (SHADES - 1) * (len(stops) - 1)
    i = min(int(at), len(stops) - 2)
    mixed = (round(a + (b - a) * (at - i)) for a, b in zip(stops[i], stops[i + 1], strict=True))
    return "#" + "".join(f"{c:02x}" for c in mixed)


def _frame(title: str, x_label: str, y_label: str) -> str:
    across, up = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>{escape(title)}</title><style>{STYLE}</style><rect width='100%' height='100%' fill='#fff'/>"
        f'<text x="{LEFT}" y="22" font-weight="bold">{escape(title)}</text>'
        f'<text x="{across:.0f}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text transform="translate(16 {up:.0f}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )


def _grid_x(value: float, x: float) -> str:
    return (
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>'
    )


def _grid_y(value: float, y: float) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
    )


def _dot(x: float, y: float, colour: str, told: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{escape(told)}</title></circle>'


def _legend(name: str, colour: str, y: float) -> str:
    x = WIDTH - RIGHT + 16
    box = f'<rect x="{x}" y="{y - 4}" width="12" height="4" fill="{colour}"/>'
    return f'{box}<text x="{x + 18}" y="{y + 2}">{escape(name)}</text>'
