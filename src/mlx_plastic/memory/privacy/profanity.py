"""A list of words that are rude or hateful wherever they stand. It knows words, not meanings.

The list is stored in rot13, so that the file may be opened anywhere.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from functools import cache
from importlib import resources

from mlx_plastic.memory.privacy.page import Page
from mlx_plastic.memory.privacy.spans import CERTAIN, LIKELY, Span

# Words in which signs stand for letters ("sh1t", "f*ck"), and letters said slowly ("fuuuck").
_VEILED = re.compile(r"(?<![\w*@$])(?=[a-z]{0,12}[*@$!013][a-z*@$!013]?)[a-z*@$!013]{3,20}(?![\w*@$])")
_SIGN = re.compile(r"[*@$!013](?:(?<=[a-z].)|(?=[a-z]))")
_SIGNS = str.maketrans("@$!013", "asioie")
_SLOW = re.compile(r"([a-z])\1{2,}")
_THRICE = tuple(letter * 3 for letter in "aceghiklnorstuwz")


@cache
def words() -> frozenset[str]:
    stored = resources.files("mlx_plastic.memory.privacy").joinpath("data/profanity.txt").read_text("utf-8")
    return frozenset(codecs.decode(stored, "rot13").split())


@cache
def _by_first_letter() -> dict[str, re.Pattern[str]]:
    """First letter -> the words that begin with it, as one expression in which "*" stands for any letter."""
    by_letter: dict[str, list[str]] = {}
    for word in words():
        by_letter.setdefault(word[0], []).append("".join(f"[{c}*]" for c in word))
    return {letter: re.compile("|".join(forms)) for letter, forms in by_letter.items()}


def profanity(page: Page) -> Iterator[Span]:
    yield from _plain(page)
    if _SIGN.search(page.low):
        for match in _VEILED.finditer(page.low):
            plain = match[0].translate(_SIGNS)
            forms = _by_first_letter().get(plain[0])
            few = plain.count("*") * 2 < len(plain) and any(c.isalpha() for c in match[0])
            if few and forms and forms.fullmatch(plain):
                yield Span(*match.span(), "profanity", LIKELY)


def _plain(page: Page) -> Iterator[Span]:
    listed, at = words(), 0
    slow = page.says(_THRICE)
    for line, _, _ in page.lines:
        if slow or not listed.isdisjoint(map(str.lower, line)):
            for i, word in enumerate(line, at):
                low = word.lower()
                if low in listed or (slow and len(low) > 5 and _SLOW.sub(r"\1", low) in listed):
                    yield Span(*page.place(i), "profanity", CERTAIN)
        at += len(line)
