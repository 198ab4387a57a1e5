"""What is known of single words: ordinary ones, names of people, names of places.

data/lexicon.txt.gz is made by scripts/train_names.py; data/SOURCES.md says from what.
"""

from __future__ import annotations

import gzip
from functools import cache
from importlib import resources

VERY_ORDINARY, ORDINARY, FIRST, LAST, TOWN, REGION = "W", "w", "f", "l", "t", "r"


@cache
def lexicon() -> dict[str, str]:
    """The letters above that hold for a lower-cased word, in a fixed order; words without any are absent."""
    packed = resources.files("mlx_plastic.memory.privacy").joinpath("data/lexicon.txt.gz").read_bytes()
    known: dict[str, str] = {}
    for line in gzip.decompress(packed).decode("utf-8").splitlines():
        flags, *words = line.split(" ")
        known.update(dict.fromkeys(words, flags))
    return known


def is_ordinary(word: str) -> bool:
    """Whether a lower-cased word is one of the language rather than somebody's name or a made-up string."""
    return ORDINARY in lexicon().get(word, "")
