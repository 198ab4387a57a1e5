"""What fits: the batches of a night under a bound on its memory."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from mlx_plastic.backend import tree_flatten
from mlx_plastic.base import targets
from mlx_plastic.errors import BadConfig
from mlx_plastic.lowrank.layers import dims, stack_size
from mlx_plastic.sleep.config import NightConfig

if TYPE_CHECKING:
    from mlx_plastic.base import Base

LEAST_BATCH = 64  # tokens
OWN_MB = 700.0  # Python, MLX and mlx-lm without a base


def within(config: NightConfig, base: Base, memory_mb: float) -> NightConfig:
    """The settings with smaller batches, then also with activations computed twice and nothing cached.

    The first that fit. Raises BadConfig if even the least does not. Decided by sizes alone, so that a night
    that goes on decides the same.
    """
    halves = [config.batch_tokens >> i for i in range(8) if config.batch_tokens >> i >= LEAST_BATCH]
    tries = [dataclasses.replace(config, batch_tokens=n) for n in halves or [config.batch_tokens]]
    thrifty = [dataclasses.replace(c, cache_mb=0, grad_checkpoint=True) for c in tries]
    for found in (*tries[:2], *thrifty):
        if needed_mb(found, base) <= memory_mb:
            return found
    raise BadConfig(
        f"a night of {base.ref} needs about {needed_mb(thrifty[-1], base):.0f} MB at the least; "
        f"the budget is {memory_mb:g} MB",
        hint="raise memory_mb in [budget], or choose a smaller base",
    )


def needed_mb(config: NightConfig, base: Base) -> float:
    """About what a training takes at its peak, from sizes alone."""
    model = base.model
    values: Any = tree_flatten(model.parameters())
    weights = sum(value.nbytes for _, value in values)
    text = base.config | (base.config.get("text_config") or {})
    width, layers = text.get("hidden_size", 2048), text.get("num_hidden_layers", len(model.layers))
    inner = text.get("intermediate_size") or 4 * width
    kept = 2 * width if config.grad_checkpoint else 14 * width + 4 * inner  # values per token and block
    blocks = config.batch_tokens * 4 * kept * layers
    modules = targets(model, config.role_list).values()
    factors = sum(4 * config.rank * sum(dims(m)) * math.prod(stack_size(m)) for m in modules)
    state = 8 * factors  # factors, moments, gradient, best, and copies while they are saved
    return OWN_MB + float(weights + blocks + state) / 1e6 + config.cache_mb
