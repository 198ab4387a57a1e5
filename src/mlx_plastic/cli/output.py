"""Results on stdout, progress on stderr: what every command prints with."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

AS_JSON = "mlx_plastic.as_json"  # in what click's contexts share
PLAIN_EVERY_S = 5.0  # seconds between progress lines where nobody sees a line being rewritten


def json_option(function: F) -> F:
    """The option --json of a command, passed to it as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, callback=_noted, help="Print JSON on stdout.")(
        function
    )


def _noted(context: click.Context, _: click.Parameter, value: bool) -> bool:
    context.meta[AS_JSON] = value
    return value


def wants_json(context: click.Context) -> bool:
    """Whether the command that ran below this context was asked for JSON."""
    return bool(context.meta.get(AS_JSON))


def print_json(value: Any) -> None:
    """`value` as readable JSON on stdout. NaN and infinities raise ValueError: JSON has none."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Aligned columns on stdout; numbers to the right. Plain text, so that it can be piped."""
    cells = [list(columns), *([_cell(value) for value in row] for row in rows)]
    numeric = [all(_is_number(row[i]) for row in cells[1:]) for i in range(len(columns))]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        parts = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)]
        click.echo("  ".join(parts).rstrip())


def _cell(value: object) -> str:
    if value is None:
        return "-"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return printable(" ".join(text.split("\n")).replace("\t", " "))  # a value may not look like several rows


def _is_number(text: str) -> bool:
    return text == "-" or text.lstrip("+-").replace(".", "", 1).replace("e-", "", 1).rstrip("%").isdigit()


_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # override direction


def printable(text: str) -> str:
    """The text without control characters, save new lines and tabs: it may not command the terminal.

    Nor may it turn the line around, so that what stands there reads as something else (CVE-2021-42574).
    """
    shown = (c for c in text if c in "\n\t" or (c >= " " and not "\x7f" <= c <= "\x9f"))
    return "".join(c for c in shown if c not in _TURNS)


def short(text: str, length: int) -> str:
    """The text in one printable line of at most so many characters; "…" ends one that was cut."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= length else line[: length - 1] + "…"


def clock(at: datetime | None) -> str:
    """A time by the clock of this machine, to the minute; "-" for none."""
    return f"{at.astimezone():%Y-%m-%d %H:%M}" if at else "-"


def note(text: str) -> None:
    """One line of progress on stderr."""
    click.echo(text, err=True)


@contextmanager
def progress(label: str) -> Iterator[Callable[..., None]]:
    """A progress display on stderr. Gives `tick(done, total, detail="")`.

    On a terminal one line that is rewritten; elsewhere a plain line every few seconds and the last one.
    """
    line = _Line(label, live=sys.stderr.isatty())
    try:
        yield line.tick
    finally:
        line.close()


def with_eta(tick: Callable[..., None], what: str = "left") -> Callable[..., None]:
    """`tick` that also says how many seconds are left, if all goes on as fast as so far."""
    began = time.monotonic()

    def told(done: float, total: float, detail: str = "") -> None:
        left = (total - done) * (time.monotonic() - began) / done if done else 0.0
        tick(done, total, f"{detail}, {left:.0f} s {what}" if left else detail)

    return told


class _Line:
    def __init__(self, label: str, *, live: bool) -> None:
        self.label = label
        self.live = live
        self.last = ""
        self.shown = ""
        self.shown_at = 0.0

    def tick(self, done: float, total: float, detail: str = "") -> None:
        share = 100 * done / total if total else 100.0
        self.last = f"{self.label} {share:3.0f} %  {detail}".rstrip()
        every_s = 0.1 if self.live else PLAIN_EVERY_S
        if time.monotonic() - self.shown_at >= every_s:
            self._show()

    def _show(self) -> None:
        if self.last == self.shown:
            return
        click.echo(f"\r\x1b[2K{self.last}" if self.live else self.last, nl=not self.live, err=True)
        self.shown, self.shown_at = self.last, time.monotonic()

    def close(self) -> None:
        self._show()
        if self.live and self.shown:
            click.echo(err=True)
