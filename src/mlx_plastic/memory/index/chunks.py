"""Long texts cut into overlapping pieces, and texts that say the same recognized."""

from __future__ import annotations

import hashlib
import re

import numpy as np

from mlx_plastic.memory.index.terms import Ids, terms_of, words

WHOLE = 1000  # characters; a text up to that is one chunk
SIZE, OVERLAP = 800, 120  # characters of the pieces of a longer one: 15 %
SLACK = 80  # characters that a cut may move to meet the end of a sentence or of a word

_SENTENCE_END = re.compile(r"[.!?\u3002\uff01\uff1f\n]['\")\]]*\s+|\n+")
_ASKS = re.compile(r"[?\uff1f\u061f]\W*$")
_SPACE = re.compile(r"\s+")

FILLERS = frozenset("a an the so just very really well oh ok okay um uh hm hmm yeah".split())
NEGATIONS = frozenset("no not never none nothing nobody without neither nor cannot hardly".split())
SAME, LONG = 0.9, 20  # share of common terms (Jaccard) from which on two texts of so many say the same
BANDS, ROWS = 5, 3  # of MinHash: two texts of which one word in thirty differs meet in 99 of 100 cases
_LOW = np.uint64(2**32 - 1)
_PAIRING = np.uint64(0x9E3779B1)  # odd, so that (a, b) and (b, a) differ
_MULTIPLIERS = np.random.default_rng(20100634).integers(1, 2**32, (BANDS * ROWS, 1), np.uint64) | np.uint64(1)


def pieces(text: str) -> list[tuple[int, int]]:
    """Where the chunks of a text begin and end: 512 to 1,000 characters each, or the whole of a short one.

    Neighbours share 10 to 20 %. Cuts fall at the ends of sentences or words where there are any near.
    """
    if len(text) <= WHOLE:
        return [(0, len(text))]
    count = -(-(len(text) - OVERLAP) // (SIZE - OVERLAP))
    step = (len(text) - OVERLAP) / count
    cuts = [0, *(_near(text, round(i * step)) for i in range(1, count))]
    ends = [*(_near(text, round(i * step) + OVERLAP) for i in range(1, count)), len(text)]
    return list(zip(cuts, ends, strict=True))


def _near(text: str, at: int) -> int:
    """The end of a sentence close to `at`, else of a word, else `at` itself."""
    low, high = max(0, at - SLACK // 2), min(len(text), at + SLACK // 2)
    for pattern in (_SENTENCE_END, _SPACE):
        ends = [m.end() for m in pattern.finditer(text, low, high)]
        if ends:
            return min(ends, key=lambda end: abs(end - at))
    return at


def bands(ids: Ids) -> list[int]:
    """BANDS keys of a text; texts that are nearly the same share at least one of them, others hardly ever.

    ids: its terms in order; what is compared are pairs of neighbours, since single words meet too often.
    Source: Broder 1997, "On the resemblance and containment of documents" (MinHash), with banding.
    """
    if not len(ids):
        return []
    wide = ids.astype(np.uint64)
    pairs = np.unique((wide[:-1] * _PAIRING + wide[1:]) & _LOW if len(ids) > 1 else wide)
    # the low half of a product with an odd number is a permutation, and its order looks like chance
    least = ((pairs[None, :] * _MULTIPLIERS) & _LOW).min(axis=1).reshape(BANDS, ROWS)
    return [_key(bytes([i]) + row.tobytes()) for i, row in enumerate(least)]


def _key(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=7).digest(), "little")


def same_text(one: str, two: str) -> bool:
    """Whether a reader would learn the same from both: the same words in order, or all but small ones.

    A number, a capitalized word or a negation that differs makes another text, and so does any word in a
    text of less than twenty. What asks does not say the same as what tells.
    """
    if asks(one) != asks(two):
        return False
    first, second = _content(one), _content(two)
    if [term for term, _ in first] == [term for term, _ in second]:
        return True
    a, b = dict(first), dict(second)
    if len(a.keys() & b.keys()) < SAME * len(a.keys() | b.keys()) or min(len(first), len(second)) < LONG:
        return False
    differing = [word for term, word in (a | b).items() if not (term in a and term in b)]
    return not any(w[0].isupper() or w.lower() in NEGATIONS or not w.isalpha() for w in differing)


def asks(text: str) -> bool:
    return _ASKS.search(text) is not None


def _content(text: str) -> list[tuple[str, str]]:
    """The terms that a text says something with, in order, each with its word."""
    return [
        (term, text[start:end])
        for word, start, end in words(text)
        if word not in FILLERS
        for term in terms_of(word)
    ]
