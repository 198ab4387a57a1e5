"""What was found once in a conversation is found wherever it stands in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from mlx_plastic.memory.privacy.lexicon import is_ordinary
from mlx_plastic.memory.privacy.page import Page
from mlx_plastic.memory.privacy.spans import CERTAIN, LIKELY, Kind, Span, is_exact
from mlx_plastic.memory.privacy.words import LOWER, PARTICLES, TITLES

SURE = 0.75  # of a person: a guess is not spread
MOST = 500  # things that are looked for in one conversation
_WORD = re.compile(r"[^\W\d_]+")


def spread(
    pages: Sequence[Page], found: Sequence[Sequence[Span]], people: Iterable[str] = ()
) -> list[list[Span]]:
    """For every page what else it holds of what was found in any of them, and of the `people` given."""
    if not people and not any(found):
        return [[] for _ in pages]
    given = {word.lower() for name in people for word in _WORD.findall(name) if len(word) > 1}
    caseless = _caseless(given)
    unspaced = re.compile("|".join(map(re.escape, caseless))) if caseless else None
    names, exact = set[str](), dict[str, Kind]()
    for page, spans in zip(pages, found, strict=True):
        for span in spans:
            text = page.text[span.start : span.end]
            if span.kind == "person" and span.confidence >= SURE:
                names |= {low for word in _WORD.findall(text) if _spreads(low := word.lower())}
            elif span.confidence >= LIKELY and is_exact(span.kind, text):
                exact.setdefault(text, span.kind)
    wanted = re.compile("|".join(re.escape(t) for t in list(exact)[:MOST])) if exact else None
    return [
        [
            *(_named(page, names | given, given) if names or given else ()),
            *(Span(*m.span(), "person", CERTAIN) for m in (unspaced.finditer(page.text) if unspaced else ())),
            *(_exactly(page, wanted, exact) if wanted and len(pages) + len(found[i]) > 1 else ()),
        ]
        for i, page in enumerate(pages)
    ]


def _caseless(names: Iterable[str]) -> list[str]:
    """Names of scripts without capitals, which may be without spaces too: found inside longer words."""
    return [name for name in names if name.lower() == name.upper()]


def _spreads(low: str) -> bool:
    return len(low) > 2 and not is_ordinary(low) and low not in PARTICLES and low not in TITLES


def _named(page: Page, names: set[str], given: set[str]) -> Iterator[Span]:
    """Words of known names: with a capital, or where capitals are not used; given ones in any case."""
    at = 0
    for words, style, _ in page.lines:
        for i, word in enumerate(words, at) if not names.isdisjoint(map(str.lower, words)) else ():
            low = word.lower()
            if low in names and (
                word[0].isupper() or (style == LOWER and not is_ordinary(low)) or low in given
            ):
                yield Span(*page.place(i), "person", CERTAIN if low in given else LIKELY)
        at += len(words)


def _exactly(page: Page, wanted: re.Pattern[str], kinds: dict[str, Kind]) -> Iterator[Span]:
    text = page.text
    for match in wanted.finditer(text):
        start, end = match.span()
        inside = (text[start - 1 : start].isalnum() and text[start].isalnum()) or (
            text[end : end + 1].isalnum() and text[end - 1].isalnum()
        )
        if not inside:
            yield Span(start, end, kinds[match[0]], LIKELY)
