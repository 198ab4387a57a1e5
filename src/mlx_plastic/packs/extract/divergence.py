"""How far a model's predictions lie from another one's, without both in memory: KL over every token of texts.

The first model's log probabilities go to a file; the others are compared with what stands there.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlx_plastic.backend import mx
from mlx_plastic.lowrank.svd import Array
from mlx_plastic.samples import Encoded

FILE_BYTES = 2 << 30  # of log probabilities: with 150,000 words some 3,500 tokens


@dataclass(frozen=True)
class Distance:
    """kl_nats: KL(first || this), mean over the tokens. spread: its standard error, the texts as clusters.

    nll: mean negative log likelihood of the texts under this model, nats per token. per_text: (summed KL,
    tokens) of each.
    """

    kl_nats: float
    spread: float
    nll: float
    tokens: int
    per_text: tuple[tuple[float, int], ...] = field(default=(), repr=False)

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.nll, 700.0))

    def less(self, other: Distance) -> tuple[float, float]:
        """By how much the other's KL is larger, and the standard error of that, text by text."""
        sums = [(kl - mine, n) for (mine, n), (kl, _) in zip(self.per_text, other.per_text, strict=True)]
        return _mean(sums)


@dataclass(frozen=True)
class Reference:
    """The first model's predictions: (tokens, vocab) float32 log probabilities in a file."""

    log_probabilities: Array
    pieces: tuple[Encoded, ...]
    own: Distance  # of the first model from itself: no KL, but its perplexity

    def distance(self, model: Any, *, on_piece: Callable[[], None] | None = None) -> Distance:
        """How far `model`, as it is now, lies from the first. Raises ValueError for another vocabulary."""
        start, kls, nlls = 0, [], []
        for piece in self.pieces:
            mine = _log_probabilities(model, piece)
            theirs = mx.array(self.log_probabilities[start : start + mine.shape[0]])
            start += mine.shape[0]
            if theirs.shape != mine.shape:
                raise ValueError(f"a vocabulary of {mine.shape[1]} words, the first had {theirs.shape[1]}")
            kls.append(_number(mx.sum(mx.exp(theirs) * (theirs - mine))))
            nlls.append(_nll(mine, piece))
            if on_piece:
                on_piece()
        return _distance(kls, nlls, self.pieces)


@contextmanager
def reference(
    model: Any, pieces: Sequence[Encoded], *, on_piece: Callable[[], None] | None = None
) -> Iterator[Reference]:
    """The predictions of `model`, as it is now, on as many of `pieces` as the file may hold; gone afterwards.

    pieces: texts of two tokens or more, none longer than the model's window.
    """
    vocab = model(mx.array([[0]])).shape[-1]
    fitting = fit(pieces, FILE_BYTES // (4 * vocab))
    with tempfile.TemporaryDirectory(prefix="plastic-") as folder:
        shape = sum(len(piece.tokens) - 1 for piece in fitting), vocab
        kept = np.memmap(Path(folder) / "log-probabilities", np.float32, "w+", shape=shape)
        start, nlls = 0, []
        for piece in fitting:
            found = _log_probabilities(model, piece)
            kept[start : start + found.shape[0]] = np.array(found)
            start += found.shape[0]
            nlls.append(_nll(found, piece))
            if on_piece:
                on_piece()
        yield Reference(kept, tuple(fitting), _distance([0.0] * len(fitting), nlls, fitting))


def fit(pieces: Sequence[Encoded], tokens: int) -> list[Encoded]:
    """The first of `pieces` that have at most so many predicted tokens together, but always one."""
    found: list[Encoded] = []
    left = tokens
    for piece in pieces:
        left -= len(piece.tokens) - 1
        if left < 0 and found:
            break
        found.append(piece)
    return found


def _log_probabilities(model: Any, piece: Encoded) -> mx.array:
    """(n - 1, vocab) float32, of the tokens after the first."""
    logits = model(mx.array(piece.tokens[:-1])[None])[0].astype(mx.float32)
    found: mx.array = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    return found


def _nll(log_probabilities: mx.array, piece: Encoded) -> float:
    wanted = mx.array(piece.tokens[1:])[:, None]
    return -_number(mx.sum(mx.take_along_axis(log_probabilities, wanted, axis=-1)))


def _number(scalar: mx.array) -> float:
    return float(scalar.item())  # type: ignore[arg-type]  # never complex here


def _distance(kls: Sequence[float], nlls: Sequence[float], pieces: Sequence[Encoded]) -> Distance:
    counts = [len(piece.tokens) - 1 for piece in pieces]
    per_text = tuple(zip(kls, counts, strict=True))
    mean, spread = _mean(per_text)
    return Distance(mean, spread, sum(nlls) / sum(counts), sum(counts), per_text)


def _mean(sums: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """The mean over all tokens and its standard error, from (sum, tokens) of each text."""
    tokens = sum(n for _, n in sums)
    mean = sum(total for total, _ in sums) / tokens
    return mean, math.sqrt(sum((total - mean * n) ** 2 for total, n in sums)) / tokens
