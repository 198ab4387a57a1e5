"""A linear-chain conditional random field over words: which are names of people, which are of an address.

A word's score for a label is a sum over what is known of it and of its neighbours, so each word's share, for
each place it can stand in, is computed once and kept; a text is then a sum of table rows. Only the stretches
where something may be are decoded. Trained by scripts/train_names.py (Lafferty, McCallum & Pereira 2001).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from mlx_plastic.memory.privacy.chain import marginals, marginals_by_blocks
from mlx_plastic.memory.privacy.words import ENDS, STYLES, Line, Word, features, is_first

LABELS = ("O", "P", "A")  # nothing, a person's name, an address
REACH = 2  # words to each side that count
PLACES = 2 * REACH + 1
GATE = 4.0  # nats; where the best reading with a label is this far behind the one without, none is looked for
LONG = 400  # words of a stretch from which on walking by blocks is quicker
MOST_WORDS = 100_000  # distinct ones that are kept; then the table begins anew

# Features that count for a neighbour; of the word itself all do.
NEAR = ("b", "w=", "s=", "c=", "k=", "m=", "f=", "p=")
FAR = ("b", "w=", "s=", "k=", "m=")


def counted(feature: str, place: int) -> bool:
    """Whether a feature is used for a word `place` words to the right of the one that is labelled."""
    return place == 0 or feature.startswith(NEAR if abs(place) == 1 else FAR)


_Rows = dict[tuple[str, bool], dict[str, int]]  # a line's style, whether the word is first -> word -> row


def _no_rows() -> _Rows:
    return {(style, first): {} for style in STYLES for first in (False, True)}


@dataclass
class Tagger:
    """rows: feature -> weights (features, PLACES, labels); moves: (labels, labels) from, to. In nats."""

    rows: dict[str, int]
    weights: Any
    moves: Any
    _table: Any = field(default_factory=lambda: (_no_rows(), np.zeros((0, PLACES, len(LABELS)), np.float32)))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._odds = np.exp(self.moves).tolist()
        none, stay = self.moves[0, 0], np.diag(self.moves)[1:]
        self._stay, self._enter, self._leave = stay - none, none - self.moves[0, 1:], none - self.moves[1:, 0]
        self._price = self._enter + self._leave + stay - none  # (labels - 1,) of a run, in nats

    def probabilities(self, lines: Sequence[Line]) -> list[tuple[int, list[list[float]]]]:
        """Where something may be: (index of the first word, one [p(O), p(P), p(A)] a word) per stretch."""
        scores = self._scores(lines)
        if not len(scores):
            return []
        found = []
        for low, high in _stretches(self._may_be(scores)):
            stretch, at = scores[low:high], {"begins": low == 0, "ends": high == len(scores)}
            if high - low < LONG:
                found.append((low, marginals(stretch.tolist(), self._odds, **at)))
            else:
                found.append((low, marginals_by_blocks(stretch, self._odds, **at)))
        return found

    def _may_be(self, scores: Any) -> Any:
        """(words,) bool: whether some run of words of one label that holds the word is not far behind only O.

        The best run through a word goes from the lowest sum ahead of it to the highest one behind (Kadane).
        """
        gain = scores[:, 1:] - scores[:, :1] + self._stay
        gain[0] += self._enter  # nothing is entered at a text's beginning, nor left at its end
        gain[-1] += self._leave
        total = gain.cumsum(axis=0)
        high = np.maximum.accumulate(total[::-1], axis=0)[::-1]
        low = np.minimum.accumulate(total - gain, axis=0)
        far = high - low > self._price - GATE
        return far[:, 0] | far[:, 1]

    def _scores(self, lines: Sequence[Line]) -> Any:
        """(words, labels) float32"""
        rows, table = self._table
        try:
            shares = table[np.array(self._looked_up(lines, rows), dtype=np.int64)]
        except (TypeError, IndexError):  # a new word; or one that another thread may just be adding
            rows, table = self._learned(lines)
            shares = table[np.array(self._looked_up(lines, rows), dtype=np.int64)]
        scores = shares[:, REACH].copy()
        for place in range(1, min(REACH, len(scores) - 1) + 1):
            scores[place:] += shares[:-place, REACH - place]
            scores[:-place] += shares[place:, REACH + place]
        return scores

    @staticmethod
    def _looked_up(lines: Sequence[Line], rows: _Rows) -> list[int | None]:
        """For each word its row in the table, None if it has none."""
        found: list[int | None] = []
        add = found.append
        for words, style, _ in lines:
            inside, opening = rows[style, False].get, rows[style, True].get
            first = True
            for word in words:
                add((opening if first else inside)(word))
                first = word in ENDS or (first and not word[0].isalnum())  # is_first, in the tightest loop
        return found

    def _learned(self, lines: Sequence[Line]) -> tuple[_Rows, Any]:
        """A table that has all of these words. Other threads go on reading the one they have."""
        with self._lock:
            rows, table = self._table
            if len(table) > MOST_WORDS:
                rows, table = _no_rows(), table[:0]
            new: list[Any] = []
            for words, style, _ in lines:
                first = True
                for word in words:
                    known = rows[style, first]
                    if word not in known:
                        known[word] = len(table) + len(new)
                        new.append(self._share(Word(word, first, style)))
                    first = is_first(word, first)
            self._table = (
                rows,
                np.concatenate([table, np.array(new, np.float32).reshape(-1, *table.shape[1:])]),
            )
            return self._table  # type: ignore[no-any-return]

    def _share(self, word: Word) -> Any:
        """(PLACES, labels): what a word adds to the scores of the words around it."""
        known = [self.rows[f] for f in features(word) if f in self.rows]
        return self.weights[known].sum(axis=0, dtype=np.float32)


def _stretches(active: Any) -> Iterator[tuple[int, int]]:
    """Runs of active words, each with a word more on both sides."""
    low, high = 0, -1
    for i in np.flatnonzero(active).tolist():
        if i - 1 > high:
            if high > 0:
                yield low, high
            low = max(i - 1, 0)
        high = min(i + 2, len(active))
    if high > 0:
        yield low, high


@cache
def tagger() -> Tagger:
    """The trained one that ships with the package."""
    from safetensors.numpy import load

    folder = resources.files("mlx_plastic.memory.privacy").joinpath("data")
    tensors = load(folder.joinpath("names.safetensors").read_bytes())
    names = json.loads(folder.joinpath("names.json").read_text("utf-8"))["features"]
    return Tagger(
        {name: i for i, name in enumerate(names)}, tensors["weights"], tensors["moves"].astype(np.float64)
    )
