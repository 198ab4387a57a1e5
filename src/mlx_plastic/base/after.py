"""How surprised a model is by many continuations of one beginning, which is computed once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from mlx_plastic.backend import mx
from mlx_plastic.base.score import LOGITS_BYTES, score
from mlx_plastic.lowrank.quick import nlls
from mlx_plastic.samples import Encoded

MOST_ROWS = 128  # continuations in one pass


def score_after(model: Any, beginning: Sequence[int], endings: Sequence[Sequence[int]]) -> list[float]:
    """The summed negative log likelihood of each ending behind `beginning`, in nats, from float32 logits.

    The beginning holds at least two tokens, each ending one. Where a model's cache cannot be copied to many
    rows, the beginning is computed with each.
    """
    if len(beginning) < 2 or not all(endings):
        raise ValueError("a beginning of two tokens is needed, and one token in every ending")
    cache = _filled(model, beginning[:-1])
    if cache is None:
        return score(model, [_whole(beginning, ending) for ending in endings])
    width = max(len(ending) for ending in endings)
    vocab = model(mx.array(list(beginning[-1:]))[None]).shape[-1]
    rows = max(1, min(MOST_ROWS, len(endings), LOGITS_BYTES // (4 * width * vocab)))
    merged = [layer.merge([layer] * rows) for layer in cache]
    found: list[float] = []
    for start in range(0, len(endings), rows):
        part = list(endings[start : start + rows])
        full = part + [part[-1]] * (rows - len(part))
        found += _surprise(model, beginning[-1], full, width, copy.deepcopy(merged))[: len(part)]
    return found


def _filled(model: Any, tokens: Sequence[int]) -> list[Any] | None:
    """The model's caches behind these tokens; None if they cannot be copied to many rows."""
    from mlx_lm.models.cache import make_prompt_cache

    cache: list[Any] = make_prompt_cache(model)
    if not all(hasattr(layer, "merge") for layer in cache):
        return None
    model(mx.array(list(tokens))[None], cache=cache)
    mx.eval([layer.state for layer in cache])
    return cache


def _surprise(
    model: Any, last: int, endings: Sequence[Sequence[int]], width: int, cache: list[Any]
) -> list[float]:
    """Padding stands on the right, where a causal model does not look."""
    tokens = mx.array([[last, *e[:-1], *[0] * (width - len(e))] for e in endings])
    ids = mx.array([[*e, *[0] * (width - len(e))] for e in endings])
    counts = mx.array([[1.0] * len(e) + [0.0] * (width - len(e)) for e in endings])
    logits = model(tokens, cache=cache)
    nats = nlls(logits.reshape(-1, logits.shape[-1]), ids.reshape(-1)).reshape(ids.shape)
    found: Any = (nats * counts).sum(axis=1).tolist()
    return [float(value) for value in found]


def _whole(beginning: Sequence[int], ending: Sequence[int]) -> Encoded:
    targets = (*[False] * len(beginning), *[True] * len(ending))
    return Encoded((*beginning, *ending), targets)
