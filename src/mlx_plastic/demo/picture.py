"""The story as one page: a single HTML file, no script, nothing loaded from anywhere."""

from __future__ import annotations

from html import escape

from mlx_plastic.demo.story import Claim, Story

STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:1rem 0}
td,th{padding:.3rem .6rem;border-bottom:1px solid #8884;text-align:left}
.ok{color:#18794e}.bad{color:#c62a2f}svg text{fill:currentColor;font-size:13px}
"""
BAR, GAP, WIDE = 26, 10, 420


def page(story: Story, held: list[Claim]) -> str:
    """Bars of what was known before and after each night, the claims, and a few answers."""
    rows = "".join(_claim(claim) for claim in held)
    shown = [a for a in story.answers if a.before != a.after][::4][:12]
    talk = "".join(_row(answer.question, answer.before, answer.after) for answer in shown)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>A day, a night, a morning</title><style>{STYLE}</style><h1>A day, a night, a morning</h1>"
        f"<p>{story.facts} facts told, {len(story.nights)} night(s), {story.seconds:.0f} seconds.</p>"
        f"{_bars(story)}"
        "<table><tr><th>claim<th>measured<th>wanted<th></tr>"
        f"{rows}</table><h2>The same questions, evening and morning</h2>"
        f"<table><tr><th>question<th>before<th>after</tr>{talk}</table></html>\n"
    )


def _row(*cells: str) -> str:
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _claim(claim: Claim) -> str:
    mark = "<td class=ok>holds" if claim.ok else "<td class=bad>FAILS"
    return f"<tr><td>{escape(claim.text)}<td>{escape(claim.measured)}<td>{escape(claim.wanted)}{mark}</tr>"


def _bars(story: Story) -> str:
    values = []
    for day, (before, after) in enumerate(zip(story.recall_before, story.recall_after, strict=True), 1):
        values += [
            (f"day {day}, before", before, "#8b8d98"),
            (f"day {day}, after its night", after, "#18794e"),
        ]
    if len(story.nights) > 1:
        values.append((f"day 1, after night {len(story.nights)}", story.recall_first_day, "#0b68cb"))
    bars = "".join(_bar(*value, place * (BAR + GAP)) for place, value in enumerate(values))
    height = len(values) * (BAR + GAP)
    return f"<svg viewBox='0 0 {WIDE + 230} {height}' role=img aria-label='facts known'>{bars}</svg>"


def _bar(name: str, share: float, colour: str, y: int) -> str:
    width = max(2.0, share * WIDE)
    return (
        f"<text x=0 y={y + 18}>{escape(name)}</text>"
        f"<rect x=170 y={y} width={width:.0f} height={BAR} rx=3 fill='{colour}'/>"
        f"<text x={176 + width:.0f} y={y + 18}>{100 * share:.0f} %</text>"
    )
