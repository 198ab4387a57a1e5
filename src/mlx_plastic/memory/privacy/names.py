"""Names of people and postal addresses, as the tagger sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from mlx_plastic.memory.privacy.lexicon import FIRST, ORDINARY, REGION, TOWN, lexicon
from mlx_plastic.memory.privacy.page import Page
from mlx_plastic.memory.privacy.spans import POSSIBLE, Kind, Span
from mlx_plastic.memory.privacy.tagger import tagger
from mlx_plastic.memory.privacy.words import CALENDAR, STREET, STREET_ENDS, UNIT

LEAST = {"P": 0.03, "A": 0.1}  # probability of a word; lower finds more, and more that is none
FURTHEST = 8  # words after an address in which its town and country are looked for
ARTICLES = frozenset(("a", "an", "the"))
BETWEEN = frozenset(",-()\n")
KIND: dict[str, Kind] = {"P": "person", "A": "address"}


def people_and_addresses(page: Page) -> Iterator[Span]:
    for start, odds in tagger().probabilities(page.lines):
        for column, label in ((1, "P"), (2, "A")):
            sure = [row[column] for row in odds]
            if max(sure) < LEAST[label]:
                continue
            if label == "P" and not page.text.isascii():
                words = page.spoken(start, start + len(odds))
                sure = [p if _has_case(word) else 0.0 for p, word in zip(sure, words, strict=True)]
            for first, last in _runs(sure, LEAST[label]):
                top = max(sure[first:last])
                first, last = start + first, start + last
                if label == "A":
                    first, last = _widened(page, first, last)
                if span := _span(page, first, last, label, top):
                    yield span


def _widened(page: Page, first: int, last: int) -> tuple[int, int]:
    """With the number ahead of it, and the town, country and post code that follow it."""

    if first > 0 and page.spoken(first - 1, first)[0].isdigit():
        first -= 1
    for i, word in enumerate(page.spoken(last, min(page.words, last + FURTHEST)), last):
        if _is_place(word) or (word.isdigit() and 3 <= len(word) <= 6):
            last = i + 1
        elif word not in BETWEEN:
            break
    return first, last


def _is_place(word: str) -> bool:
    flags = lexicon().get(word.lower(), "")
    if word[0].isupper():
        return TOWN in flags or REGION in flags
    return REGION in flags and ORDINARY not in flags


def _has_case(word: str) -> bool:
    """Whether the script knows capitals, as Latin, Greek and Cyrillic: the tagger has seen no other."""
    return word.isascii() or not any(c.isalpha() and c.lower() == c.upper() for c in word)


def _runs(sure: Sequence[float], least: float) -> Iterator[tuple[int, int]]:
    first = None
    for i, p in enumerate(sure):
        if p >= least and first is None:
            first = i
        elif p < least and first is not None:
            yield first, i
            first = None
    if first is not None:
        yield first, len(sure)


def _span(page: Page, first: int, last: int, label: str, sure: float) -> Span | None:
    """The words as one find, without signs and new lines at its ends; None if they are too little for it."""
    words = page.spoken(first, last)
    spoken = [i for i, word in enumerate(words) if word[0].isalnum()]
    if label == "P" and len(spoken) > 1 and words[spoken[0]] in ARTICLES:
        del spoken[0]
    words = words[spoken[0] : spoken[-1] + 1] if spoken else []
    if label == "P" and words and _is_thing(words, page, first + spoken[0]):
        return None
    if (
        not words
        or all(len(w) < 2 for w in words)
        or sure < (_needed if label == "P" else _needed_of_address)(tuple(words))
    ):
        return None
    start, _ = page.place(first + spoken[0])
    _, end = page.place(first + spoken[-1])
    return Span(start, end, KIND[label], max(POSSIBLE, round(sure, 3)))


def _is_thing(words: Sequence[str], page: Page, at: int) -> bool:
    """Whether it is one small word with an article ahead: "the robin", "a penny"."""
    if at == 0 or page.spoken(at - 1, at)[0] not in ARTICLES:
        return False
    return len(words) == 1 and words[0].islower()


@lru_cache(maxsize=4096)
def _needed(words: tuple[str, ...]) -> float:
    """How probable words have to be to pass for a name: more for ordinary words, days and countries."""
    lows = [word.lower() for word in words]
    if all(low in CALENDAR for low in lows):
        return 0.8
    flags = [lexicon().get(low, "") for low in lows]
    plain = (ORDINARY in f or any(c.isdigit() for c in low) for low, f in zip(lows, flags, strict=True))
    if all(plain):
        return 0.3 if all(word.islower() for word in words) else 0.15
    return 0.3 if all(REGION in f and FIRST not in f for f in flags) else LEAST["P"]


@lru_cache(maxsize=1024)
def _needed_of_address(words: tuple[str, ...]) -> float:
    """Little, of what has a number and a word for a street, a house or a place; a town alone is none."""
    lows = [word.lower() for word in words]
    spoken = [low for low in lows if low[0].isalpha() and len(low) > 2 and low not in CALENDAR]
    street = any(low in STREET or low in UNIT or low.endswith(STREET_ENDS) for low in lows)
    number = any(any(c.isdigit() for c in word) for word in words)
    drawn = any(len(w) > 7 and w.isalnum() and not (w.isalpha() or w.isdigit()) for w in words)  # of a UUID
    if drawn or any(word in "=<[]{}" for word in words) or not (spoken or street) or not (number or street):
        return 2.0
    return LEAST["A"] if number and (street or any(map(_is_place, words))) else 0.6
