"""The next token of one row: penalties, temperature, cuts, and a draw that depends on its seed alone."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mlx_plastic.serve.batch.jobs import Constraint, Sampling, TokenInfo

Floats = npt.NDArray[np.floating]


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
        order = np.argsort(-logits, kind="stable")
        if s.top_k:
            order = order[: s.top_k]
        scaled = (logits[order] - logits[order[0]]) / s.temperature
        p = np.exp(scaled)
        p /= p.sum()
        kept = len(p)
        if s.min_p:
            kept = min(kept, int(np.count_nonzero(p >= s.min_p * p[0])))
        if s.top_p < 1:
            kept = min(kept, int(np.searchsorted(np.cumsum(p), s.top_p)) + 1)
        below = np.cumsum(p[:kept])
        place = int(np.searchsorted(below, self._random.random() * below[-1], side="right"))
        return int(order[min(place, kept - 1)])

    def _info(self, token: int, logits: Floats) -> TokenInfo:
        """Of the model's own distribution, before anything was changed or cut."""
        top = logits.max()
        logprobs = logits - (top + np.log(np.exp(logits - top).sum()))
        count = min(self.logprobs or 0, len(logits))
        best = np.argpartition(-logprobs, count - 1)[:count] if count else np.array([], np.int64)
        best = best[np.argsort(-logprobs[best], kind="stable")]
        return TokenInfo(token, float(logprobs[token]), tuple((int(i), float(logprobs[i])) for i in best))
