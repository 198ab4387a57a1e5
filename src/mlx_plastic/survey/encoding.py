"""Tensors that belong together: a weight and the scales that it is decoded with, and how.

Known are MLX's quantized triples, fp8 (alone, or with scales by block), the blocks of gpt-oss, and 4-bit
integers packed into int32 with one scale a group (compressed-tensors). Decoded is what mlx-lm computes with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.survey.inventory import Tensor
from mlx_plastic.survey.plain import E2M1_STEPS, to_bf16, widened

Array = NDArray[Any]
Kind = Literal["plain", "mlx", "fp8", "fp8_block", "mx_blocks", "int4"]

FLOATS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float32"}
RAW = {"F64": "<f8", "F32": "<f4", "F16": "<u2", "BF16": "<u2", "U32": "<u4", "I32": "<i4", "I64": "<i8"}
FP8 = ("F8_E4M3", "F8_E5M2")
BLOCK = 128  # of fp8 checkpoints, along both sides
COMPANIONS = (".scales", ".biases", ".global_scale", "_scale_inv", ".scale", "_scale", "_shape", "_scale_2")


@dataclass(frozen=True)
class Weight:
    """A weight as the model knows it. name: without the ending of a packed form. shape: unpacked."""

    name: str
    tensor: Tensor
    kind: Kind
    shape: tuple[int, ...]
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    bits: int = 0
    group_size: int = 0
    mode: str = ""

    @property
    def dtype(self) -> str:
        """As told in the tables: BF16, or "U32 affine q4 g64"."""
        return (
            f"{self.tensor.dtype} {self.mode} q{self.bits} g{self.group_size}"
            if self.bits
            else self.tensor.dtype
        )

    @property
    def scale_type(self) -> str:
        """The float type that this weight is, or its scales are, kept in."""
        if self.kind == "mlx" and self.mode == "affine":
            return FLOATS.get(self.parts["scales"].dtype, "bfloat16")
        return FLOATS.get(self.tensor.dtype, "bfloat16")


class Unreadable(Exception):
    """This tensor is no weight that can be decoded here; the text says why."""


def gather(name: str, tensors: Mapping[str, Tensor], model_config: Mapping[str, Any]) -> Weight:
    """The weight that the tensor `name` begins. Raises Unreadable."""
    tensor = tensors[name]
    stem = name.removesuffix(".weight")
    if name.endswith("_blocks") and (scales := tensors.get(name.replace("_blocks", "_scales"))):
        shape = (*tensor.shape[:-2], tensor.shape[-2] * tensor.shape[-1] * 2)
        return Weight(
            f"{name.removesuffix('_blocks')}.weight",
            tensor,
            "mx_blocks",
            shape,
            {"scales": scales},
            4,
            32,
            "mxfp4",
        )
    if name.endswith(".weight_packed") and (scales := tensors.get(name.replace("_packed", "_scale"))):
        if tensor.dtype != "I32":
            raise Unreadable(f"packed as {tensor.dtype}, not as I32")
        width = tensor.shape[-1] * 8
        group = width // scales.shape[-1]
        return Weight(
            stem.removesuffix("_packed"),
            tensor,
            "int4",
            (*tensor.shape[:-1], width),
            {"scales": scales},
            4,
            group,
            "int4",
        )
    if tensor.dtype == "U32" and f"{stem}.scales" in tensors:
        return _mlx(name, stem, tensors, model_config)
    for suffix in ("_scale_inv", ".scale"):
        scale = tensors.get(name + suffix if suffix[0] == "_" else stem + suffix)
        if scale is not None and tensor.dtype in FP8:
            return Weight(name, tensor, "fp8_block", tensor.shape, {"scales": scale})
        if scale is not None:
            raise Unreadable(f"{tensor.dtype} with scales in {scale.dtype} is of no known form")
    if tensor.dtype in FLOATS:
        return Weight(name, tensor, "plain", tensor.shape)
    if tensor.dtype == "F8_E4M3" or tensor.dtype == "F8_E5M2":
        return Weight(name, tensor, "fp8", tensor.shape)
    raise Unreadable(f"dtype {tensor.dtype} cannot be read as weights")


def _mlx(name: str, stem: str, tensors: Mapping[str, Tensor], model_config: Mapping[str, Any]) -> Weight:
    tensor, parts = tensors[name], {"scales": tensors[f"{stem}.scales"]}
    parts |= {
        part: tensors[f"{stem}.{part}"] for part in ("biases", "global_scale") if f"{stem}.{part}" in tensors
    }
    settings = quantization(model_config, stem)
    mode = settings.get("mode", "affine" if "biases" in parts else "")
    packed, groups = tensor.shape[-1], parts["scales"].shape[-1]
    bits, group_size = settings.get("bits"), settings.get("group_size")
    if type(bits) is not int or type(group_size) is not int:
        raise Unreadable("quantized, but config.json tells no bits and group size")
    if packed * 32 != groups * group_size * bits or mode not in ("affine", "mxfp4", "mxfp8", "nvfp4"):
        raise Unreadable(
            f"{packed} words and {groups} scales a row are not {mode} {bits}-bit groups of {group_size}"
        )
    if "global_scale" in parts:
        raise Unreadable("nvfp4 with a global scale is of no form that is decoded here")
    shape = (*tensor.shape[:-1], groups * group_size)
    return Weight(name, tensor, "mlx", shape, parts, bits, group_size, mode)


def quantization(model_config: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """What config.json says of the module at `path`: its own entry, or what holds for all."""
    found = model_config.get("quantization") or model_config.get("quantization_config") or {}
    own = found.get(path) if isinstance(found, dict) else None
    return own if isinstance(own, dict) else found if isinstance(found, dict) else {}


def is_companion(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the tensor only helps to decode another, and is no weight of its own."""
    for ending in COMPANIONS:
        if name.endswith(ending):
            stem = name[: -len(ending)]
            return any(f"{stem}{whole}" in tensors for whole in ("", ".weight", "_packed", "_blocks"))
    return name.endswith("_scales") and name.replace("_scales", "_blocks") in tensors


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
        scales = np.ldexp(np.float32(1), parts["scales"].astype(np.int32) - 127)
        return to_bf16((FP4_VALUES[codes] * scales[..., None]).reshape(*main.shape[:-2], -1)), "bfloat16"
    if weight.kind == "int4":
        codes = unpack(main.view(np.uint32), 4).astype(np.float32) - 8
        return _grouped(codes, _wide(parts["scales"], weight.parts["scales"].dtype), None), "float32"
    return _decode_mlx(weight, main, parts)


def _decode_mlx(weight: Weight, main: Array, parts: Mapping[str, Array]) -> tuple[Array, str]:
    codes = unpack(main, weight.bits)
    if weight.mode == "affine":
        kind = weight.parts["scales"].dtype
        found = _grouped(codes.astype(np.float32), _wide(parts["scales"], kind), _wide(parts["biases"], kind))
        return found, "float32"
    values = FP8_VALUES["F8_E4M3"][codes] if weight.bits == 8 else FP4_VALUES[codes]
    raw = parts["scales"]
    nvfp4 = weight.mode == "nvfp4"
    scales = FP8_VALUES["F8_E4M3"][raw] if nvfp4 else np.ldexp(np.float32(1), raw.astype(np.int32) - 127)
    return to_bf16(_grouped(values, scales, None)), "bfloat16"


def _grouped(values: Array, scales: Array, biases: Array | None) -> Array:
    by_group = values.reshape(*scales.shape, -1) * scales[..., None]
    return (by_group if biases is None else by_group + biases[..., None]).reshape(values.shape)


def _wide(raw: Array, dtype: str) -> Array:
    return widened(raw, FLOATS[dtype]).astype(np.float32)


def _spread(scales: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    """Scales of blocks (or of the whole, or of each expert) over all values."""
    if dtype in FLOATS:
        scales = _wide(scales, dtype)
    else:
        scales = np.ldexp(np.float32(1), scales.astype(np.int32) - 127)
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
