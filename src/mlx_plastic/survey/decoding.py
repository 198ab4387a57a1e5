"""Values from what lies in the files: one matrix, or a stack of them, as the kernel takes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.survey.encoding import FLOATS, Weight
from mlx_plastic.survey.plain import E2M1_STEPS, to_bf16, widened

Array = NDArray[Any]

RAW = {"F64": "<f8", "F32": "<f4", "F16": "<u2", "BF16": "<u2", "U32": "<u4", "I32": "<i4", "I64": "<i8"}
BLOCK = 128  # of fp8 checkpoints, along both sides
GLOBAL = 6.0 * 448.0  # MLX keeps the global scale of nvfp4 times the largest of both formats


def as_array(raw: Any, dtype: str, shape: tuple[int, ...]) -> Array:
    return np.frombuffer(raw, RAW.get(dtype, "u1")).reshape(shape)


def decode(weight: Weight, main: Array, parts: Mapping[str, Array]) -> tuple[Array, str]:
    """One matrix (rows, cols), or a stack of them, as the kernel takes it: (codes or float32, its type).

    main, parts: as they lie in the files, cut to the same leading axes.
    """
    dtype = weight.tensor.dtype
    if weight.kind == "plain":
        return (
            (main.astype(np.float32, copy=False), "float32")
            if dtype in ("F64", "F32")
            else (main, FLOATS[dtype])
        )
    if weight.kind == "fp8":
        return to_bf16(FP8_VALUES[dtype])[main], "bfloat16"
    if weight.kind == "fp8_block":
        return to_bf16(
            FP8_VALUES[dtype][main] * _spread(parts["scales"], weight.parts["scales"].dtype, main.shape)
        ), "bfloat16"
    if weight.kind == "mx_blocks":
        codes = np.stack([main & 15, main >> 4], -1).reshape(*main.shape[:-1], -1)  # low nibble first
        scales = _exponents(parts["scales"])
        return to_bf16((FP4_VALUES[codes] * scales[..., None]).reshape(*main.shape[:-2], -1)), "bfloat16"
    if weight.kind == "int4":
        codes = unpack(main.view(np.uint32), 4).astype(np.float32) - 8
        return _grouped(codes, _wide(parts["scales"], weight.parts["scales"].dtype), None), "float32"
    if weight.kind == "fp4":
        return _decode_fp4(weight, main, parts)
    return _decode_mlx(weight, main, parts)


def _decode_fp4(weight: Weight, main: Array, parts: Mapping[str, Array]) -> tuple[Array, str]:
    """4-bit floats, two a byte, the low one first, with a scale a group, and perhaps one over all groups."""
    main = main.view(np.uint8)
    codes = np.stack([main & 15, main >> 4], -1).reshape(*main.shape[:-1], -1)
    if weight.mode == "mxfp4":
        return to_bf16(_grouped(FP4_VALUES[codes], _exponents(parts["scales"]), None)), "bfloat16"
    scales = FP8_VALUES["F8_E4M3"][parts["scales"]]
    if "global" in parts:
        scales = scales * _over_rows(parts["global"], scales.shape)
    return _grouped(FP4_VALUES[codes], scales, None), "float32"


def _over_rows(given: Array, shape: tuple[int, ...]) -> Array:
    """A number for all, for each expert, or for each of the parts that are fused along the rows."""
    if given.size == 1:
        return given.reshape(())
    parts = given.reshape(*shape[:-2], -1)
    return np.repeat(parts, shape[-2] // parts.shape[-1], -1)[..., None]


def _exponents(raw: Array) -> Array:
    return np.ldexp(np.float32(1), raw.astype(np.int32) - 127)


def _decode_mlx(weight: Weight, main: Array, parts: Mapping[str, Array]) -> tuple[Array, str]:
    codes = unpack(main, weight.bits)
    if weight.mode == "affine":
        kind = weight.parts["scales"].dtype
        found = _grouped(codes.astype(np.float32), _wide(parts["scales"], kind), _wide(parts["biases"], kind))
        return found, "float32"
    values = FP8_VALUES["F8_E4M3"][codes] if weight.bits == 8 else FP4_VALUES[codes]
    raw = parts["scales"]
    scales = FP8_VALUES["F8_E4M3"][raw] if weight.mode == "nvfp4" else _exponents(raw)
    if "global_scale" in parts:
        scales = scales * _over_rows(parts["global_scale"] / np.float32(GLOBAL), scales.shape)
        return _grouped(values, scales, None), "float32"
    return to_bf16(_grouped(values, scales, None)), "bfloat16"


def _grouped(values: Array, scales: Array, biases: Array | None) -> Array:
    by_group = values.reshape(*scales.shape, -1) * scales[..., None]
    return (by_group if biases is None else by_group + biases[..., None]).reshape(values.shape)


def _wide(raw: Array, dtype: str) -> Array:
    return widened(raw, FLOATS[dtype]).astype(np.float32)


def _spread(scales: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    """Scales of blocks (or of the whole, or of each expert) over all values."""
    scales = _wide(scales, dtype) if dtype in FLOATS else _exponents(scales)
    if scales.ndim < 2 or scales.shape[-2:] == (1, 1):
        return (
            scales.reshape(scales.shape + (1,) * (len(shape) - scales.ndim))
            if scales.ndim < len(shape)
            else scales
        )
    for axis, side in ((-2, shape[-2]), (-1, shape[-1])):
        count = scales.shape[axis]
        block = BLOCK if count == math.ceil(side / BLOCK) else math.ceil(side / count)
        scales = np.take(np.repeat(scales, block, axis), range(side), axis)
    return scales


def unpack(words: Array, bits: int) -> Array:
    """uint32 words (..., n) -> codes (..., 32 n / bits), lowest bits first, as mx.quantize packs them."""
    if bits in (2, 4, 8):
        shifts = np.arange(0, 32, bits, dtype=np.uint32)
        return (
            (words[..., None] >> shifts & np.uint32((1 << bits) - 1))
            .reshape(*words.shape[:-1], -1)
            .astype(np.uint8)
        )
    stream = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
    return np.packbits(stream.reshape(*words.shape[:-1], -1, bits), axis=-1, bitorder="little")[..., 0]


def _fp8_values(exponent_bits: int, bias: int, nan_from: int) -> Array:
    codes = np.arange(128)
    mantissa_bits = 7 - exponent_bits
    exponent, mantissa = codes >> mantissa_bits, codes & ((1 << mantissa_bits) - 1)
    normal = np.ldexp(1 + mantissa / (1 << mantissa_bits), exponent - bias)
    small = np.ldexp(mantissa / (1 << mantissa_bits), 1 - bias)
    values = np.where(exponent == 0, small, normal)
    values[codes >= nan_from] = np.nan
    if exponent_bits == 5:
        values[0x7C] = np.inf
    return np.concatenate([values, -values]).astype(np.float32)


FP8_VALUES = {"F8_E4M3": _fp8_values(4, 7, 0x7F), "F8_E5M2": _fp8_values(5, 15, 0x7C)}
FP4_VALUES = np.concatenate([E2M1_STEPS, -E2M1_STEPS])
