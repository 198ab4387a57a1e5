"""Whether a string was drawn by chance or made of words; and the strings in a text that were drawn."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from mlx_plastic.memory.privacy.lexicon import ORDINARY, lexicon
from mlx_plastic.memory.privacy.page import Page
from mlx_plastic.memory.privacy.spans import LIKELY, POSSIBLE, Span

LONGEST_URL = 300
_AHEAD = re.compile(r"(?<![^\s\"'<>`,;(){}\[\]|=])[^\s\"'<>`,;(){}\[\]|=]{1,300}\Z")
_REST = re.compile(r"[^\s\"'<>`,;(){}\[\]|]*")
_MARKS = ".,:;!?"
_RUN = re.compile(r"(?<![A-Za-z0-9_])[A-Za-z0-9+/_\-=]{16,4096}")
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_GROUPS = re.compile(r"[A-Z0-9]{4,8}(?:-[A-Z0-9]{4,8}){2,7}")  # as licences are written


def random_strings(page: Page) -> Iterator[Span]:
    """Keys, hashes, ids. Of digits and both cases are keys; of hexadecimal digits may be hashes."""
    text, seen = page.text, 0
    for match in _RUN.finditer(text):
        found = match[0].rstrip("=-_/") if not match[0].endswith("=") else match[0]
        end = match.start() + len(found)
        if end <= seen:
            continue
        if _UUID.fullmatch(found):
            yield Span(match.start(), end, "secret", POSSIBLE)
        elif is_random(found, least=16 if _of_three_classes(found) else 20):
            start = _start_of(text, match.start())
            if "://" in text[start : match.start()]:
                continue
            path = found.count("/") > 1 + len(found) // 16
            mixed = _of_three_classes(found) and len(found) >= 24 and not path and not found.startswith("0x")
            seen = end + len(_REST.match(text, end, end + LONGEST_URL)[0].rstrip(_MARKS))  # type: ignore[index]
            yield Span(start, seen, "secret", LIKELY if mixed else POSSIBLE)


def _start_of(text: str, at: int) -> int:
    """Where the unbroken run of signs that holds `at` begins: keys have parts, as "1000.75873d...".

    At most LONGEST_URL characters ahead of it.
    """
    ahead = _AHEAD.search(text, max(0, at - LONGEST_URL), at)
    return ahead.start() if ahead else at


def _of_three_classes(text: str) -> bool:
    digits = sum(c.isdigit() for c in text)
    return digits >= 2 and sum(c.isupper() for c in text) >= 4 and sum(c.islower() for c in text) >= 4


def is_random(value: str, *, least: int = 16) -> bool:
    """Whether letters and digits alternate as chance has it, and few of the letters make words.

    In a random string of letters and digits four in ten neighbours are of different classes; in
    "getUserById2" it is two, and its letters are words.
    """
    body = "".join(c for c in value if c.isalnum())
    if len(body) < least or len(set(body.lower())) < 8:
        return False
    if _GROUPS.fullmatch(value) and any(c.isdigit() for c in value):
        return True
    changes = sum(a != b for a, b in pairwise((c.isdigit(), c.isupper()) for c in body)) / (len(body) - 1)
    digits = sum(c.isdigit() for c in body)
    if digits == len(body) or changes < (0.16 if digits > 1 else 0.3):
        return False
    return _share_of_words(value) < 0.4


def _share_of_words(value: str) -> float:
    """The share of the letters that belong to ordinary words of four letters and more."""
    letters = sum(c.isalpha() for c in value)
    known = lexicon()
    words = (m[0].lower() for m in _WORDS.finditer(value))
    return sum(len(w) for w in words if len(w) > 3 and ORDINARY in known.get(w, "")) / max(letters, 1)
