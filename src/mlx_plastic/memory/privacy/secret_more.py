"""What belongs to a secret that was found: the marks at its end, and the others of its list."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mlx_plastic.memory.privacy.spans import Span

MOST = 24  # codes in one list
_LOUD = re.compile(r"!{1,8}")
_DIGIT, _LETTER = re.compile(r"\d"), re.compile(r"[^\W\d_]")
_NEXT = re.compile(r"[\s]{0,2}(?:[,;/&|\n]|\band\b|\bor\b){1,2}[\s\"'`*-]{0,4}(?P<value>[^\s\"'`,;|]{4,40})")
_CLOSERS = ".:!?)]"


def with_more(text: str, span: Span) -> Iterator[Span]:
    """The secret, with the exclamation marks at its end if it has a digit or they are several ("Winter24!",
    "cheese!!"), and what follows it in its list and is of the same shape ("4821-9930, 5510-2287").
    """
    found = text[span.start : span.end]
    loud = _LOUD.match(text, span.end)
    if loud and (_DIGIT.search(found) or len(loud[0]) > 1):
        yield Span(span.start, loud.end(), span.kind, span.confidence)
    yield span  # also without them, since that is how it may be said again
    if not _DIGIT.search(found):
        return
    shape, at = _shape(found), span.end
    for _ in range(MOST if len(found) >= 4 and shape != "9999" else 0):  # 9999 may be a year
        following = _NEXT.match(text, at)
        if following is None:
            return
        value = following["value"].rstrip(_CLOSERS)
        if _shape(value) != shape:
            return
        start, at = following.start("value"), following.start("value") + len(value)
        yield Span(start, at, span.kind, span.confidence)


def _shape(value: str) -> str:
    """Digits as 9, letters as a, signs as they are."""
    return _LETTER.sub("a", _DIGIT.sub("9", value))
