"""Losses and gradients of low-rank updates on a model that is otherwise left alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlx_plastic.backend import mx, streams
from mlx_plastic.base.score import halves
from mlx_plastic.lowrank.chunked import chunked_kl, chunked_nll
from mlx_plastic.lowrank.layers import DeltaLinear, bare, dims, linear_layers, stack_size, updated, wrap
from mlx_plastic.lowrank.quick import quick_activations, summed_kl, summed_nll
from mlx_plastic.packs.train.batches import Rows, rows, share
from mlx_plastic.packs.train.prefix import Activations, Array, from_numpy, to_numpy
from mlx_plastic.packs.train.standins import (
    Gather,
    Handoff,
    Segments,
    block_paths,
    can_pack,
    checkpointing,
    freezing,
    gathering,
)
from mlx_plastic.samples import Encoded


@dataclass
class _Group:
    """Samples that share a forward pass, soft ones last.

    states: what the frozen part makes of them, by kind, one array a sample: "prefix" (length - 1, d) of all
    samples, "teacher" (targets, d) of the soft ones.
    """

    samples: Sequence[Encoded]
    rows: Rows
    states: dict[str, list[Array]] = field(default_factory=dict)

    def of(self, kind: str) -> list[Encoded]:
        return [s for s in self.samples if s.soft or kind == "prefix"]

    @property
    def soft(self) -> list[Encoded]:
        return self.of("teacher")

    @property
    def hard_targets(self) -> int:
        return sum(s.supervised for s in self.samples if not s.soft)

    def cut(self, kind: str, states: Array) -> list[Array]:
        """The states of all samples, each by its own."""
        if kind == "teacher":
            ends = np.cumsum([s.supervised for s in self.soft])
            return np.split(states, ends[:-1].tolist())
        return [
            states[row, start : start + len(s.tokens) - 1].copy()
            for s, (row, start) in zip(self.samples, self.rows.places, strict=True)
        ]

    def laid(self, states: Sequence[Array]) -> Array:
        """The "prefix" states of all samples where their tokens lie: (n, length, d), zeros elsewhere."""
        out = np.zeros((*self.rows.tokens.shape, states[0].shape[-1]), states[0].dtype)
        for one, (row, start) in zip(states, self.rows.places, strict=True):
            out[row, start : start + len(one)] = one
        return out


@dataclass
class Learner:
    """A model wearing trainable updates.

    All of a and b live in one flat float32 vector, in the order of `layers`: so an optimizer step is a
    few operations however many modules there are, and a checkpoint is a few arrays.
    """

    model: Any
    layers: dict[str, DeltaLinear]
    anchor: float = 1.0  # weight of a soft target
    gather: Gather | None = None
    trunk: Callable[..., mx.array] | None = None  # tokens -> hidden states, where the head is frozen
    head: Callable[[mx.array], mx.array] | None = None  # and hidden states -> logits
    vocab: int = 0
    handoff: Handoff | None = None  # from the frozen blocks, if the model can be entered above them
    cache: Activations | None = None
    packed: bool = False  # whether short samples lie behind each other in one row

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [x.shape for layer in self.layers.values() for x in (layer.a, layer.b)]

    def flat(self) -> mx.array:
        return _flat([x for layer in self.layers.values() for x in (layer.a, layer.b)])

    def parts(self, flat: mx.array, ranks: Mapping[str, int] | None = None) -> list[mx.array]:
        """The vector as a, b, a, b, ... of the layers; ranks: other ones than the layers have now."""
        shapes = self.shapes
        if ranks:
            every = [ranks[path] for path in self.layers for _ in "ab"]
            shapes = [_of_rank(shapes[i], rank, is_b=bool(i % 2)) for i, rank in enumerate(every)]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes]).tolist()
        return [part.reshape(shape) for part, shape in zip(mx.split(flat, ends[:-1]), shapes, strict=True)]

    def gradient(
        self, flat: mx.array, samples: Sequence[Encoded], *, key: mx.array | None = None
    ) -> tuple[mx.array, mx.array]:
        """The summed loss of the samples in nats, and its gradient with respect to `flat`.

        The loss of a target is its nll; of a soft sample's, `anchor` times the KL of the model from the one
        without these updates. key: of the dropout; None for none. On a CPU the samples are shared among
        streams, which run side by side.
        """
        parts = self.parts(flat)
        groups = self._groups(samples, parts)
        losses, gradients = [], []
        for i, (stream, group) in enumerate(zip(streams(), groups, strict=False)):
            with mx.stream(stream):
                sub = mx.random.split(key, len(groups))[i] if key is not None else None
                loss, gradient = mx.value_and_grad(lambda p, g, k: self._summed(p, g, key=k, learning=True))(
                    parts, group, sub
                )
                losses.append(loss)
                gradients.append(_flat(gradient))
        return sum(losses[1:], losses[0]), sum(gradients[1:], gradients[0])

    def loss(self, flat: mx.array, samples: Sequence[Encoded]) -> mx.array:
        """The summed loss of the samples in nats, a scalar."""
        total = mx.array(0.0)
        parts = self.parts(flat)
        for stream, group in zip(streams(), self._groups(samples, parts), strict=False):
            with mx.stream(stream):
                one = self._summed(parts, group, learning=False)
            total = total + one
        return total

    def _groups(self, samples: Sequence[Encoded], parts: Sequence[mx.array]) -> list[_Group]:
        """The samples shared among the streams, with what the frozen part makes of them."""
        ordered = [sorted(group, key=lambda s: s.soft) for group in share(samples, len(streams()))]
        groups = [_Group(group, rows(group, packed=self.packed)) for group in ordered]
        self._remember(groups, "prefix", self._prefix_states)
        self._remember(
            [group for group in groups if group.soft],
            "teacher",
            lambda group: self._teacher_states(group, parts),
        )
        return groups

    def _remember(
        self, groups: Sequence[_Group], kind: str, compute: Callable[[_Group], mx.array | None]
    ) -> None:
        """Fill in the `kind` of states of the groups: from the cache, or computed and kept."""
        if self.cache is None:
            return
        waiting = []
        for stream, group in zip(streams(), groups, strict=False):
            keys = [self.cache.key(kind, s.tokens, s.targets) for s in group.of(kind)]
            found = [self.cache.get(key) for key in keys]
            if any(states is None for states in found):
                with mx.stream(stream):
                    states = compute(group)
                if states is not None:
                    waiting.append((group, keys, states))
            else:
                group.states[kind] = [states for states in found if states is not None]
        mx.eval([states for _, _, states in waiting])
        for group, keys, states in waiting:
            group.states[kind] = group.cut(kind, to_numpy(states))
            for key, one in zip(keys, group.states[kind], strict=True):
                self.cache.put(key, one)

    def _prefix_states(self, group: _Group) -> mx.array | None:
        """(n, length, d): what the frozen blocks make of the group's tokens."""
        if self.handoff is None:
            return None
        self._run(self.model, group)  # nothing of it is computed but what is asked for
        seen, self.handoff.seen = self.handoff.seen, None
        return seen

    def _teacher_states(self, group: _Group, parts: Sequence[mx.array]) -> mx.array | None:
        """(k, d): the hidden states at the soft targets, without the updates."""
        return None if self.head is None else self._untaught(group, parts)

    def _untaught(self, group: _Group, parts: Sequence[mx.array]) -> mx.array:
        """(k, d) at the soft targets, or (k, vocab) where the head learns too, without the updates."""
        nothing = [mx.zeros_like(p) if i % 2 else p for i, p in enumerate(parts)]  # every b is zero
        return self._hidden(nothing, group, None)[group.hard_targets :]

    def _summed(
        self, parts: Sequence[mx.array], group: _Group, *, key: mx.array | None = None, learning: bool
    ) -> mx.array:
        total = mx.array(0.0)
        hidden = self._hidden(parts, group, key)
        targets = mx.array(group.rows.targets)
        at = group.hard_targets
        if at:
            total = total + self._nll(hidden[:at], targets[:at], learning)
        if group.soft:
            teacher = self._teacher(group, parts, hidden.dtype)
            total = total + self.anchor * self._kl(hidden[at:], mx.stop_gradient(teacher), learning)
        return total

    def _teacher(self, group: _Group, parts: Sequence[mx.array], dtype: mx.Dtype) -> mx.array:
        if known := group.states.get("teacher"):
            return from_numpy(np.concatenate(known), dtype)
        return self._untaught(group, parts)

    def _nll(self, hidden: mx.array, targets: mx.array, learning: bool) -> mx.array:
        if self.head is None:
            return summed_nll(hidden, targets)
        return chunked_nll(self.head, hidden, targets, vocab=self.vocab, learning=learning)

    def _kl(self, hidden: mx.array, teacher: mx.array, learning: bool) -> mx.array:
        if self.head is None:
            return summed_kl(hidden, teacher)
        return chunked_kl(self.head, hidden, teacher, vocab=self.vocab, learning=learning)

    def _hidden(self, parts: Sequence[mx.array], group: _Group, key: mx.array | None) -> mx.array:
        """(k, d) before the head, or (k, vocab) behind it, at the group's targets."""
        keys = mx.random.split(key, len(self.layers)) if key is not None else None
        for i, layer in enumerate(self.layers.values()):
            layer.a, layer.b = parts[2 * i], parts[2 * i + 1]
            layer.key = [] if keys is None else [keys[i]]
        positions = mx.array(group.rows.positions)
        with self._entered(group), self.gather.only(positions) if self.gather else contextlib.nullcontext():
            found = self._run(self.trunk or self.model, group)
        found = found.reshape(-1, found.shape[-1])
        return found if self.gather else found[positions]

    def _run(self, model: Callable[..., mx.array], group: _Group) -> mx.array:
        tokens = mx.array(group.rows.tokens)
        if not self.packed:
            return model(tokens)
        segments = Segments(mx.array(group.rows.segments))
        return model(tokens, cache=[segments] * len(self.model.layers))

    @contextlib.contextmanager
    def _entered(self, group: _Group) -> Iterator[None]:
        """Inside, the frozen blocks are left out if their outcome is known."""
        known = group.states.get("prefix")
        if self.handoff is None or known is None:
            yield
            return
        self.handoff.given = from_numpy(group.laid(known), self.handoff.dtype)
        try:
            yield
        finally:
            self.handoff.given = None


def _of_rank(shape: tuple[int, ...], rank: int, *, is_b: bool) -> tuple[int, ...]:
    return (*shape[:-1], rank) if is_b else (*shape[:-2], rank, shape[-1])


def _flat(arrays: Sequence[mx.array]) -> mx.array:
    return mx.concatenate([x.reshape(-1) for x in arrays])


@contextlib.contextmanager
def learning(
    model: Any,
    layers: Mapping[str, DeltaLinear],
    *,
    anchor: float = 1.0,
    cache: Activations | None = None,
    grad_checkpoint: bool = False,
    packing: bool = False,
) -> Iterator[Learner]:
    """Inside, `model` wears `layers`, ready to learn; afterwards, however it ends, it is as it was.

    cache: where the frozen part's outcomes are kept. grad_checkpoint: compute the blocks' inner activations
    again in the backward pass instead of keeping them. packing: put short samples behind each other, if the
    model can be told so.
    """
    was_training = model.training
    with contextlib.ExitStack() as after:
        after.callback(model.train, was_training)
        after.callback(wrap, model, wrap(model, layers))
        after.enter_context(quick_activations())
        learner = Learner(model, dict(layers), anchor, cache=cache, packed=packing and can_pack(model))
        if gather := gathering(model):
            learner.gather = gather[1]
            after.callback(wrap, model, {gather[0]: gather[1].norm})
        if block_paths(list(layers)) and (cut := halves(model)):  # else the head may have to learn
            learner.trunk, learner.head = cut
            learner.vocab = _vocab(model)
        if cache and (frozen := freezing(model, list(layers))):
            after.callback(wrap, model, frozen[0])
            learner.handoff = frozen[1]
        if grad_checkpoint:
            after.callback(wrap, model, checkpointing(model, layers))
        model.train()  # some models have other kernels for it, ones with a gradient
        yield learner


def _vocab(model: Any) -> int:
    return int(model(mx.array([[0]])).shape[-1])


def new_layers(
    model: Any,
    ranks: Mapping[str, int],
    *,
    scale: Callable[[int], float],
    dropout: float,
    seed: int,
) -> dict[str, DeltaLinear]:
    """Updates that do nothing yet: a random, b zero.

    ranks: by the path of a linear layer or stack of experts. scale: of an update of that rank. a is uniform
    within 1 / sqrt(in), as in Hu et al. 2021; drawn by numpy, the same on every device.
    """
    random = np.random.default_rng(seed)
    linear = linear_layers(model)
    layers = {}
    for path, rank in ranks.items():
        (out, width), stack = dims(bare(linear[path])), stack_size(linear[path])
        bound = width**-0.5
        a = mx.array(random.uniform(-bound, bound, (*stack, rank, width)).astype(np.float32))
        b = mx.zeros((*stack, out, rank))
        layers[path] = updated(linear[path], a, b, scale=scale(rank), dropout=dropout)
    return layers
