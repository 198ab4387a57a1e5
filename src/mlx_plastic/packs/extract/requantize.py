"""What more bits, or smaller groups, would buy: the other use of the bytes that a repair pack takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlx_plastic.backend import mx
from mlx_plastic.lowrank.svd import Array

BITS = (2, 3, 4, 5, 6, 8)  # that MLX's affine quantization knows
GROUPS = (128, 64, 32)


@dataclass(frozen=True)
class Scheme:
    """How a matrix is quantized: affine, with a scale and a bias for every group, stored as `scales`."""

    bits: int
    group_size: int
    scales: Literal["float16", "bfloat16", "float32"] = "float16"

    def nbytes(self, shape: tuple[int, ...]) -> int:
        rows, width = shape
        pair = 8 if self.scales == "float32" else 4
        return rows * width * self.bits // 8 + pair * rows * (width // self.group_size)


@dataclass(frozen=True)
class Option:
    """gain: by how much the squared weighted error falls."""

    scheme: Scheme
    extra_bytes: int
    gain: float


@dataclass(frozen=True)
class Upgrade:
    """A matrix that would get more bits."""

    module: str
    scheme: Scheme
    extra_bytes: int


def quantized_anew(w: Array, scheme: Scheme) -> Array:
    """w (out, in) float32 as it would be after quantization."""
    packed, *rest = mx.quantize(mx.array(w), group_size=scheme.group_size, bits=scheme.bits)
    scale, bias = (part.astype(getattr(mx, scheme.scales)).astype(mx.float32) for part in rest)
    return np.array(mx.dequantize(packed, scale, bias, group_size=scheme.group_size, bits=scheme.bits))


def options(w: Array, root: Array, now: Scheme, now_bytes: int, error: float) -> list[Option]:
    """What the next bits and smaller groups give.

    root: L with L @ L.T = mean of x x^T. now_bytes: what the matrix takes as it is. error: ||E L||^2.
    """
    found = []
    for scheme in _larger(now, w.shape[1]):
        extra = scheme.nbytes(w.shape) - now_bytes
        if extra <= 0:
            continue
        left = (w - quantized_anew(w, scheme)) @ root
        gain = error - float(np.square(left, dtype=np.float64).sum())
        if gain > 0:
            found.append(Option(scheme, extra, gain))
    return found


def _larger(now: Scheme, width: int) -> list[Scheme]:
    more = [bits for bits in BITS if bits > now.bits][:1]
    return [
        Scheme(bits, group, now.scales)
        for bits in [*([now.bits] if now.bits in BITS else []), *more]
        for group in GROUPS
        if width % group == 0 and (bits, group) != (now.bits, now.group_size)
    ]


def choose(offers: Mapping[str, Sequence[Option]], budget_bytes: int) -> tuple[Upgrade, ...]:
    """The upgrades of most gain within the bytes: greedy along each matrix's convex hull of (bytes, gain)."""
    steps = [
        (slope, path, i, option) for path, found in offers.items() for i, (slope, option) in _hull(found)
    ]
    taken: dict[str, Option] = {}
    level = dict.fromkeys(offers, 0)
    left = budget_bytes
    for _, path, i, option in sorted(steps, key=lambda step: (-step[0], step[1])):
        cost = option.extra_bytes - (taken[path].extra_bytes if path in taken else 0)
        if i == level[path] and cost <= left:
            taken[path], level[path], left = option, i + 1, left - cost
    return tuple(Upgrade(path, option.scheme, option.extra_bytes) for path, option in taken.items())


def _hull(found: Sequence[Option]) -> list[tuple[int, tuple[float, Option]]]:
    """Options along the upper convex hull from (0, 0), numbered, with the slope that leads to each."""
    corners = [(0, 0.0)]
    kept: list[Option] = []
    for option in sorted(found, key=lambda o: (o.extra_bytes, -o.gain)):
        if option.gain <= corners[-1][1] or option.extra_bytes == corners[-1][0]:
            continue
        point = option.extra_bytes, option.gain
        while kept and _slope(corners[-1], point) >= _slope(corners[-2], corners[-1]):
            corners.pop()
            kept.pop()
        corners.append(point)
        kept.append(option)
    return [(i, (_slope(corners[i], corners[i + 1]), option)) for i, option in enumerate(kept)]


def _slope(low: tuple[int, float], high: tuple[int, float]) -> float:
    return (high[1] - low[1]) / (high[0] - low[0])
