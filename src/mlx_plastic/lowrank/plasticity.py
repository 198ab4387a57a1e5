"""When capacity changes: a moving validation loss that has come to rest lets layers grow or shrink.

`PlasticityManager` only decides; whoever trains acts on its decisions and tells it what it saw. It is given
the rank and spectrum of each layer's update, never of the whole weight: what a weight has of directions says
nothing of what it has still to learn.
"""

from __future__ import annotations

import logging
import math
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mlx_plastic.lowrank.plastic import Plastic
from mlx_plastic.lowrank.rank import effective_rank
from mlx_plastic.lowrank.svd import Array

log = logging.getLogger(__name__)

Policy = Literal["gradient", "spectral", "activation"]
Kind = Literal["grow", "shrink", "wake"]


@dataclass(frozen=True)
class PlasticityConfig:
    """When and how much. Shares of a loss are of the moving mean; numbers are entries of a and b."""

    policy: Policy = "gradient"
    window: int = 1  # losses in the moving mean
    delta: float = 0.1  # share: a smaller change between two looks is rest, and a plastic phase begins
    gamma: float = 0.01  # share: a larger rise at the look after a shrink wakes what that parked
    grow_share: float = 0.34  # of the layers that a plastic phase grows
    grow_by: int = 1  # components each
    least: int = 1  # components of a layer
    thin_share: float = 0.01  # without a budget: of a layer's largest value, under which one does not pay
    budget: int = 0  # numbers in all active factors at the end; 0: any
    overshoot: float = 2.0  # times the budget, while growing
    settle_at: float = 0.85  # of the run: from then on within the budget, and no more growing
    seed: int = 0


@dataclass(frozen=True)
class Seen:
    """A layer as it is at a look.

    cost: numbers of one component. spectrum: (k,) singular values of the update. gradient: mean squared
    derivative of the loss by an entry of b. output: mean squared size of what the update adds to the layer's
    output. parked: ids that rest. most: components that it may have.
    """

    rank: int
    cost: int
    spectrum: Array
    gradient: float = 0.0
    output: float = 0.0
    parked: tuple[int, ...] = ()
    most: int = 32


@dataclass(frozen=True)
class Decision:
    """What is to become of one layer.

    count: components to grow. threshold: of its singular values, to shrink. ids: to wake.
    score: what the policy saw.
    """

    kind: Kind
    layer: str
    reason: str
    count: int = 0
    threshold: float = 0.0
    ids: tuple[int, ...] = ()
    score: float = 0.0


@dataclass(frozen=True)
class Event:
    """A decision carried out: one line of JSONL."""

    step: int
    kind: Kind
    layer: str
    reason: str
    ids: tuple[int, ...]  # that grew, were parked or woken
    rank_before: int
    rank_after: int
    loss: float | None
    score: float

    def as_dict(self) -> dict[str, Any]:
        value = {**asdict(self), "ids": list(self.ids)}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in value.items()}


class PlasticityManager:
    """Watches the loss; at each look decides which layers grow, shrink or wake. State: `as_dict`."""

    def __init__(self, config: PlasticityConfig) -> None:
        self.config = config
        self.losses: deque[float] = deque(maxlen=config.window + 1)
        self.shrunk: dict[str, tuple[int, ...]] = {}  # parked at the look before
        self.loss_before_shrink = math.nan
        self.settled = False

    def decide(self, loss: float | None, layers: Mapping[str, Seen], *, progress: float) -> list[Decision]:
        """What is to happen now. loss: on validation samples; None if there are none. progress: in [0, 1]."""
        woken = self._woken(loss, layers)
        change = self._change(loss)
        if woken:
            return woken
        if self.config.budget and progress >= self.config.settle_at:
            if self.settled:
                return []
            self.settled = True
            return self._shrunk_to_budget(layers, loss)
        if abs(change) >= self.config.delta:
            return []
        return self._grown(layers) or self._thinned(layers, loss)

    def parked(self, layer: str, ids: Sequence[int]) -> None:
        """Told after a shrink, so that it can be undone at the next look."""
        if ids:
            self.shrunk[layer] = tuple(ids)

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint: JSON."""
        before = self.loss_before_shrink
        return {
            "losses": list(self.losses),
            "shrunk": {layer: list(ids) for layer, ids in self.shrunk.items()},
            "loss_before_shrink": before if math.isfinite(before) else None,
            "settled": self.settled,
        }

    def restore(self, value: Mapping[str, Any]) -> None:
        self.losses.extend(value["losses"])
        self.shrunk = {layer: tuple(ids) for layer, ids in value["shrunk"].items()}
        before = value["loss_before_shrink"]
        self.loss_before_shrink = math.nan if before is None else before
        self.settled = value["settled"]

    def _change(self, loss: float | None) -> float:
        """Share by which the moving mean changed; 0 without a loss, infinite until there is a mean."""
        if loss is None:
            return 0.0
        self.losses.append(loss)
        if len(self.losses) <= self.config.window:
            return math.inf
        values = list(self.losses)
        before, now = float(np.mean(values[:-1])), float(np.mean(values[1:]))
        return (now - before) / max(abs(before), 1e-12)

    def _woken(self, loss: float | None, layers: Mapping[str, Seen]) -> list[Decision]:
        shrunk, self.shrunk = self.shrunk, {}
        if not shrunk or loss is None or not self._worsened(loss):
            return []
        reason = f"loss {self.loss_before_shrink:.4f} -> {loss:.4f} after the shrink"
        room = self._limit(1.0) - sum(seen.rank * seen.cost for seen in layers.values())
        found = []
        for layer, parked in shrunk.items():
            here = [i for i in parked if i in layers[layer].parked]
            ids = tuple(here[: max(0, int(min(room, 1e18) // layers[layer].cost))])
            room -= len(ids) * layers[layer].cost
            if ids:
                found.append(Decision("wake", layer, reason, ids=ids, score=loss - self.loss_before_shrink))
        return found

    def _worsened(self, loss: float) -> bool:
        before = self.loss_before_shrink
        return loss > before + self.config.gamma * abs(before)

    def _grown(self, layers: Mapping[str, Seen]) -> list[Decision]:
        """The layers of the highest score, as far as there is room."""
        c = self.config
        scores = self._scores(layers)
        room = self._limit(c.overshoot) - sum(seen.rank * seen.cost for seen in layers.values())
        found = []
        for layer in sorted(layers, key=lambda name: -scores[name])[
            : max(1, round(c.grow_share * len(layers)))
        ]:
            seen = layers[layer]
            count = min(c.grow_by, seen.most - seen.rank, int(min(room, 1e18) // seen.cost))
            if count > 0 and scores[layer] > 0:
                room -= count * seen.cost
                found.append(Decision("grow", layer, f"{c.policy} policy", count=count, score=scores[layer]))
        return found

    def _scores(self, layers: Mapping[str, Seen]) -> dict[str, float]:
        """What one component more would bring for each number it takes, by the policy."""
        if self.config.policy == "gradient":
            return {name: seen.gradient for name, seen in layers.items()}
        if self.config.policy == "activation":
            return {name: seen.output / (seen.rank * seen.cost) for name, seen in layers.items()}
        return {name: _fullness(seen.spectrum) for name, seen in layers.items()}

    def _thinned(self, layers: Mapping[str, Seen], loss: float | None) -> list[Decision]:
        """With no budget: in each layer what is under a share of its largest value does not pay."""
        if self.config.budget:
            return []
        found = []
        for layer, seen in layers.items():
            threshold = self.config.thin_share * float(seen.spectrum.max(initial=0.0))
            under = int(np.count_nonzero(seen.spectrum <= threshold))
            if threshold and under and seen.rank - under >= self.config.least:
                found.append(
                    Decision(
                        "shrink",
                        layer,
                        f"under {self.config.thin_share:g} of the largest",
                        threshold=threshold,
                    )
                )
        self._remember(found, loss)
        return found

    def _shrunk_to_budget(self, layers: Mapping[str, Seen], loss: float | None) -> list[Decision]:
        """One threshold for all layers on value per number, so that what is left is within the budget."""
        c = self.config
        weights = {name: max(self._weight(seen), 1e-300) for name, seen in layers.items()}
        parts = sorted(
            (
                (weights[name] * float(s) ** 2 / seen.cost, name, k)
                for name, seen in layers.items()
                for k, s in enumerate(seen.spectrum)
                if k >= c.least
            ),
            reverse=True,
        )
        left = self._limit(1.0) - sum(min(c.least, seen.rank) * seen.cost for seen in layers.values())
        kept = dict.fromkeys(layers, c.least)
        full: set[str] = set()
        for _, name, _ in parts:
            if name not in full and layers[name].cost <= left:
                kept[name] += 1
                left -= layers[name].cost
            else:
                full.add(name)  # a smaller one of the same layer does not go before it
        found = [
            Decision(
                *("shrink", name, "budget"),
                threshold=float(seen.spectrum[kept[name]]),
                score=weights[name],
            )
            for name, seen in layers.items()
            if kept[name] < len(seen.spectrum)
        ]
        self._remember(found, loss)
        return found

    def _weight(self, seen: Seen) -> float:
        return seen.gradient if self.config.policy == "gradient" else 1.0

    def _remember(self, found: Sequence[Decision], loss: float | None) -> None:
        if found and loss is not None:
            self.loss_before_shrink = loss

    def _limit(self, times: float) -> float:
        return self.config.budget * times if self.config.budget else math.inf


def carry_out(decision: Decision, layer: Plastic, *, step: int, loss: float | None, seed: int) -> Event:
    """Do it to the layer; one log line."""
    before = layer.rank
    if decision.kind == "grow":
        own = zlib.crc32(decision.layer.encode("utf-8"))  # else layers of one width would begin alike
        ids = layer.grow(decision.count, seed=seed + own)
    elif decision.kind == "shrink":
        ids = layer.shrink(decision.threshold, soft=False)
    else:
        ids = layer.wake(decision.ids)
    event = Event(
        *(step, decision.kind, decision.layer, decision.reason, tuple(ids), before, layer.rank, loss),
        decision.score,
    )
    log.info(
        "step %d: %s %s, rank %d -> %d (%s)", step, event.kind, event.layer, before, layer.rank, event.reason
    )
    return event


def _fullness(s: Array) -> float:
    """How evenly the update uses the directions it has, in (0, 1]; 1 for one that has done nothing yet."""
    return effective_rank(s) / len(s) if len(s) and np.any(s) else 1.0
