"""A question taken apart: its terms, who and what time it names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mlx_plastic.memory.embed import Vectors
from mlx_plastic.memory.index.terms import SPEAKER_WORDS, STOP_WORDS, terms, terms_of, words
from mlx_plastic.memory.index.weights import Weights

_WHEN = re.compile(
    r"\b(when|what (date|day|year|month|time)|which (day|year|month)|how long|since when)\b", re.I
)

_JOINED = re.compile(r"\W*(?:and|or)?\W*", re.I)  # between two who are asked for together


@dataclass(frozen=True)
class Query:
    """A question, taken apart.

    terms: each with its weight. during: the time it names, in s since 1970. speaker: whose turns it asks
    for, by name; "" if it names none, or several alike.
    """

    text: str
    terms: dict[str, float]
    asks_when: bool = False
    during: tuple[float, float] | None = None
    speaker: str = ""
    vectors: Vectors | None = None


def parse(
    text: str, speakers: Collection[str], weights: Weights, during: tuple[float, float] | None = None
) -> Query:
    """speakers: of all that can be found; their names count more."""
    names = {speaker: set(terms(speaker)) for speaker in speakers}
    of_names = set[str]().union(*names.values())
    all_words = [word for word, _, _ in words(text)]
    telling = [w for w in all_words if w not in STOP_WORDS] or all_words
    found = {t: weights.name if t in of_names else 1.0 for w in telling for t in terms_of(w)}
    meant = {SPEAKER_WORDS[word] for word in all_words if word in SPEAKER_WORDS} & names.keys()
    for speaker in meant:
        found.update({term: found.get(term, 1.0) for term in names[speaker]})
    speaker = _one_named({speaker: len(names[speaker] & found.keys()) for speaker in names})
    speaker = speaker or _who_did_it(text, names)
    return Query(text, found, asks_when=bool(_WHEN.search(text)), during=during, speaker=speaker)


def _one_named(met: Mapping[str, int]) -> str:
    """The speaker of whose name the question has most, if it is one. met: how many terms of each."""
    most = max(met.values(), default=0)
    named = [speaker for speaker, terms_met in met.items() if terms_met == most]
    return named[0] if most and len(named) == 1 else ""


def _who_did_it(text: str, names: Mapping[str, set[str]]) -> str:
    """The first speaker of several that a question names: Ann, in "What did Ann tell Bob?".

    "" if the second is joined to the first: both are meant in "What did Ann and Bob cook?". "I" and "you" are
    no names here: in "Do you know what I like?" the first is not who is asked for.
    """
    first, end = "", 0
    for word, start, after in words(text):
        named = [speaker for speaker, own in names.items() if own.intersection(terms_of(word))]
        if len(named) != 1:
            continue
        if first and named[0] != first:
            return "" if _JOINED.fullmatch(text, end, start) else first
        first, end = named[0], after
    return ""
