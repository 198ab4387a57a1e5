"""Losses and gradients of low-rank updates on a model that is otherwise left alone."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_plastic.backend import mx, nn, streams
from mlx_plastic.lowrank.layers import DeltaLinear, bare, dims, linear_layers, wrap
from mlx_plastic.lowrank.quick import quick_activations, summed_kl, summed_nll
from mlx_plastic.packs.batches import Rows, rows, share
from mlx_plastic.samples import Encoded

log = logging.getLogger(__name__)


@dataclass
class Learner:
    """A model wearing trainable updates.

    All of a and b live in one flat float32 vector, in the order of `layers`: so an optimizer step is a
    few operations however many modules there are, and a checkpoint is a few arrays.
    """

    model: Any
    layers: dict[str, DeltaLinear]
    gather: _Gather | None
    anchor: float = 1.0  # weight of a soft target

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [x.shape for layer in self.layers.values() for x in (layer.a, layer.b)]

    def flat(self) -> mx.array:
        return _flat([x for layer in self.layers.values() for x in (layer.a, layer.b)])

    def parts(self, flat: mx.array) -> list[mx.array]:
        """The vector as a, b, a, b, ... of the layers."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes]).tolist()
        return [
            part.reshape(shape) for part, shape in zip(mx.split(flat, ends[:-1]), self.shapes, strict=True)
        ]

    def gradient(
        self, flat: mx.array, samples: Sequence[Encoded], *, key: mx.array | None = None
    ) -> tuple[mx.array, mx.array]:
        """The mean loss over the samples' targets, and its gradient with respect to `flat`.

        The loss of a target is its nll; of a soft sample's, `anchor` times the KL of the model from the one
        without these updates. key: of the dropout; None for none. On a CPU the samples are shared among
        streams, which run side by side; each target weighs the same all the same.
        """
        groups = share(samples, len(streams()))
        count = sum(sample.supervised for sample in samples)
        parts = self.parts(flat)
        losses, gradients = [], []
        for i, (stream, group) in enumerate(zip(streams(), groups, strict=False)):
            with mx.stream(stream):
                sub = mx.random.split(key, len(groups))[i] if key is not None else None
                loss, gradient = mx.value_and_grad(lambda p, g, k: self._summed(p, g, key=k))(
                    parts, group, sub
                )
                losses.append(loss)
                gradients.append(_flat(gradient))
        return sum(losses[1:], losses[0]) / count, sum(gradients[1:], gradients[0]) / count

    def loss(self, flat: mx.array, samples: Sequence[Encoded]) -> mx.array:
        """The summed loss of the samples in nats, a scalar."""
        total = mx.array(0.0)
        parts = self.parts(flat)
        for stream, group in zip(streams(), share(samples, len(streams())), strict=False):
            with mx.stream(stream):
                one = self._summed(parts, group)
            total = total + one
        return total

    def _summed(
        self, parts: Sequence[mx.array], samples: Sequence[Encoded], *, key: mx.array | None = None
    ) -> mx.array:
        total = mx.array(0.0)
        if hard := [s for s in samples if not s.soft]:
            group = rows(hard)
            total = total + summed_nll(self._logits(parts, group, key), mx.array(group.targets))
        if soft := [s for s in samples if s.soft]:
            group = rows(soft)
            nothing = [mx.zeros_like(p) if i % 2 else p for i, p in enumerate(parts)]  # every b is zero
            teacher = mx.stop_gradient(self._logits(nothing, group, None))
            total = total + self.anchor * summed_kl(self._logits(parts, group, key), teacher)
        return total

    def _logits(self, parts: Sequence[mx.array], group: Rows, key: mx.array | None) -> mx.array:
        """(k, vocab) at the positions of `group`, with these factors."""
        keys = mx.random.split(key, len(self.layers)) if key is not None else None
        for i, layer in enumerate(self.layers.values()):
            layer.a, layer.b = parts[2 * i], parts[2 * i + 1]
            layer.key = [] if keys is None else [keys[i]]
        positions = mx.array(group.positions)
        found: mx.array
        if self.gather is not None:
            with self.gather.only(positions):
                found = self.model(mx.array(group.tokens))[0]
                return found
        logits = self.model(mx.array(group.tokens))
        found = logits.reshape(-1, logits.shape[-1])[positions]
        return found


def _flat(arrays: Sequence[mx.array]) -> mx.array:
    return mx.concatenate([x.reshape(-1) for x in arrays])


class _Gather(nn.Module):
    """Stands in for the final norm of a model: the positions that are not asked for end here.

    Everything after it, the head above all, sees one row of the `only` positions.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.norm = norm
        self.asked: list[mx.array] = []

    def __call__(self, x: mx.array) -> Any:
        if not self.asked:
            return self.norm(x)
        return self.norm(x.reshape(-1, x.shape[-1])[self.asked[0]][None])

    @contextlib.contextmanager
    def only(self, positions: mx.array) -> Iterator[None]:
        self.asked = [positions]
        try:
            yield
        finally:
            self.asked = []


def _install_gather(model: Any) -> tuple[str, _Gather] | None:
    """A _Gather in place of the final norm, and its path; None if no norm proves to be that.

    Names differ from model to model, so each norm beside the blocks is tried and the logits compared.
    """
    probe = mx.array([[1, 2, 3], [3, 1, 0]])
    positions = mx.array([1, 5])
    whole = model(probe)
    wanted = whole.reshape(-1, whole.shape[-1])[positions].astype(mx.float32)
    close = 0.02 * mx.std(wanted)  # low precision rounds by the row; a wrong norm is off by the whole
    for path, norm in _norms_beside_blocks(model):
        gather = _Gather(norm)
        wrap(model, {path: gather})
        with contextlib.suppress(ValueError, RuntimeError, IndexError), gather.only(positions):
            found = model(probe)
            if (
                found.shape[:2] == (1, 2)
                and mx.all(mx.abs(found[0].astype(mx.float32) - wanted) <= close).item()
            ):
                log.debug("the final norm is %s", path)
                return path, gather
        wrap(model, {path: norm})
    log.debug("no final norm found: training computes all logits")
    return None


def _norms_beside_blocks(model: Any) -> list[tuple[str, nn.Module]]:
    """Norms whose path has no number in it: they lie beside the list of blocks, not in a block."""
    return [
        (path, module)
        for path, module in model.named_modules()
        if "norm" in type(module).__name__.lower() and not any(part.isdigit() for part in path.split("."))
    ]


@contextlib.contextmanager
def learning(model: Any, layers: Mapping[str, DeltaLinear], *, anchor: float = 1.0) -> Iterator[Learner]:
    """Inside, `model` wears `layers`, ready to learn; afterwards, however it ends, it is as it was."""
    was_training = model.training
    plain = wrap(model, layers)
    gather = None
    try:
        with quick_activations():
            gather = _install_gather(model)
            model.train()  # some models have other kernels for it, ones with a gradient
            yield Learner(model, dict(layers), gather[1] if gather else None, anchor)
    finally:
        if gather:
            wrap(model, {gather[0]: gather[1].norm})
        wrap(model, plain)
        model.train(was_training)


def new_layers(
    model: Any, paths: Sequence[str], *, rank: int, scale: float, dropout: float, seed: int
) -> dict[str, DeltaLinear]:
    """Updates that do nothing yet, for the linear layers at `paths`: a random, b zero.

    a is uniform within 1 / sqrt(in), as in Hu et al. 2021; drawn by numpy, the same on every device.
    """
    random = np.random.default_rng(seed)
    linear = linear_layers(model)
    layers = {}
    for path in paths:
        out, width = dims(bare(linear[path]))
        bound = width**-0.5
        a = mx.array(random.uniform(-bound, bound, (rank, width)).astype(np.float32))
        layers[path] = DeltaLinear(linear[path], a, mx.zeros((out, rank)), scale=scale, dropout=dropout)
    return layers
