"""How well a model predicts given tokens: nats per token, and perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mlx_plastic.errors import BadData
from mlx_plastic.evals.intervals import error_of_ratio
from mlx_plastic.evals.ledger import finite
from mlx_plastic.evals.speaker import Speaker
from mlx_plastic.samples import Encoded

GENERAL = Path(__file__).parent / "general.jsonl"  # chats that have nothing to do with anybody
SAMPLES_PER_STEP = 256  # between two reports of progress

T = TypeVar("T")


@dataclass(frozen=True)
class LossResult:
    """A loss with its spread.

    nll: mean over target tokens, in nats/token. tokens: how many were predicted. samples: how many held any.
    spread: standard error of nll with the samples as clusters, in nats/token; 0 for a single one.
    per_sample: (summed nats, tokens) of each sample, in the order given.
    """

    nll: float
    tokens: int
    samples: int
    spread: float
    per_sample: tuple[tuple[float, int], ...] = field(default=(), repr=False)

    @property
    def perplexity(self) -> float:
        """exp of the loss; infinite where that overflows."""
        return math.exp(self.nll) if self.nll < 700 else math.inf

    def as_dict(self) -> dict[str, Any]:
        """For JSON and CSV; a number that is not finite becomes None."""
        return {
            "nll": finite(self.nll),
            "spread": finite(self.spread),
            "perplexity": finite(self.perplexity),
            "tokens": self.tokens,
            "samples": self.samples,
        }


def measure_loss(
    speaker: Speaker,
    encoded: Sequence[Encoded],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> LossResult:
    """The token-weighted mean loss over the targets of `encoded`.

    on_progress: told (done, total) samples. Raises BadData if there is no target at all. A NaN
    from the model stays a NaN.
    """
    parts: list[tuple[float, int]] = []
    for start in range(0, len(encoded), SAMPLES_PER_STEP):
        parts += speaker.nll(encoded[start : start + SAMPLES_PER_STEP])
        if on_progress:
            on_progress(len(parts), len(encoded))
    return summed(parts)


def summed(parts: Sequence[tuple[float, int]]) -> LossResult:
    """The loss of samples measured one by one, (summed nats, tokens) each."""
    tokens = sum(n for _, n in parts)
    if not tokens:
        raise BadData(
            "nothing to measure: no sample has a token that is to be predicted",
            hint="give chats in which the assistant says something",
        )
    mean = sum(nats for nats, _ in parts) / tokens
    counted = [(nats, n) for nats, n in parts if n]
    spread = error_of_ratio(counted, mean) if len(counted) > 1 else 0.0
    return LossResult(mean, tokens, len(counted), spread, tuple(parts))


def thinned(items: Sequence[T], most: int | None) -> list[T]:
    """At most `most` of the items, evenly spaced, so that every part of a sorted file is represented."""
    if most is None or most >= len(items):
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]
