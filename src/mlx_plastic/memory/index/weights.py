"""How much each part of the ranking counts. What each brings is measured in docs/retrieval.md."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Weights:
    """How much each part counts, in units of its own standard deviation over all chunks."""

    words: float = 0.25  # BM25
    meaning: float = 0.75  # the best match of each word of the question, late interaction
    whole: float = 0.2  # the text as one vector
    neighbour: tuple[float, ...] = (0.5, 0.4, 0.3)  # of what a turn one, two, three away has in its stead
    session: float = 0.25  # BM25 of the whole conversation
    question: float = 0.3  # off, for a turn that only asks
    when: float = 0.3  # for a turn that says a time, where a time is asked for
    dated: float = 0.5  # for a turn of the time that the question names
    name: float = 2.0  # how often a speaker's name in the question counts
    speaker: float = 1.0  # for a turn of the one speaker that the question names
    length: float = 0.2  # for a turn that is longer than its speaker's others: "lol, yes" answers little


WORDS_ONLY = Weights(words=1.0, meaning=0.0, whole=0.0, length=0.0)  # without an embedder
