"""Losses of a frozen head over a large vocabulary, a piece of the positions at a time.

The gradient is computed with the loss, piece by piece, so that the logits of all positions never lie in
memory together: what is kept from the forward pass is one gradient as large as the hidden states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mlx_plastic.backend import mx
from mlx_plastic.lowrank.quick import summed_kl, summed_nll

PIECE_BYTES = 16_000_000  # of float32 logits

Head = Callable[[mx.array], mx.array]
Loss = Callable[[mx.array, slice], mx.array]  # of the hidden states in that slice of the positions


def chunked_nll(
    head: Head, hidden: mx.array, targets: mx.array, *, vocab: int, learning: bool = True
) -> mx.array:
    """The summed negative log likelihood in nats, a float32 scalar.

    head: (n, d) -> (n, vocab), with nothing in it to be learned. hidden: (k, d) any float dtype;
    targets: (k,) integers. learning: whether the gradient will be asked for; it is computed at once.
    """
    compute = _chunked if learning else _measured
    return compute(lambda h, at: summed_nll(head(h), targets[at]), hidden, vocab)


def chunked_kl(
    head: Head, hidden: mx.array, teacher: mx.array, *, vocab: int, learning: bool = True
) -> mx.array:
    """The summed KL(head(teacher) || head(hidden)) in nats, a float32 scalar; the teacher gets no gradient.

    head, learning: as in `chunked_nll`. hidden, teacher: (k, d) any float dtype.
    """
    compute = _chunked if learning else _measured
    return compute(lambda h, at: summed_kl(head(h), head(teacher[at])), hidden, 2 * vocab)


def _chunked(loss: Loss, hidden: mx.array, vocab: int) -> mx.array:
    @mx.custom_function
    def parts(hidden: mx.array) -> tuple[mx.array, mx.array]:
        total, gradients = mx.array(0.0), list[mx.array]()
        for at in _pieces(hidden.shape[0], vocab):
            before: Any = [hidden[at]]
            if gradients:  # one piece after the other, in whatever order the graph is walked
                before = mx.depends(before, [gradients[-1]])
            value, gradient = mx.value_and_grad(loss)(before[0], at)
            total = total + value
            gradients.append(gradient)
        return total, mx.concatenate(gradients)

    @parts.vjp
    def vjp(hidden: mx.array, cotangents: tuple[mx.array, ...], outputs: tuple[mx.array, ...]) -> mx.array:
        return (cotangents[0] * outputs[1]).astype(hidden.dtype)

    outputs: Any = parts(hidden)
    total: mx.array = outputs[0]
    return total


def _measured(loss: Loss, hidden: mx.array, vocab: int) -> mx.array:
    """The same sum where no gradient is asked for."""
    total = mx.array(0.0)
    for at in _pieces(hidden.shape[0], vocab):
        part: Any = mx.depends([hidden[at]], [total])
        total = total + loss(part[0], at)
    return total


def _pieces(positions: int, vocab: int) -> Iterator[slice]:
    size = max(1, PIECE_BYTES // (4 * vocab))
    return (slice(start, min(start + size, positions)) for start in range(0, positions, size))
