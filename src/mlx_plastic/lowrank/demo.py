"""Plasticity on random data: a few layers learn targets of known rank, and find ranks of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mlx_plastic.backend import mx, nn
from mlx_plastic.lowrank.plastic import Plastic, PlasticLinear
from mlx_plastic.lowrank.plasticity import (
    Event,
    PlasticityConfig,
    PlasticityManager,
    Policy,
    Seen,
    carry_out,
)

RATE = 0.05  # of Adam
BATCH, HELD_OUT = 64, 256  # inputs
LOOK_EVERY = 10  # steps
BYTES = 4  # of a number in float32


@dataclass(frozen=True)
class Row:
    """A layer at the end. true_rank: of what it had to learn. Sizes in bytes, float32.

    weight_bytes: of the frozen weight; active_bytes, parked_bytes: of the update's components.
    """

    layer: str
    true_rank: int
    rank: int
    parked: int
    weight_bytes: int
    active_bytes: int
    parked_bytes: int
    error: float  # ||update - target|| / ||target||


@dataclass(frozen=True)
class Played:
    """rows: the layers at the end. events: every decision. losses: held out, first and last.

    woken_equal: whether parking and waking every component gave the same bits.
    """

    rows: tuple[Row, ...]
    events: tuple[Event, ...]
    losses: tuple[float, float]
    woken_equal: bool


def play(
    *,
    true_ranks: tuple[int, ...] = (1, 2, 4, 8),
    width: int = 48,
    steps: int = 400,
    policy: Policy = "gradient",
    seed: int = 0,
    tick: Callable[[int, int, str], None] | None = None,
) -> Played:
    """Layers y = (W + update) x whose targets are W plus a matrix of known rank; updates begin at rank 1."""
    random = np.random.default_rng(seed)
    blocks = {f"block{i}": _block(random, width, rank) for i, rank in enumerate(true_ranks)}
    budget = 2 * width * (sum(true_ranks) + len(true_ranks))
    how = PlasticityConfig(policy=policy, delta=0.2, budget=budget, settle_at=0.7, seed=seed)
    manager, events = PlasticityManager(how), list[Event]()
    x_held = mx.array(random.standard_normal((HELD_OUT, width)).astype(np.float32))
    moments: dict[str, list[mx.array]] = {}
    first = _loss(blocks, x_held)
    for step in range(1, steps + 1):
        x = mx.array(random.standard_normal((BATCH, width)).astype(np.float32))
        slopes = {name: _step(name, block, x, moments, step) for name, block in blocks.items()}
        if step % LOOK_EVERY == 0:
            seen = {name: _seen(block[0], slopes[name], x) for name, block in blocks.items()}
            loss = _loss(blocks, x_held)
            for decision in manager.decide(loss, seen, progress=step / steps):
                layer = blocks[decision.layer][0]
                event = carry_out(decision, layer, step=step, loss=loss, seed=seed)
                if decision.kind == "shrink":
                    manager.parked(decision.layer, event.ids)
                moments.pop(decision.layer, None)
                events.append(event)
        if tick:
            tick(step, steps, f"step {step}")
    rows = tuple(_row(name, *block) for name, block in blocks.items())
    equal = all(_wakes_equal(block[0], x_held) for block in blocks.values())
    return Played(rows, tuple(events), (first, _loss(blocks, x_held)), equal)


Block = tuple[PlasticLinear, mx.array, int]  # the layer, what its update has to become, the rank of that


def _block(random: np.random.Generator, width: int, rank: int) -> Block:
    base = nn.Linear(width, width, bias=False)
    base.weight = mx.array(random.standard_normal((width, width)).astype(np.float32) / width**0.5)
    base.freeze()
    target = random.standard_normal((width, rank)) @ random.standard_normal((rank, width)) / width**0.5
    a = random.uniform(-1, 1, (1, width)).astype(np.float32) / width**0.5
    layer = PlasticLinear(base, mx.array(a), mx.zeros((width, 1)))
    return layer, mx.array(target.astype(np.float32)), rank


def _lost(update: mx.array, target: mx.array, x: mx.array) -> mx.array:
    d = x @ (update - target).T
    return mx.mean(mx.sum(d * d, axis=-1))


def _loss(blocks: Mapping[str, Block], x: mx.array) -> float:
    every = [_lost(layer.scale * layer.b @ layer.a, target, x) for layer, target, _ in blocks.values()]
    return float(mx.mean(mx.stack(every)).item())  # type: ignore[arg-type]


def _step(name: str, block: Block, x: mx.array, moments: dict[str, list[mx.array]], step: int) -> float:
    """One step of Adam; the mean squared slope by an entry of b."""
    layer, target, _ = block

    def loss(a: mx.array, b: mx.array) -> mx.array:
        return _lost(layer.scale * b @ a, target, x)

    slopes = mx.grad(loss, argnums=(0, 1))(layer.a, layer.b)
    m = moments.setdefault(name, [mx.zeros_like(p) for p in (layer.a, layer.b, layer.a, layer.b)])
    found = []
    for i, (p, g) in enumerate(zip((layer.a, layer.b), slopes, strict=True)):
        m[i] = 0.9 * m[i] + 0.1 * g
        m[i + 2] = 0.99 * m[i + 2] + 0.01 * g * g
        found.append(p - RATE * m[i] / (mx.sqrt(m[i + 2] / (1 - 0.99 ** min(step, 500))) + 1e-8))
    layer.a, layer.b = found
    mx.eval(layer.a, layer.b, m)
    return float(mx.mean(slopes[1] * slopes[1]).item())  # type: ignore[arg-type]


def _seen(layer: Plastic, slope: float, x: mx.array) -> Seen:
    update = layer.scale * (x @ layer.a.T) @ layer.b.T
    output = float(mx.mean(mx.sum(update * update, axis=-1)).item())  # type: ignore[arg-type]
    cost = layer.a.shape[-1] + layer.b.shape[-2]
    return Seen(layer.rank, cost, layer.spectrum(), slope, output, tuple(layer.parked_ids))


def _row(name: str, layer: PlasticLinear, target: mx.array, true_rank: int) -> Row:
    out, width = target.shape
    lost = layer.scale * layer.b @ layer.a - target
    error = float((mx.linalg.norm(lost) / mx.linalg.norm(target)).item())  # type: ignore[arg-type]
    one = BYTES * (out + width)
    return Row(
        *(name, true_rank, layer.rank, len(layer.parked_ids)),
        *(BYTES * out * width, one * layer.rank, one * len(layer.parked_ids), error),
    )


def _wakes_equal(layer: PlasticLinear, x: mx.array) -> bool:
    before = layer(x)
    ids = layer.ids
    layer.park(ids)
    bare = layer(x)
    layer.wake(ids)
    return bool(mx.array_equal(layer(x), before).item()) and not bool(mx.array_equal(bare, before).item())
