"""The exponential, SiLU and cross-entropy where MLX's own exponential is slow.

MLX's Linux x86 build computes exp one value at a time: 19 ns each, so that for a small model SiLU and the
softmax of the loss cost more than all matrix products. Written out in vectorized primitives it takes 7 ns.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator
from typing import Any

from mlx_plastic.backend import device, mx, nn

# 2 ** f on [-1/2, 1/2], the coefficients of MLX's own kernel; relative error 1.2e-7
_EXP2 = (1.535336188e-4, 1.339887440e-3, 9.618437357e-3, 5.550332471e-2, 2.402264791e-1, 6.931472028e-1, 1.0)
_LOG2E = 1.4426950408889634
_ROUND = 12582912.0  # 1.5 * 2**23: adding it leaves the nearest integer in a float32's low bits


def is_exp_slow() -> bool:
    return device().kind == "cpu" and sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64")


def quick_exp(x: mx.array) -> mx.array:
    """exp(x) for float32 x <= 88, to 2e-7; below -87 it is 2**-126, as good as 0."""
    y = mx.maximum(x * _LOG2E, -126.0)
    rounded = y + _ROUND
    f = y - (rounded - _ROUND)
    p = _EXP2[0] * f + _EXP2[1]
    for c in _EXP2[2:]:
        p = p * f + c
    exponent = mx.left_shift(rounded.view(mx.int32), 23)  # the integer part, where a float keeps it
    return (p.view(mx.int32) + exponent).view(mx.float32)


@mx.custom_function
def _silu_parts(x: mx.array) -> tuple[mx.array, mx.array]:
    s = 1.0 / (1.0 + quick_exp(mx.minimum(-x, 80.0)))
    return x * s, s


@_silu_parts.vjp
def _silu_vjp(
    x: mx.array, cotangents: tuple[mx.array, mx.array], outputs: tuple[mx.array, mx.array]
) -> mx.array:
    y, s = outputs
    return cotangents[0] * (s + y * (1.0 - s))


@contextlib.contextmanager
def quick_activations() -> Iterator[None]:
    """Inside, models of mlx-lm compute SiLU by `quick_exp`, if MLX's own is slow here; outside, as before.

    MLX's compilation is off meanwhile: on a CPU it calls a C++ compiler for every fused kernel, for seconds,
    and these come out slower than the parts.
    """
    if not is_exp_slow():
        yield
        return
    stock = nn.silu

    def silu(x: mx.array) -> Any:
        return _parts(_silu_parts, x)[0] if x.dtype == mx.float32 else stock(x)

    mx.disable_compile()
    nn.silu = silu
    try:
        yield
    finally:
        nn.silu = stock
        if "MLX_DISABLE_COMPILE" not in os.environ:
            mx.enable_compile()


def nlls(logits: mx.array, targets: mx.array) -> mx.array:
    """(n,) negative log likelihoods in nats, float32. logits: (n, vocab) any float dtype; targets: (n,)."""
    exp = quick_exp if is_exp_slow() else mx.exp
    logits = logits.astype(mx.float32)
    top = mx.max(logits, axis=-1, keepdims=True)
    wanted = mx.take_along_axis(logits, targets[:, None], axis=-1)
    found: mx.array = mx.log(mx.sum(exp(logits - top), axis=-1, keepdims=True)) + top - wanted
    return found[:, 0]


def summed_nll(logits: mx.array, targets: mx.array) -> mx.array:
    """The summed negative log likelihood in nats, a float32 scalar, with a gradient of few passes.

    logits: (n, vocab) any float dtype; targets: (n,) integers.
    """
    exp = quick_exp if is_exp_slow() else mx.exp

    @mx.custom_function
    def parts(logits: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        top = mx.max(logits, axis=-1, keepdims=True)
        e = exp(logits - top)
        z = mx.sum(e, axis=-1, keepdims=True)
        wanted = mx.take_along_axis(logits, targets[:, None], axis=-1)
        return mx.sum(mx.log(z) + top - wanted), e, z

    @parts.vjp
    def gradient(
        logits: mx.array, cotangents: tuple[mx.array, ...], outputs: tuple[mx.array, ...]
    ) -> mx.array:
        _, e, z = outputs
        p = e * (cotangents[0] / z)
        return p.at[mx.arange(targets.size), targets].add(-cotangents[0])

    return _parts(parts, logits.astype(mx.float32))[0]


def summed_kl(logits: mx.array, teacher: mx.array) -> mx.array:
    """The summed KL(teacher || model) in nats, a float32 scalar; the teacher gets no gradient.

    logits, teacher: (n, vocab) any float dtype.
    """
    exp = quick_exp if is_exp_slow() else mx.exp
    wanted = mx.stop_gradient(teacher.astype(mx.float32))
    top = mx.max(wanted, axis=-1, keepdims=True)
    likely = exp(wanted - top)
    total = mx.sum(likely, axis=-1, keepdims=True)
    likely = likely / total
    negative_entropy = mx.sum(likely * (wanted - top - mx.log(total)), axis=-1, keepdims=True)

    @mx.custom_function
    def parts(logits: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        top = mx.max(logits, axis=-1, keepdims=True)
        e = exp(logits - top)
        z = mx.sum(e, axis=-1, keepdims=True)
        crossed = mx.sum(likely * (logits - top), axis=-1, keepdims=True)
        return mx.sum(mx.log(z) - crossed + negative_entropy), e, z  # row by row: sums of millions round

    @parts.vjp
    def gradient(
        logits: mx.array, cotangents: tuple[mx.array, ...], outputs: tuple[mx.array, ...]
    ) -> mx.array:
        _, e, z = outputs
        return e * (cotangents[0] / z) - cotangents[0] * likely

    return _parts(parts, logits.astype(mx.float32))[0]


def _parts(function: Any, x: mx.array) -> tuple[mx.array, ...]:
    """The outputs of a custom function, which MLX's own types call an object."""
    found: tuple[mx.array, ...] = function(x)
    return found
