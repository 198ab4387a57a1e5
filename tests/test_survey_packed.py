"""Weights as their publishers pack them: decoded as mlx-lm's own `sanitize` and `mx.dequantize` do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten

from families import HUB, mixture, save
from mlx_plastic.backend import mx
from test_survey_rules import experts, surveyed, write_safetensors

Raw = dict[str, tuple[str, np.ndarray]]  # name -> dtype of the file, and bytes of each value
SIZES = {"moe_intermediate_size": 32, "intermediate_size": 32}  # of whole groups


def compressed_mxfp4(name: str, w: mx.array) -> Raw:
    codes, scales = mx.quantize(w, mode="mxfp4")
    return {
        f"{name}_packed": ("U8", np.array(codes.view(mx.uint8))),
        f"{name}_scale": ("U8", np.array(scales)),
    }


def compressed_int4(name: str, w: mx.array) -> Raw:
    """Signed, one scale for 32 values; kept as 0 to 15, eight a word, the first lowest."""
    groups = np.array(w).reshape(*w.shape[:-1], -1, 32)
    scales = mx.array(np.abs(groups).max(-1) / 7).astype(mx.bfloat16)
    steps = groups / np.array(scales.astype(mx.float32))[..., None]
    codes = (np.clip(np.rint(steps), -8, 7) + 8).astype(np.uint32).reshape(*w.shape[:-1], -1, 8)
    words = (codes << np.arange(0, 32, 4, dtype=np.uint32)).sum(-1, dtype=np.uint32)
    return {
        f"{name}_packed": ("I32", words.view(np.int32)),
        f"{name}_scale": ("BF16", np.array(scales.view(mx.uint16))),
        f"{name}_shape": ("I32", np.array(w.shape, np.int32)),
    }


def mxfp8(name: str, w: mx.array) -> Raw:
    codes, scales = mx.quantize(w, mode="mxfp8")
    return {name: ("F8_E4M3", np.array(codes.view(mx.uint8))), f"{name}_scale_inv": ("U8", np.array(scales))}


def deepseek_fp4(name: str, w: mx.array) -> Raw:
    codes, scales = mx.quantize(w, mode="mxfp4")
    scale = name.replace(".weight", ".scale")
    return {name: ("I8", np.array(codes.view(mx.int8))), scale: ("F8_E8M0", np.array(scales))}


def modelopt_nvfp4(name: str, w: mx.array) -> Raw:
    """A scale for 16 values, and one for each expert, where gate and up are fused for each of the two."""
    halves = mx.split(w, 2, 1) if name.endswith("gate_up_proj") else [w]
    tops = mx.stack([mx.abs(half).max((1, 2)) for half in halves], 1)
    parts = [
        [mx.quantize(half[e], mode="nvfp4", global_scale=tops[e, i]) for e in range(len(half))]
        for i, half in enumerate(halves)
    ]
    codes, scales = (mx.concatenate([mx.stack([p[k] for p in of]) for of in parts], 1) for k in (0, 1))
    over = np.array(tops if len(halves) == 2 else tops[:, 0]) / np.float32(6 * 448)
    return {
        name: ("U8", np.array(codes.view(mx.uint8))),
        f"{name}_weight_scale": ("F8_E4M3", np.array(scales)),
        f"{name}_weight_scale_2": ("F32", over),
        f"{name}_input_scale": ("F32", np.ones(len(w), np.float32)),
    }


# how the experts of a family are published, and what mlx-lm makes of that
PUBLISHED: dict[str, tuple[Callable[[str, mx.array], Raw], dict[str, Any]]] = {
    "kimi_k25": (compressed_int4, {"group_size": 32, "bits": 4, "mode": "affine"}),
    "kimi_k3": (compressed_mxfp4, {"group_size": 32, "bits": 4, "mode": "mxfp4"}),
    "minimax_m3_vl": (mxfp8, {"group_size": 32, "bits": 8, "mode": "mxfp8"}),
    "deepseek_v41": (deepseek_fp4, {"group_size": 32, "bits": 4, "mode": "mxfp4"}),
    "muse_spark": (modelopt_nvfp4, {"group_size": 16, "bits": 4, "mode": "nvfp4"}),
}
MLX_TYPES = {"BF16": mx.bfloat16, "F32": mx.float32, "I32": mx.int32, "I8": mx.int8}


def loaded(raw: Raw) -> dict[str, mx.array]:
    """As mx.load gives them: of dtypes that MLX lacks the bytes."""
    return {name: mx.array(w).view(MLX_TYPES.get(dtype, mx.uint8)) for name, (dtype, w) in raw.items()}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_experts_are_decoded_from_the_form_they_are_published_in(tmp_path: Path, name: str) -> None:
    model, (pack, settings) = mixture(name, SIZES), PUBLISHED[name]
    raw: Raw = {}
    for key, w in HUB[name](dict(tree_flatten(model.parameters()))).items():
        whole = key.endswith(("experts.gate_up_proj", "experts.down_proj"))
        expert = whole or (".experts." in key and key.endswith(".weight") and "norm" not in key)
        raw |= pack(key, w) if expert else {key: ("F32", np.array(w.astype(mx.float32)))}
    (tmp_path / "hub").mkdir()
    write_safetensors(tmp_path / "hub" / "model.safetensors", raw)
    theirs, found = surveyed(tmp_path / "hub")
    back = model.sanitize(loaded(raw))
    config = {"model_type": name, "quantization": settings}
    ours, _ = surveyed(save(tmp_path / "mlx", back, config))
    assert experts(theirs).keys() == experts(ours).keys() and len(experts(ours)) == 24
    assert not [row["tensor_name"] for row in found.unmatched if "expert" in row["tensor_name"]]
    for key, scales in back.items():
        if key.endswith(".scales"):
            exact = decoded(back, key.removesuffix(".scales"), settings)
            where = int(key.split("layers.")[1].split(".")[0]), key.split(".")[-2]
            for e, w in enumerate(exact):
                for matrices in (theirs, ours):
                    # float32: MLX multiplies by the two scales of nvfp4 in another order
                    np.testing.assert_allclose(matrices[where[0], "experts", where[1], e], w, rtol=2e-7)
            assert scales.shape[0] == len(exact) == 4
    spoilt = dict(raw)
    key = next(key for key in raw if "scale" in key and "input" not in key)
    spoilt[key] = (raw[key][0], np.roll(raw[key][1], 1, -1) if raw[key][1].ndim > 2 else raw[key][1] ^ 1)
    write_safetensors(tmp_path / "hub" / "model.safetensors", spoilt)
    assert any((w != theirs[of]).any() for of, w in experts(surveyed(tmp_path / "hub")[0]).items())  # control


def decoded(tensors: dict[str, mx.array], path: str, settings: dict[str, Any]) -> np.ndarray:
    parts = {part: tensors.get(f"{path}.{part}") for part in ("weight", "scales", "biases", "global_scale")}
    wide = {
        k: v.astype(mx.float32) if v is not None and v.dtype == mx.bfloat16 else v for k, v in parts.items()
    }
    over = wide["global_scale"]
    each = [
        mx.dequantize(
            wide["weight"][e],
            wide["scales"][e],
            None if wide["biases"] is None else wide["biases"][e],
            **settings,
            **({} if over is None else {"global_scale": over[e]}),
            dtype=mx.float32,
        )
        for e in range(wide["weight"].shape[0])
    ]
    return np.array(mx.stack(each))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (3, 1, 1), (3, 8, 1)])
def test_fp8_of_a_stack_is_scaled_as_a_whole_by_expert_or_by_row(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    codes = mx.to_fp8(mx.array(rng.standard_normal((3, 8, 16)).astype(np.float32)))
    scales = rng.uniform(0.5, 2, shape).astype(np.float32)
    name = "model.layers.0.mlp.switch_mlp.up_proj.weight"
    write_safetensors(
        tmp_path / "model.safetensors",
        {name: ("F8_E4M3", np.array(codes)), f"{name}_scale": ("F32", scales)},
    )
    matrices, _ = surveyed(tmp_path)
    by_expert = scales.reshape(scales.shape + (1,) * (3 - scales.ndim)) if shape != (1,) else scales
    exact = np.array(mx.from_fp8(codes, mx.float32)) * by_expert
    for e in range(3):
        rounded = np.array(mx.array(exact[e]).astype(mx.bfloat16).astype(mx.float32))
        np.testing.assert_array_equal(matrices[0, "experts", "up_proj", e], rounded)


def test_bytes_with_scales_of_another_size_are_not_read(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.experts.0.up_proj.weight"
    write_safetensors(
        tmp_path / "model.safetensors",
        {name: ("U8", np.zeros((8, 16), np.uint8)), f"{name}_scale": ("U8", np.zeros((8, 3), np.uint8))},
    )
    matrices, found = surveyed(tmp_path)
    assert matrices == {}
    assert [row["reason"] for row in found.unmatched] == ["U8 with scales in U8 is of no known form"]


def test_of_forms_that_are_not_read_only_the_weights_are_unmatched(tmp_path: Path) -> None:
    """AWQ's: neither the scales nor the zeros are matrices of the model."""
    name = "model.layers.0.mlp.up_proj"
    write_safetensors(
        tmp_path / "model.safetensors",
        {
            f"{name}.qweight": ("I32", np.zeros((64, 8), np.int32)),
            f"{name}.qzeros": ("I32", np.zeros((2, 8), np.int32)),
            f"{name}.scales": ("F16", np.ones((2, 64), np.float16)),
        },
    )
    matrices, found = surveyed(tmp_path)
    assert matrices == {}
    assert {row["tensor_name"]: row["reason"] for row in found.unmatched} == {
        f"{name}.{of}": "dtype I32 cannot be read as weights" for of in ("qweight", "qzeros")
    }
