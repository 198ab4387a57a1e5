"""Tags a person puts on what they say, in the text itself (`#no-train`) or by command."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from mlx_plastic.errors import BadData

NO_TRAIN = "no-train"  # never becomes a lesson
NO_RAG = "no-rag"  # never looked up
PRIVATE = "private"  # neither
TAGS = (NO_TRAIN, NO_RAG, PRIVATE)
UNTAUGHT = frozenset({NO_TRAIN, PRIVATE})

# Generous on purpose: a near miss must not end up in the weights. The lookbehind spares URL fragments.
_IN_TEXT = re.compile(r"(?<![\w/&#])#(no[-_]?train|no[-_]?rag|private)(?![\w-])", re.IGNORECASE)
_SPELLINGS = {tag.replace("-", ""): tag for tag in TAGS}


def tags_in(text: str) -> frozenset[str]:
    """The tags written in a text, e.g. {"no-train"} for "my code is ... #no-train"."""
    return frozenset(_SPELLINGS[re.sub("[-_]", "", found).lower()] for found in _IN_TEXT.findall(text))


def known(tags: Iterable[str]) -> frozenset[str]:
    """The same tags, checked. Raises BadData naming the nearest for one that means nothing."""
    given = frozenset(tags)
    for tag in sorted(given - set(TAGS)):
        near = difflib.get_close_matches(tag, TAGS, n=1)
        meant = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(TAGS)}"
        raise BadData(f"unknown tag {tag!r}", hint=meant)
    return given
