"""What a detector gives: a stretch of text, of which kind it is, and how sure that is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
    "secret", "iban", "card", "national_id", "account", "email", "phone", "ip", "url", "address",
    "profanity", "person",
]  # fmt: skip
By = Literal["detectors", "second reader"]
KINDS: tuple[Kind, ...] = get_args(Kind)  # where two spans meet, the earlier kind keeps the ground

# How sure a detector is. The steps are few on purpose: a policy says which of them it acts upon.
CERTAIN = 0.95  # a checksum, or a form that nothing else has
LIKELY = 0.8  # the form, and words around it that say so
POSSIBLE = 0.5  # the form alone, or the words alone
READ = 0.4  # no detector found it, but the second reader named it

# The same thing wherever its characters stand alone, if there are enough of them and they are no year.
EXACT: tuple[Kind, ...] = ("secret", "card", "iban", "national_id", "account", "phone")
SHORTEST = 4
_YEAR = re.compile(r"(?:19|20)\d\d")


def is_exact(kind: Kind, found: str) -> bool:
    """Whether what was found is meant wherever the same characters stand."""
    return kind in EXACT and len(found) >= SHORTEST and not _YEAR.fullmatch(found)


@dataclass(frozen=True, slots=True)
class Span:
    """text[start:end] is of this kind. confidence: in (0, 1], see CERTAIN, LIKELY and POSSIBLE."""

    start: int
    end: int
    kind: Kind
    confidence: float

    @property
    def by(self) -> By:
        return "second reader" if self.confidence == READ else "detectors"


def settle(spans: Iterable[Span], text: str) -> list[Span]:
    """The same ground without overlaps: where two meet, the kind that is earlier in KINDS keeps it.

    What is left of the other is kept if it still says something, so that nothing that was found is lost.
    Takes time in proportion to the number of spans, however they overlap.
    """
    given = list(spans)
    if len(given) < 2:
        return given
    by_kind: dict[Kind, list[Span]] = {}
    for span in given:
        by_kind.setdefault(span.kind, []).append(span)
    taken: list[Span] = []
    for kind in KINDS:
        if kind in by_kind:
            pieces = _outside(_union(by_kind[kind]), taken)
            whole = {(s.start, s.end) for s in by_kind[kind]}
            kept = [
                p if (p.start, p.end) in whole else _bare(p, text)
                for p in pieces
                if (p.start, p.end) in whole or _is_worth(p, text[p.start : p.end])
            ]
            taken = sorted([*taken, *kept], key=lambda s: s.start)
    return taken


def beside(settled: Sequence[Span], more: Iterable[Span], text: str) -> list[Span]:
    """The settled spans as they are, and of `more` what lies outside them."""
    taken = sorted(settled, key=lambda s: s.start)
    pieces = (_bare(p, text) for p in _outside(settle(more, text), taken))
    return sorted(
        [*taken, *(p for p in pieces if _is_worth(p, text[p.start : p.end]))], key=lambda s: s.start
    )


def _bare(piece: Span, text: str) -> Span:
    """Without the spaces at its ends, which stood inside the find."""
    found = text[piece.start : piece.end]
    start = piece.start + len(found) - len(found.lstrip())
    return Span(start, piece.start + len(found.rstrip()), piece.kind, piece.confidence)


def _is_worth(piece: Span, text: str) -> bool:
    """Whether what others have left of a find still is one: of an address only what has a number."""
    return any(c.isdigit() or (c.isalpha() and piece.kind != "address") for c in text)


def _union(spans: list[Span]) -> Iterator[Span]:
    """Spans of one kind; overlapping ones as one, as sure as the surest of them."""
    last: Span | None = None
    for span in sorted(spans, key=lambda s: s.start):
        if last is None or span.start >= last.end:
            if last is not None:
                yield last
            last = span
        else:
            sure = max(last.confidence, span.confidence)
            last = Span(last.start, max(last.end, span.end), span.kind, sure)
    if last is not None:
        yield last


def _outside(spans: Iterable[Span], taken: list[Span]) -> Iterator[Span]:
    """The pieces of `spans` that lie in no span of `taken`; both sorted and free of overlaps."""
    at = 0
    for span in spans:
        while at < len(taken) and taken[at].end <= span.start:
            at += 1
        start, i = span.start, at
        while i < len(taken) and taken[i].start < span.end:
            if taken[i].start > start:
                yield Span(start, taken[i].start, span.kind, span.confidence)
            start = max(start, taken[i].end)
            i += 1
        if start == span.start:
            yield span
        elif start < span.end:
            yield Span(start, span.end, span.kind, span.confidence)
