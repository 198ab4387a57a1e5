"""Directions of a matrix that do nothing: parked by the plasticity manager, and woken where that hurts.

A matrix becomes a plastic layer whose components are its singular directions. At each look the manager parks
those under a share of the largest; if the predictions on held-out texts then move by more than gamma it wakes
them, and this matrix is left alone. What stays is the rank that the plan gets; the rest is parked beside the
checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mlx_plastic.backend import mx, nn
from mlx_plastic.base import Base
from mlx_plastic.base.widen import float32_weight
from mlx_plastic.compress.plan import Plan
from mlx_plastic.compress.taps import at
from mlx_plastic.lowrank.layers import wrapped
from mlx_plastic.lowrank.plastic import PlasticLinear
from mlx_plastic.lowrank.plasticity import Event, PlasticityConfig, PlasticityManager, Seen, carry_out
from mlx_plastic.lowrank.svd import balanced, truncated_svd
from mlx_plastic.packs.extract.divergence import Reference, reference
from mlx_plastic.samples import Encoded

SHARES = (0.001, 0.01, 0.03, 0.1, 0.3)  # of the largest singular value: one look each
GAMMA = 0.001  # share of the loss that a cut may move predictions by

Tick = Callable[[int, int, str], None]


def with_cuts(
    plan: Plan, base: Base, texts: Sequence[Encoded], *, tick: Tick = lambda *_: None
) -> tuple[Plan, list[Event]]:
    """The plan with a rank for each matrix that has directions to spare, and every decision on the way.

    texts: held out. The base has its own layers again afterwards. Stacks of experts and embeddings are passed
    over, and so is a base that was left quantized for want of memory.
    """
    ranks: dict[str, int] = {}
    events: list[Event] = []
    with reference(base.model, texts) as first:
        for i, m in enumerate(plan.matrices):
            tick(i, len(plan.matrices), f"cutting {m.module}")
            layer = at(base.model, m.module)
            if m.experts > 1 or type(layer) is not nn.Linear:
                continue
            plastic = _plastic(layer)
            with wrapped(base.model, {m.module: plastic}):
                events += _cut(m.module, plastic, base, first)
            if plastic.rank < min(m.rows, m.cols):
                ranks[m.module] = plastic.rank
    note = f"{len(ranks)} matrices are cut to a rank; that alone saves no bytes in stock mlx-lm"
    matrices = tuple(replace(m, rank=ranks.get(m.module)) for m in plan.matrices)
    return replace(plan, matrices=matrices, notes=(*plan.notes, note)), events


def _plastic(layer: Any) -> PlasticLinear:
    """The same layer with its weight as components on nothing."""
    w = np.array(float32_weight(layer))
    b, a = balanced(*truncated_svd(w, min(w.shape), "exact"))
    empty = nn.Linear(1, 1, bias="bias" in layer)
    empty.weight = mx.zeros(w.shape)
    if "bias" in layer:
        empty.bias = layer.bias
    return PlasticLinear(empty, mx.array(a), mx.array(b))


def _cut(module: str, layer: PlasticLinear, base: Base, first: Reference) -> list[Event]:
    """Look after look, until a cut hurts or the shares are through."""
    config = PlasticityConfig(policy="spectral", delta=math.inf, gamma=GAMMA)
    manager = PlasticityManager(config)
    events: list[Event] = []
    cost = sum(layer.base.weight.shape)
    shares = (0.0, *SHARES, 0.0)  # the first look only learns the loss, the last only judges
    for step, share in enumerate(shares):
        loss = first.own.nll + first.distance(base.model).kl_nats
        manager.config = replace(config, thin_share=share)
        seen = Seen(layer.rank, cost, layer.spectrum(), most=layer.rank, parked=tuple(layer.parked_ids))
        for decision in manager.decide(loss, {module: seen}, progress=0.0):
            event = carry_out(decision, layer, step=step, loss=loss, seed=0)
            events.append(event)
            if decision.kind == "wake":
                return events
            manager.parked(module, event.ids)
    return events
