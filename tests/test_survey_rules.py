"""What a tensor is: by the built-in rules, in every family that mlx-lm loads, and by a config's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten

from families import (
    DENSE_HUB,
    HUB,
    PACKED,
    architectures,
    build,
    linear_parameters,
    mixture,
    save,
    tiny_models,
)
from mlx_plastic.backend import mx, nn
from mlx_plastic.errors import BadConfig
from mlx_plastic.survey.config import Parsing, Scan
from mlx_plastic.survey.families import FURTHER, place
from mlx_plastic.survey.inventory import Inventory, Tensor, take_inventory
from mlx_plastic.survey.places import PackedSplitError, Place
from mlx_plastic.survey.plain import widened
from mlx_plastic.survey.rules import make_placer
from mlx_plastic.survey.slabs import Found, Room, find_slabs, read_slab
from mlx_plastic.survey.source import open_source

Matrices = dict[Any, np.ndarray]


def surveyed(
    folder: Path,
    rules: list[dict[str, Any]] | None = None,
    *,
    strict: bool = True,
    parsing: Parsing | None = None,
) -> tuple[Matrices, Found]:
    """Every matrix by (layer, kind, proj, expert), values in float32."""
    source = open_source(str(folder))
    inventory = take_inventory(source, Scan())
    placer = make_placer(rules or [], parsing or Parsing(), inventory.model_config)
    found = find_slabs(inventory, placer, experts_only=False, shared=True, strict=strict)
    matrices: Matrices = {}
    for slab in (slab for slabs in found.slabs.values() for slab in slabs):
        values, dtype = read_slab(source, slab, Room())
        for cut in slab.cuts:
            row = slab.identity(cut)
            key = (row["layer"], row["kind"], row["proj"], row["expert_id"])
            key = key if row["kind"] == "experts" else row["derived_tensor"]
            assert key not in matrices
            matrices[key] = widened(np.ascontiguousarray(values[cut.window]), dtype)
            assert matrices[key].shape == (row["rows"], row["cols"])
    found.warnings += placer.unused([t.name for t in inventory.tensors])
    return matrices, found


def experts(matrices: Matrices) -> Matrices:
    return {key: w for key, w in matrices.items() if isinstance(key, tuple)}


@pytest.mark.parametrize("name", sorted(HUB))
def test_a_family_has_the_same_experts_in_both_layouts(tmp_path: Path, name: str) -> None:
    model = mixture(name)
    stacked = {
        path: module.weight
        for path, module in model.named_modules()
        if type(module).__name__ == "SwitchLinear" and "self_attn" not in path  # which is in groups
    }
    params = dict(tree_flatten(model.parameters()))
    config = {"model_type": name, "ffn_config": {"moe_num_experts": 4}}
    mine, _ = surveyed(save(tmp_path / "mlx", params, config))
    count = sum(w.shape[0] for w in stacked.values()) or sum(".experts." in key for key in params)
    assert len(experts(mine)) == count >= 8
    hub = HUB[name](params)
    if name == "gpt_oss":  # its experts are packed, which loses something
        back = {
            k: v
            for k, v in model.sanitize(dict(hub)).items()
            if k.endswith("_proj.weight") and "experts" in k
        }
        for key, codes in back.items():
            scales = hub_scales(model.sanitize(dict(hub)), key)
            params[key] = mx.dequantize(codes, scales, mode="mxfp4", dtype=mx.float32)
        mine, _ = surveyed(save(tmp_path / "mlx", params, config))
    else:
        back = model.sanitize(dict(hub))
        assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in params.items()}
        matrices = [key for key in params if ("expert" in key or "mlp" in key) and "norm" not in key]
        assert all(mx.array_equal(back[key], params[key]) for key in matrices)
    theirs, found = surveyed(save(tmp_path / "hub", hub, config))
    assert found.warnings == []
    assert experts(mine).keys() == experts(theirs).keys()
    for key, w in experts(mine).items():
        np.testing.assert_array_equal(w, theirs[key], err_msg=str(key))


def hub_scales(tensors: dict[str, mx.array], key: str) -> mx.array:
    return tensors[key.replace(".weight", ".scales")]


def places(tensors: dict[str, mx.array], config: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What each matrix of these tensors is, in order; of the tensors alone, nothing is read."""
    by_name = {
        name: Tensor("model", name, DTYPES.get(w.dtype, "U8"), tuple(w.shape), w.nbytes, 0, w.nbytes)
        for name, w in tensors.items()
    }
    inventory = Inventory(list(by_name.values()), by_name, config, {"model": 1})
    found = find_slabs(
        inventory, make_placer([], Parsing(), config), experts_only=False, shared=True, strict=True
    )
    rows = [slab.identity(cut) for slab in found.slabs["model"] for cut in slab.cuts]
    return sorted(
        (r["kind"], r["proj"], r["layer"] or 0, r["expert_id"] or 0, r["rows"], r["cols"]) for r in rows
    )


def settings_of(model: Any) -> dict[str, Any]:
    """The model's config.json."""
    given = next(
        of for name in ("args", "config") if dataclasses.is_dataclass(of := getattr(model, name, None))
    )
    return dataclasses.asdict(given)


FUSED = {"kimi_k3", "muse_spark"}  # by mlx-lm: q, k and v, which stand apart on the hub
DTYPES = {mx.float32: "F32", mx.bfloat16: "BF16", mx.float16: "F16", mx.uint32: "U32"}
QUANTIZED = {"group_size": 32, "bits": 4, "mode": "affine"}


def test_every_family_has_the_same_matrices_in_each_layout() -> None:
    """As MLX writes it, as it lies on the hub (which the model's own `sanitize` confirms), and quantized."""
    dense, quantized = 0, 0
    for name, mixed, model in tiny_models():
        params, config = dict(tree_flatten(model.parameters())), settings_of(model) | {"model_type": name}
        found = places(params, config)
        if mixed and name not in FUSED:
            assert places(HUB[name](params), config) == found, name
        if not mixed:
            hub = DENSE_HUB.get(name, dict)(params)
            back = model.sanitize(dict(hub)) if hasattr(model, "sanitize") else hub
            assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in params.items()}, name
            assert places(hub, config) == found, name
            assert (name in DENSE_HUB) == (hub.keys() != params.keys()), name
            dense += 1
        nn.quantize(model, **QUANTIZED, class_predicate=fits)
        packed = dict(tree_flatten(model.parameters()))
        assert places(packed, config | {"quantization": QUANTIZED}) == found, name
        quantized += packed.keys() != params.keys()
    assert dense >= 70 and quantized >= 120


def test_a_pack_that_is_made_quantized_is_decoded_where_it_is_and_has_the_places_of_its_model(
    tmp_path: Path,
) -> None:
    """Prism's: some layers hold 2 bits of a rotated weight, all others are as in Qwen3.5."""
    model, plain = build(PACKED), build("qwen3_5")
    rng, params = np.random.default_rng(0), dict(tree_flatten(model.parameters()))
    packed = [key.removesuffix(".scales") for key in params if key.endswith(".scales")]
    for path in packed:
        w = mx.array(rng.standard_normal((params[f"{path}.weight"].shape[0], 128)).astype(np.float16))
        w = mx.tile(w, (1, params[f"{path}.scales"].shape[1]))
        parts = mx.quantize(w, group_size=128, bits=2)
        params |= zip((f"{path}.{part}" for part in ("weight", "scales", "biases")), parts, strict=True)
    matrices, found = surveyed(save(tmp_path, params, {"quantization": model.args.quantization}))
    for path in packed:
        codes, scales, biases = (params[f"{path}.{part}"] for part in ("weight", "scales", "biases"))
        exact = mx.dequantize(
            codes, scales.astype(mx.float32), biases.astype(mx.float32), group_size=128, bits=2
        )
        np.testing.assert_array_equal(matrices[f"{path}.weight"], np.array(exact))
    assert len(packed) == 4 and matrices.keys() == dict(linear_parameters(plain)).keys()
    assert all("conv" in row["tensor_name"] for row in found.unmatched)


def fits(path: str, module: Any) -> bool:
    return hasattr(module, "to_quantized") and module.weight.shape[-1] % QUANTIZED["group_size"] == 0


INNER = (
    ("layers.3.self_attn.q_proj.weight", (8, 8)),
    ("layers.0.mlp.gate_up_proj.weight", (16, 8)),
    ("embed_tokens.weight", (64, 8)),
)


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model.", "language_model."])
def test_a_language_model_within_another_has_the_same_places(prefix: str) -> None:
    for tail, shape in INNER:
        assert place(f"{prefix}{tail}", shape, {}) == place(f"model.{tail}", shape, {})
    assert isinstance(place(f"{prefix}layers.0.input_layernorm.weight", (8,), {}), str)  # control


# tables and projections beside the blocks
BESIDE = ("ngram", "per_layer_model_projection", "output_attn_res_proj")


def test_every_linear_layer_of_every_architecture_has_its_place() -> None:
    """By its module: what mlx-lm computes with as experts is a stack of experts, all else is not."""
    wrong, count = [], 0
    for name in architectures():
        model = build(name)
        if model is None:
            continue
        modules = dict(model.named_modules())
        for key, shape in linear_parameters(model):
            if any(part in key for part in BESIDE):
                continue
            found = place(key, shape, {"model_type": name})
            routed = type(modules[key.removesuffix(".weight")]).__name__ == "SwitchLinear"
            grouped = (
                routed and "self_attn" in key
            )  # attention in groups, computed with the layer for experts
            good = isinstance(found, Place) and (found.kind == "experts") == (routed and not grouped)
            if not (good or ".experts." in key):
                wrong.append((name, key, shape, found))
            count += 1
    assert wrong == []
    assert count > 1500


@pytest.mark.parametrize(
    ("name", "shape", "model_type", "expected"),
    [
        (
            "model.layers.3.block_sparse_moe.switch_mlp.gate_up_proj.weight",
            (4, 64, 32),
            "minimax_m3_vl",
            ("experts", "gate_up_proj", 3, None),
        ),
        (
            "model.layers.2.block_sparse_moe.experts.7.w1.weight",
            (64, 32),
            "kimi_k3",
            ("experts", "gate_proj", 2, 7),
        ),
        (
            "model.language_model.layers.1.mlp.experts.gate_up_proj",
            (4, 64, 32),
            "muse_spark",
            ("experts", "gate_up_proj", 1, None),
        ),
        ("layers.0.ffn.experts.3.w2.weight", (32, 64), "deepseek_v41", ("experts", "down_proj", 0, 3)),
        (
            "model.layers.0.mlp.shared_expert.up_proj.weight",
            (8, 8),
            "qwen2_moe",
            ("shared", "up_proj", 0, None),
        ),
        ("model.layers.9.mlp.up_proj.weight", (8, 8), "llama", ("mlp", "up_proj", 9, None)),
        ("model.layers.9.self_attn.q_proj.weight", (8, 8), "llama", ("attn", "q_proj", 9, None)),
        ("model.layers.0.mlp.gate.weight", (4, 8), "qwen3_moe", ("router", "gate", 0, None)),
        ("model.embed_tokens.weight", (64, 8), "llama", ("embed", "embed_tokens", None, None)),
        ("lm_head.weight", (64, 8), "llama", ("head", "lm_head", None, None)),
    ],
)
def test_a_name_has_its_place(
    name: str, shape: tuple[int, ...], model_type: str, expected: tuple[Any, ...]
) -> None:
    found = place(name, shape, {"model_type": model_type})
    assert isinstance(found, Place)
    assert (found.kind, found.proj, found.layer, found.expert) == expected
    assert (found.split is not None) == (found.proj == "gate_up_proj")


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.input_layernorm.weight",
        "vision_tower.layers.0.attn.q_proj.weight",
        "mm_projector.proj.0.weight",
        "mtp.layers.0.mlp.experts.0.up_proj.weight",
        "model.mtp_layers.0.self_attn.q_proj.weight",
        "model.layers.0.fn",
    ],
)
def test_what_is_no_matrix_of_the_model_says_why(name: str) -> None:
    assert isinstance(place(name, (8,) if "norm" in name else (8, 8), {}), str)


@pytest.mark.parametrize("config", [{"n_layers": 2}, {"text_config": {"num_hidden_layers": 2}}])
def test_a_layer_that_the_model_has_not_is_none_of_its_own(config: dict[str, Any]) -> None:
    """Of DeepSeek and GLM what predicts further tokens is a layer more."""
    name = "model.layers.{}.mlp.experts.0.up_proj.weight"
    assert place(name.format(2), (8, 8), config) == f"layer 2 of 2: {FURTHER}"
    for known in (place(name.format(1), (8, 8), config), place(name.format(2), (8, 8), {})):  # control
        assert isinstance(known, Place)


@pytest.mark.parametrize(
    ("mode", "bits", "group"),
    [
        ("affine", 4, 32),
        ("affine", 3, 64),
        ("affine", 8, 32),
        ("mxfp4", 4, 32),
        ("mxfp8", 8, 32),
        ("nvfp4", 4, 16),
    ],
)
def test_quantized_triples_are_decoded_as_mlx_does(tmp_path: Path, mode: str, bits: int, group: int) -> None:
    rng = np.random.default_rng(0)
    stacked = mx.array(rng.standard_normal((3, 8, 128)).astype(np.float32)).astype(mx.bfloat16)
    parts = mx.quantize(stacked, group_size=group, bits=bits, mode=mode)
    name = "model.layers.0.mlp.switch_mlp.up_proj"
    tensors = dict(zip((f"{name}.weight", f"{name}.scales", f"{name}.biases"), parts, strict=False))
    settings = {"group_size": group, "bits": bits, "mode": mode}
    for config in (
        {"quantization": settings},
        {"quantization": {"group_size": 1, "bits": 1, name: settings}},
    ):
        matrices, found = surveyed(save(tmp_path, tensors, config))
        exact = mx.dequantize(*(p.astype(mx.float32) if p.dtype == mx.bfloat16 else p for p in parts),
                              group_size=group, bits=bits, mode=mode, dtype=mx.float32)  # fmt: skip
        for e in range(3):
            np.testing.assert_array_equal(matrices[0, "experts", "up_proj", e], np.array(exact[e]))
        assert found.unmatched == []
    _, found = surveyed(save(tmp_path, tensors, {}))
    assert "config.json tells no bits" in found.unmatched[0]["reason"]  # control: nothing is guessed


def test_fp8_with_scales_by_block_is_decoded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = mx.to_fp8(mx.array(rng.standard_normal((200, 300)).astype(np.float32)))
    scales = rng.uniform(0.5, 2, (2, 3)).astype(np.float32)
    write_safetensors(
        tmp_path / "model.safetensors",
        {"model.layers.0.mlp.up_proj.weight": ("F8_E4M3", np.array(codes)),
         "model.layers.0.mlp.up_proj.weight_scale_inv": ("F32", scales)},
    )  # fmt: skip
    matrices, _ = surveyed(tmp_path)
    spread = np.repeat(np.repeat(scales, 128, 0), 128, 1)[:200, :300]
    exact = mx.array(np.array(mx.from_fp8(codes, mx.float32)) * spread).astype(mx.bfloat16)
    (found,) = matrices.values()
    np.testing.assert_array_equal(found, np.array(exact.astype(mx.float32)))


def write_safetensors(path: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> None:
    """Also of dtypes that numpy has no name for: the bytes of each array as they are."""
    import json

    header, data = {}, b""
    for name, (dtype, array) in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


# -- rules of a config

W = np.arange(2 * 6 * 4, dtype=np.float32).reshape(2, 6, 4)


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    return save(tmp_path, {"net.5.bank.w13": mx.array(W), "net.5.bank.other.weight": mx.array(W[0])}, {})


def rule(**more: Any) -> dict[str, Any]:
    layout = {"layer_axis": None, "expert_axis": 0, "rows_axis": 1, "cols_axis": 2}
    split = {"axis": "rows", "splits": [2, 4], "projs": ["gate_proj", "up_proj"]}
    return {"name": "r", "match": r"net\.(\d+)\.bank\.w13$", "ndim": 3, "layout": layout, "layer_group": 1,
            "packed_split": split, **more}  # fmt: skip


def test_a_packed_split_cuts_rows_as_told(bank: Path) -> None:
    matrices, _ = surveyed(bank, [rule()])
    for e in range(2):
        np.testing.assert_array_equal(matrices[5, "experts", "gate_proj", e], W[e, :2])
        np.testing.assert_array_equal(matrices[5, "experts", "up_proj", e], W[e, 2:])


def test_a_packed_split_cuts_columns_and_turned_matrices(bank: Path) -> None:
    turned = {"layer_axis": None, "expert_axis": 1, "rows_axis": 2, "cols_axis": 0}
    split = {"axis": "cols", "splits": [1, 1], "projs": ["gate_proj", "up_proj"]}
    matrices, _ = surveyed(bank, [rule(layout=turned, packed_split=split)])
    for e in range(6):
        np.testing.assert_array_equal(matrices[5, "experts", "gate_proj", e], W[0, e, :, None])
        np.testing.assert_array_equal(matrices[5, "experts", "up_proj", e], W[1, e, :, None])


def test_a_split_that_does_not_fit_stops_or_is_one_warning(bank: Path) -> None:
    wrong = rule(packed_split={"axis": "rows", "splits": [3, 2], "projs": ["gate_proj", "up_proj"]})
    with pytest.raises(PackedSplitError, match="splits rows into 3 \\+ 2, but there are 6"):
        surveyed(bank, [wrong])
    matrices, found = surveyed(bank, [wrong], strict=False)
    assert len(found.warnings) == 1
    assert "net.5.bank.w13" in found.warnings[0]
    assert {key[2] for key in experts(matrices)} == {"bank"} or len(experts(matrices)) == 2
    assert all(w.shape == (6, 4) for w in experts(matrices).values())


def test_the_first_enabled_rule_wins_and_one_without_hits_names_the_nearest(bank: Path) -> None:
    rules = [
        rule(name="off", enabled=False, proj="off"),
        rule(name="first", packed_split=None, proj="first"),
        rule(name="second", packed_split=None, proj="second"),
        rule(name="lost", match=r"net\.(\d+)\.bonk\.w13"),
    ]
    matrices, found = surveyed(bank, rules)
    assert {key[2] for key in experts(matrices)} == {"first"}
    assert "rule 'lost' matches nothing; the nearest tensors are net.5.bank.w13" in found.warnings[-1]
    assert len(found.warnings) == 2  # 'second' took nothing either


def test_layers_on_an_axis_and_axes_of_length_one(tmp_path: Path) -> None:
    w = np.random.default_rng(0).standard_normal((3, 1, 1, 8)).astype(np.float32)
    layout = {"layer_axis": 0, "expert_axis": 1, "rows_axis": 2, "cols_axis": 3}
    folder = save(tmp_path, {"all.weights": mx.array(w)}, {})
    matrices, _ = surveyed(folder, [{"match": "all", "ndim": 4, "layout": layout, "proj": "up_proj"}])
    assert sorted(matrices) == [(i, "experts", "up_proj", 0) for i in range(3)]
    assert all(np.array_equal(matrices[i, "experts", "up_proj", 0], w[i, 0]) for i in range(3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mach": "x"}, "did you mean 'match'?"),
        ({"match": "("}, "no regular expression"),
        ({"proj_group": 2}, "match has 1 groups"),
        ({"ndim": 7}, "2, 3 or 4"),
        ({"kind": "expert"}, "one of experts"),
        ({"layout": {"rows_axis": 0, "cols_axis": 0}}, "each of 3 axes once"),
        ({"packed_split": {"axis": "rows", "splits": [1], "projs": ["a", "b"]}}, "a size for each"),
        ({"packed_split": {"axis": "depth", "projs": ["a", "b"]}}, '"rows" or "cols"'),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadConfig) as caught:
        make_placer([rule(**change)], Parsing(), {})
    assert said in f"{caught.value.message} {caught.value.hint}"
    make_placer([rule()], Parsing(), {})  # control


def test_aliases_make_projections_canonical_and_strictness_drops_the_unknown(tmp_path: Path) -> None:
    folder = save(
        tmp_path, {"x.experts.1.w3.weight": mx.array(W[0]), "x.experts.1.w9.weight": mx.array(W[0])}, {}
    )
    rules = [{"match": r"experts\.(\d+)\.(w\d)\.weight", "expert_group": 1, "proj_group": 2, "ndim": 2}]
    matrices, _ = surveyed(folder, rules)
    assert {key[2:] for key in experts(matrices)} == {("up_proj", 1), ("w9", 1)}
    matrices, found = surveyed(folder, rules, parsing=Parsing(proj_group_strict=True))
    assert {key[2:] for key in experts(matrices)} == {("up_proj", 1)}
    assert [row["tensor_name"] for row in found.unmatched] == ["x.experts.1.w9.weight"]
