"""How a matrix may be stored, what that takes, and the nearest matrix that a scheme can hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mlx_plastic.backend import mx
from mlx_plastic.lowrank.svd import Array
from mlx_plastic.survey.decoding import unpack
from mlx_plastic.survey.schemes import AFFINE_BITS, AFFINE_GROUPS, FIXED, Mode

Dtype = Literal["float16", "bfloat16"]

WHOLE = 16  # bits of a matrix that is not quantized
PAIR_BYTES = 4  # scale and bias of an affine group, 16 bits each


@dataclass(frozen=True, order=True)
class Scheme:
    """affine.

    integers of so many bits, a 16-bit scale and bias for each group of a row. 16 bits: as it is.
    """

    bits: int
    group_size: int = 0
    mode: Mode = "affine"

    @property
    def name(self) -> str:
        if self.bits == WHOLE:
            return "whole"
        return f"q{self.bits}g{self.group_size}" if self.mode == "affine" else self.mode

    @property
    def is_whole(self) -> bool:
        return self.bits == WHOLE

    def fits(self, width: int) -> bool:
        """Whether rows of that width can be cut into whole groups."""
        return self.is_whole or width % self.group_size == 0

    def nbytes(self, shape: Sequence[int]) -> int:
        """Of a weight (..., out, in) as it is stored, its scales and biases with it."""
        numbers = math.prod(shape)
        if self.is_whole:
            return 2 * numbers
        each = PAIR_BYTES if self.mode == "affine" else 1
        return numbers * self.bits // 8 + each * numbers // self.group_size

    def as_config(self) -> dict[str, Any]:
        """For config["quantization"]."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}


KEPT = Scheme(WHOLE)
FLOATING = [Scheme(bits, group, mode) for mode, (bits, group) in FIXED.items()]


def schemes_for(width: int, *, floor: int = 2, floating: bool = False) -> list[Scheme]:
    """Every scheme that rows of this width can have, smallest first, the whole matrix last.

    floor: the fewest bits. floating: mxfp4, mxfp8 and nvfp4 too. A width that no group divides has one only.
    """
    found = [Scheme(bits, group) for bits in AFFINE_BITS if bits >= floor for group in AFFINE_GROUPS]
    if floating:
        found += [s for s in FLOATING if s.bits >= floor]
    fitting = [scheme for scheme in found if scheme.fits(width)]
    return [*sorted(fitting, key=lambda s: s.nbytes((1, width))), KEPT]


def rounded(w: Array, dtype: Dtype) -> Array:
    """w as 16 bits hold it, in float32."""
    return np.array(mx.array(w).astype(getattr(mx, dtype)).astype(mx.float32))


@dataclass(frozen=True)
class Coded:
    """A matrix in codes.

    codes: (out, in) integers; scales, biases: (out, in / group_size), exact in 16 bits.
    """

    codes: Array
    scales: Array
    biases: Array
    group_size: int

    def decoded(self) -> Array:
        """(out, in) float32: scale * code + bias."""
        grouped = self.codes.reshape(*self.scales.shape, -1).astype(np.float32)
        grouped *= self.scales[..., None]
        grouped += self.biases[..., None]
        return grouped.reshape(self.codes.shape)


def nearest(w: Array, scheme: Scheme, dtype: Dtype) -> Array:
    """w (..., out, in) as MLX's own rounding leaves it, in float32: what stock mlx-lm would store."""
    if scheme.is_whole:
        return rounded(w, dtype)
    how: dict[str, Any] = scheme.as_config()
    packed, scales, *rest = mx.quantize(mx.array(w).astype(getattr(mx, dtype)), **how)
    biases = rest[0].astype(mx.float32) if rest else None
    scales = scales.astype(mx.float32) if rest else scales
    return np.array(mx.dequantize(packed, scales, biases, **how, dtype=mx.float32))


def pack(codes: Array, bits: int) -> Array:
    """Codes (..., in) as MLX packs them: uint32 (..., in * bits / 32), the first code in the lowest bits."""
    width = codes.shape[-1]
    lanes = np.arange(bits, dtype=np.uint8)
    spread = ((codes[..., None].astype(np.uint8) >> lanes) & 1).reshape(*codes.shape[:-1], width * bits)
    packed = np.packbits(spread, axis=-1, bitorder="little")
    return np.ascontiguousarray(packed).view("<u4")


def decode(weight: mx.array, scales: mx.array, biases: mx.array | None, scheme: Scheme) -> Array:
    """(..., out, in) float32 of what is stored.

    Affine codes are decoded by numpy, the same on every device.
    """
    if biases is None:
        how: dict[str, Any] = scheme.as_config()
        return np.array(mx.dequantize(weight, scales, None, **how, dtype=mx.float32))
    s, b = (np.array(x.astype(mx.float32)) for x in (scales, biases))
    return Coded(unpack(np.array(weight), scheme.bits), s, b, scheme.group_size).decoded()
