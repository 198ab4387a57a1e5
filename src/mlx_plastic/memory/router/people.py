"""Whether a text names somebody: "Olaf's hobby is beadwork" has no "I" and no "my", and tells of a person."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mlx_plastic.memory.privacy.lexicon import FIRST, ORDINARY, VERY_ORDINARY, lexicon

_CAPITAL = re.compile(r"(?<![\w'\u2019-])[^\W\d_a-z][^\W\d_A-Z]{1,23}(?![^\W_])")
_OPENS = re.compile(r"\W*(?:(?:and|so|well|yeah|oh|but)\W+)*", re.IGNORECASE)
MOST = 200  # capitalised words that are looked at


def names_in(text: str) -> Iterator[int]:
    """Where a first name stands, by its capital and the lists of words and names.

    A word that is in no list counts as a name ("Tamsin"); one that is a word as well ("Hazel") does only
    inside a sentence, and a very common one ("Will") nowhere.
    """
    known = lexicon()
    for i, match in enumerate(_CAPITAL.finditer(text)):
        if i == MOST:
            return
        flags = known.get(match[0].lower(), "")
        common = VERY_ORDINARY if _inside(text, match.start()) else ORDINARY
        if not flags or (FIRST in flags and common not in flags):
            yield match.start()


def names_somebody(text: str) -> bool:
    return next(names_in(text), None) is not None


def begins_with_a_name(text: str) -> bool:
    opening = _OPENS.match(text)
    return opening is not None and next(names_in(text), -1) == opening.end()


def _inside(text: str, start: int) -> bool:
    ahead = text[:start].rstrip()
    return bool(ahead) and (ahead[-1].isalnum() or ahead[-1] in ",;")
