"""Templates, and the headers that let a page load and send nothing from or to elsewhere."""

from __future__ import annotations

import functools
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Frame-Options": "DENY", "Cache-Control": "no-store"}


@functools.cache
def environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"clock": clock, "number": number, "names": names}
    return found


def page(template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    text = environment().get_template(template).render(values)
    return HTMLResponse(text, status, HEADERS)


def clock(at: datetime | str | None) -> str:
    """A time by the clock of this machine."""
    if isinstance(at, str):
        try:
            at = datetime.fromisoformat(at)
        except ValueError:
            return "-"
    return f"{at.astimezone():%Y-%m-%d %H:%M}" if at else "-"


def number(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def names(worn: Any) -> str:
    return " + ".join(worn) or "no pack"
