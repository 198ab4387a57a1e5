"""The next token of one row: penalties, temperature, cuts, and a draw that depends on its seed alone."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mlx_plastic.serve.batch.jobs import Constraint, Sampling, TokenInfo

Floats = npt.NDArray[np.floating]

HEADS = (64, 4096)  # so many of the likeliest are put in order first: a draw seldom falls behind them


@dataclass
class Picker:
    """One row's way of choosing. seen: ids of the prompt, for the repetition penalty."""

    sampling: Sampling
    logprobs: int | None = None
    constraint: Constraint | None = None
    seen: frozenset[int] = frozenset()
    _said: Counter[int] = field(default_factory=Counter)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.sampling.seed)

    @property
    def plain(self) -> bool:
        """Whether argmax on the device does the same."""
        return self.sampling.plain and self.logprobs is None and self.constraint is None

    def pick(self, logits: Floats) -> tuple[int, TokenInfo | None, bool]:
        """From (vocab,) logits: the token, what is to be told of it, and whether more may follow."""
        told = logits.astype(np.float64)
        shaped = self._shaped(told)
        token = self._choose(shaped)
        self._said[token] += 1
        more = self.constraint.take(token) if self.constraint else True
        info = None if self.logprobs is None else self._info(token, told)
        return token, info, more

    def _shaped(self, logits: Floats) -> Floats:
        s = self.sampling
        shaped = logits.copy()
        if s.repetition_penalty != 1.0:
            ids = np.array(sorted(self.seen | self._said.keys()), np.int64)
            values = shaped[ids]
            shaped[ids] = np.where(values > 0, values / s.repetition_penalty, values * s.repetition_penalty)
        for token, count in self._said.items() if s.frequency_penalty or s.presence_penalty else ():
            shaped[token] -= count * s.frequency_penalty + s.presence_penalty
        for token, bias in s.bias.items():
            shaped[token] += bias
        return self.constraint.allow(shaped) if self.constraint else shaped

    def _choose(self, logits: Floats) -> int:
        s = self.sampling
        if s.temperature == 0:
            return int(np.argmax(logits))
        weights = np.exp((logits - logits.max()) / s.temperature)  # the likeliest has 1
        draw = self._random.random()
        if s.top_k and s.top_k < len(weights):
            ids = _likeliest(weights, s.top_k)
            weights = weights[ids]
            place = self._place(weights, weights, draw)
            assert place is not None  # the head is all there is
            return int(ids[place])
        for most in (*HEADS, len(weights)):
            ids = _likeliest(weights, most)
            if (place := self._place(weights[ids], weights, draw)) is not None:
                return int(ids[place])
        return int(ids[-1])

    def _place(self, head: Floats, weights: Floats, draw: float) -> int | None:
        """Where a draw in [0, 1) falls in `head`, the largest `weights` in order; None if that is behind it.

        top_p and min_p cut off the end of all of them first.
        """
        s, below, kept = self.sampling, np.cumsum(head), len(weights)
        mass = weights.sum()
        if s.top_p < 1:
            edge = int(np.searchsorted(below, s.top_p * mass))
            if edge >= len(head) < len(weights):
                return None
            kept = min(kept, edge + 1)
        if s.min_p:
            strong = weights >= s.min_p
            kept, mass = min(kept, int(np.count_nonzero(strong))), weights[strong].sum()
        if kept <= len(head):
            mass = below[kept - 1]
        place = int(np.searchsorted(below, draw * mass, side="right"))
        if place < min(kept, len(head)):
            return place
        return kept - 1 if kept <= len(head) else None

    def _info(self, token: int, logits: Floats) -> TokenInfo:
        """Of the model's own distribution, before anything was changed or cut."""
        top = logits.max()
        logprobs = logits - (top + np.log(np.exp(logits - top).sum()))
        count = min(self.logprobs or 0, len(logits))
        best = np.argpartition(-logprobs, count - 1)[:count] if count else np.array([], np.int64)
        best = best[np.argsort(-logprobs[best], kind="stable")]
        return TokenInfo(token, float(logprobs[token]), tuple((int(i), float(logprobs[i])) for i in best))


def _likeliest(weights: Floats, most: int) -> npt.NDArray[np.int64]:
    """The ids of the largest weights, at most so many, in falling order; zeros only where all are asked."""
    if most >= len(weights):
        return np.argsort(-weights, kind="stable")
    least = np.partition(weights, -most)[-most]
    ids = np.flatnonzero(weights >= max(least, np.finfo(weights.dtype).tiny))
    return ids[np.argsort(-weights[ids], kind="stable")][:most]
