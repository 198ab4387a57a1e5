"""Ranks that are found while training: updates start small, grow where it pays, and end within a budget.

What the manager decides (`lowrank/plasticity.py`) is done to the layers here, and to the optimizer's moments:
a component keeps its own while it is active, turned as it is turned; a new one begins with no momentum and
the mean second moment of its layer, so that its first steps are no larger than those of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlx_plastic.backend import mx
from mlx_plastic.lowrank.layers import DeltaLinear
from mlx_plastic.lowrank.plastic import Components, Parked, Plastic, plastic
from mlx_plastic.lowrank.plasticity import Event, PlasticityConfig, PlasticityManager, Seen, carry_out
from mlx_plastic.packs.train.keeper import State
from mlx_plastic.packs.train.learner import Learner
from mlx_plastic.samples import Encoded

LOOKS = 16  # in a training
INPUT_ROWS = 64  # of each layer, for the activation policy
BETA_2 = 0.999  # of the optimizer

Moments = dict[int, tuple[np.ndarray, np.ndarray]]  # component -> row of a, column of b


def plastic_layers(layers: Mapping[str, DeltaLinear]) -> dict[str, Plastic]:
    return {path: plastic(layer) for path, layer in layers.items()}


def cost(layer: DeltaLinear) -> int:
    """Numbers of one component: (out + in), for each expert of a stack."""
    return math.prod(layer.a.shape[:-2]) * (layer.a.shape[-1] + layer.b.shape[-2])


@dataclass
class Dynamic:
    """A training whose ranks change. layers: those of the learner, every one plastic."""

    layers: dict[str, Plastic]
    manager: PlasticityManager
    steps: int
    most: Mapping[str, int]  # components of each layer
    on_event: Callable[[Event], None] | None = None
    events: list[Event] = field(default_factory=list)

    @property
    def config(self) -> PlasticityConfig:
        return self.manager.config

    @property
    def every(self) -> int:
        """Steps from one look to the next."""
        return max(1, self.steps // LOOKS)

    def is_due(self, step: int) -> bool:
        return step < self.steps and step % self.every == 0

    def look(self, learner: Learner, state: State, loss: float | None, samples: Sequence[Encoded]) -> bool:
        """Decide, and do it to the layers and to the state; whether anything changed."""
        self._load(learner, state)
        last = state.step + self.every >= self.steps  # then at the latest it has to be within the budget
        progress = 1.0 if last else state.step / self.steps
        decisions = self.manager.decide(loss, self._seen(learner, state, samples), progress=progress)
        if not decisions:
            return False
        moments = [_by_id(self.layers, learner.parts(moment)) for moment in (state.m, state.v)]
        settled = self.manager.settled
        for decision in decisions:
            layer = self.layers[decision.layer]
            event = carry_out(decision, layer, step=state.step, loss=loss, seed=self.config.seed)
            if decision.kind == "shrink":
                self.manager.parked(decision.layer, event.ids)
                _turn(layer, moments[0][decision.layer], moments[1][decision.layer])
            self._tell(event)
        state.flat = learner.flat()
        state.m = _laid(self.layers, moments[0], fresh=lambda _: 0.0)
        state.v = _laid(self.layers, moments[1], fresh=lambda old: float(np.mean(old)) if old.size else 0.0)
        if settled and any(d.kind == "shrink" for d in decisions):
            state.best_valid = math.inf  # what was better before took more than the budget
            state.best, state.best_ranks = state.flat, self.ranks
        mx.eval(state.flat, state.m, state.v)
        self.keep(state)
        return True

    @property
    def ranks(self) -> dict[str, int]:
        return {path: layer.rank for path, layer in self.layers.items()}

    def keep(self, state: State) -> None:
        """Put into the state what a checkpoint needs beside the factors."""
        parked = [p for layer in self.layers.values() for _, p in sorted(layer.components.parked.items())]
        arrays = [x.reshape(-1) for p in parked for x in (p.a, p.b)]
        state.parked = mx.array(np.concatenate(arrays) if arrays else np.zeros(1, np.float32))
        state.plastic = {
            "manager": self.manager.as_dict(),
            "layers": {
                path: {
                    "active": layer.components.active,
                    "next_id": layer.components.next_id,
                    "parked": sorted(layer.components.parked),
                }
                for path, layer in self.layers.items()
            },
        }

    def restore(self, state: State) -> None:
        """Make the layers those of a checkpoint, before its vectors are cut to their shapes."""
        if not state.plastic:
            return
        self.manager.restore(state.plastic["manager"])
        values, start = np.array(state.parked), 0
        for path, about in state.plastic["layers"].items():
            layer = self.layers[path]
            (*stack, _, width), out = layer.a.shape, layer.b.shape[-2]
            components = Components(list(about["active"]), about["next_id"])
            for i in about["parked"]:
                sizes = [math.prod(stack) * side for side in (width, out)]
                a, b = np.split(values[start : start + sum(sizes)], sizes[:1])
                components.parked[i] = Parked(i, a.reshape(*stack, width), b.reshape(*stack, out))
                start += sum(sizes)
            layer.components = components
            rank = len(components.active)
            layer.a, layer.b = mx.zeros((*stack, rank, width)), mx.zeros((*stack, out, rank))

    def _tell(self, event: Event) -> None:
        self.events.append(event)
        if self.on_event:
            self.on_event(event)

    def _load(self, learner: Learner, state: State) -> None:
        """The factors as they are now: while a gradient is taken the layers hold something else."""
        parts = learner.parts(state.flat)
        for i, layer in enumerate(self.layers.values()):
            layer.a, layer.b, layer.key = parts[2 * i], parts[2 * i + 1], []

    def _seen(self, learner: Learner, state: State, samples: Sequence[Encoded]) -> dict[str, Seen]:
        second = learner.parts(state.v)
        correction = 1 - BETA_2 ** max(1, state.step)
        outputs = self._outputs(learner.model, samples) if self.config.policy == "activation" else {}
        return {
            path: Seen(
                rank=layer.rank,
                cost=cost(layer),
                spectrum=layer.spectrum(),
                gradient=float(mx.mean(second[2 * i + 1]).item()) / correction,  # type: ignore[arg-type]
                output=outputs.get(path, 0.0),
                parked=tuple(layer.parked_ids),
                most=self.most[path],
            )
            for i, (path, layer) in enumerate(self.layers.items())
        }

    def _outputs(self, model: Any, samples: Sequence[Encoded]) -> dict[str, float]:
        """Mean squared size of what each update adds to its layer's output on some of the samples."""
        from mlx_plastic.packs.ranks.taps import layer_inputs

        rows = layer_inputs(model, list(self.layers), samples, rows=INPUT_ROWS)
        found = {}
        for path, x in rows.items():
            layer = self.layers[path]
            update = layer.scale * (mx.array(x) @ layer.a.swapaxes(-1, -2)) @ layer.b.swapaxes(-1, -2)
            found[path] = float(mx.mean(mx.sum(update * update, axis=-1)).item())  # type: ignore[arg-type]
        return found


def _by_id(layers: Mapping[str, Plastic], parts: Sequence[mx.array]) -> dict[str, Moments]:
    """Of each layer what belongs to each of its components, as they are now."""
    found = {}
    for i, (path, layer) in enumerate(layers.items()):
        a, b = np.array(parts[2 * i]), np.array(parts[2 * i + 1])
        found[path] = {k: (a[..., at, :], b[..., at]) for at, k in enumerate(layer.ids)}
    return found


def _turn(layer: Plastic, first: Moments, second: Moments) -> None:
    """Carry the moments of components over to those that they were rewritten as.

    With b' = b T and a' = T^-1 a the gradients are db' = db T^-T and da' = T^T da. First moments follow;
    second ones as if the entries' gradients were independent, by the squares of T.
    """
    turned = layer.components.turned
    if turned is None:
        return
    t = turned.turn
    back = np.linalg.pinv(t.astype(np.float64)).astype(np.float32)  # T^-1
    for moments, power in ((first, 1), (second, 2)):
        a = np.stack([moments[i][0] for i in turned.old], axis=-2)
        b = np.stack([moments[i][1] for i in turned.old], axis=-1)
        a, b = np.swapaxes(t, -1, -2) ** power @ a, b @ np.swapaxes(back, -1, -2) ** power
        idle = np.asarray(~t.any(axis=-2))  # written anew: see `settle`
        for at, i in enumerate(turned.new):
            if not idle[..., at].any():
                moments[i] = a[..., at, :], b[..., at]


def _laid(
    layers: Mapping[str, Plastic], kept: Mapping[str, Moments], *, fresh: Callable[[np.ndarray], float]
) -> mx.array:
    """The moments of the components that are active now, in one vector; fresh: the value of a new one."""
    found = []
    for path, layer in layers.items():
        old = kept[path]
        sides: list[list[np.ndarray]] = [[], []]
        shapes = layer.a.shape[:-2] + layer.a.shape[-1:], layer.b.shape[:-1]
        for side, shape in enumerate(shapes):
            every = np.concatenate([old[k][side].reshape(-1) for k in layer.ids if k in old] or [np.zeros(0)])
            new = np.full(shape, fresh(every), np.float32)
            sides[side] = [old[k][side] if k in old else new for k in layer.ids]
        found += [np.stack(sides[0], axis=-2).reshape(-1), np.stack(sides[1], axis=-1).reshape(-1)]
    return mx.array(np.concatenate(found).astype(np.float32))
