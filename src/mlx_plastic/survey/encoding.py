"""Tensors that belong together: a weight and the scales that it is decoded with, and how.

Known are MLX's quantized triples, fp8 (alone, or with scales by block), the blocks of gpt-oss, 4-bit floats
with scales beside them, and 4-bit integers packed into int32 with one scale a group (compressed-tensors).
`decoding.py` makes of them what mlx-lm computes with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mlx_plastic.survey.inventory import Tensor

Kind = Literal["plain", "mlx", "fp8", "fp8_block", "mx_blocks", "fp4", "int4"]

FLOATS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float32"}
FP8 = ("F8_E4M3", "F8_E5M2")
BYTES = ("U8", "I8")  # two 4-bit floats each
EXPONENTS = ("U8", "F8_E8M0")  # of scales that are powers of two
COMPANIONS = (
    *(".scales", ".biases", ".global_scale", "_scale_inv", ".scale", "_scale", "_shape", "_scale_2"),
    *("_weight_scale", "_weight_scale_2", ".input_scale", "_input_scale"),
)
WHOLE = ("", ".weight", "_packed", "_blocks", ".qweight")  # endings of what they help to decode


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
    if tensor.dtype in BYTES and (found := _fp4(name, tensor, tensors)):
        return found
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
    for suffix in ("_scale_inv", ".scale", "_scale"):
        scale = tensors.get(name + suffix if suffix[0] == "_" else stem + suffix)
        if scale is not None and tensor.dtype in FP8:
            return Weight(name, tensor, "fp8_block", tensor.shape, {"scales": scale})
        if scale is not None:
            raise Unreadable(f"{tensor.dtype} with scales in {scale.dtype} is of no known form")
    if tensor.dtype in FLOATS:
        return Weight(name, tensor, "plain", tensor.shape)
    if tensor.dtype in FP8:
        return Weight(name, tensor, "fp8", tensor.shape)
    raise Unreadable(f"dtype {tensor.dtype} cannot be read as weights")


def _fp4(name: str, tensor: Tensor, tensors: Mapping[str, Tensor]) -> Weight | None:
    """mxfp4 as compressed-tensors and DeepSeek keep it, nvfp4 as ModelOpt does."""
    stem = name.removesuffix(".weight").removesuffix(".weight_packed")
    beside = f"{stem}.weight_scale", f"{stem}.scale", f"{name}_weight_scale"
    scales = next((tensors[scale] for scale in beside if scale in tensors), None)
    if scales is None or scales.shape[:-1] != tensor.shape[:-1]:
        return None
    shape = (*tensor.shape[:-1], tensor.shape[-1] * 2)
    own = f"{stem}.weight" if name.endswith("_packed") else name
    if scales.dtype in EXPONENTS and scales.shape[-1] * 32 == shape[-1]:
        return Weight(own, tensor, "fp4", shape, {"scales": scales}, 4, 32, "mxfp4")
    if scales.dtype == "F8_E4M3" and scales.shape[-1] * 16 == shape[-1] and not name.endswith("_packed"):
        over = tensors.get(f"{scales.name}_2")
        parts = {"scales": scales} | ({"global": over} if over else {})
        return Weight(own, tensor, "fp4", shape, parts, 4, 16, "nvfp4")
    return None


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
    if "global_scale" in parts and mode != "nvfp4":
        raise Unreadable(f"{mode} with a global scale is of no known form")
    shape = (*tensor.shape[:-1], groups * group_size)
    return Weight(name, tensor, "mlx", shape, parts, bits, group_size, mode)


def quantization(model_config: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """What config.json says of the module at `path`: its own entry, or what holds for all."""
    found = model_config.get("quantization") or model_config.get("quantization_config") or {}
    own = found.get(path) if isinstance(found, dict) else None
    return own if isinstance(own, dict) else found if isinstance(found, dict) else {}


def is_companion(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the tensor only helps to decode another, and is no weight of its own."""
    for ending in (e for e in COMPANIONS if name.endswith(e)):
        stem = name[: -len(ending)]
        if any(f"{stem}{whole}" in tensors for whole in WHOLE):
            return True
    return name.endswith("_scales") and name.replace("_scales", "_blocks") in tensors
