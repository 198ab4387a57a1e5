"""Rank maps: from one number, from what the base's weights or activations say, from files and from packs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlx_plastic.backend import mx, nn
from mlx_plastic.base import Base, load_base, targets
from mlx_plastic.base.widen import float32_weight
from mlx_plastic.errors import BadConfig
from mlx_plastic.lowrank.layers import linear_layers
from mlx_plastic.lowrank.rank import stable_rank
from mlx_plastic.packs.format.pack import LITE_BYTES, Factors, tensor_bytes
from mlx_plastic.packs.ranks.ranks import (
    STRATEGIES,
    check_ranks,
    for_profile,
    map_of_pack,
    numbers,
    rank_map,
    read_rank_map,
    resolved,
    shapes_of,
)
from mlx_plastic.packs.ranks.sizes import file_bytes, file_bytes_bound
from mlx_plastic.packs.ranks.taps import layer_inputs
from mlx_plastic.samples import Encoded
from test_attach import pack_of, random_factors

Q, K = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


@pytest.fixture(scope="module")
def paths(tiny: Base) -> list[str]:
    return list(targets(tiny.model))


def some_samples(n: int = 6, length: int = 20) -> list[Encoded]:
    random = np.random.default_rng(0)
    return [
        Encoded(tuple(map(int, random.integers(5, 300, length))), (False, *[True] * (length - 1)))
        for _ in range(n)
    ]


def test_keys_and_values_go_down_with_their_width(tiny: Base, paths: list[str]) -> None:
    ranks = rank_map(tiny, paths, rank=8)  # 4 heads, 2 of keys and values
    by_role = {
        role: {ranks[p] for p in targets(tiny.model, [role])} for role in ("attn.k_proj", "attn.v_proj")
    }
    assert by_role == {"attn.k_proj": {4}, "attn.v_proj": {4}}
    assert {r for p, r in ranks.items() if "k_proj" not in p and "v_proj" not in p} == {8}
    alone = rank_map(tiny, [p for p in paths if p.endswith("k_proj")], rank=8)
    assert set(alone.values()) == {4}  # also when no query is trained
    assert set(rank_map(tiny, paths, rank=1).values()) == {1}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_gives_each_module_its_share_of_the_rank(
    tiny: Base, paths: list[str], strategy: str
) -> None:
    ranks = rank_map(tiny, paths, rank=8, strategy=strategy, samples=some_samples())  # type: ignore[arg-type]
    assert list(ranks) == paths
    assert all(1 <= r <= 8 for r in ranks.values()) and max(ranks.values()) == 8
    assert all(ranks[p] <= 4 for p in targets(tiny.model, ["attn.k_proj", "attn.v_proj"]))


def test_a_strategy_does_not_snap_to_the_cap(checkpoint: Path) -> None:
    base = load_base(str(checkpoint))
    weights = {p: m for p, m in targets(base.model).items() if p.endswith("o_proj")}
    (narrow, layer), (wide, _) = weights.items()
    layer.weight = mx.outer(layer.weight[:, 0], layer.weight[0]) + 0.01 * layer.weight
    ranks = rank_map(base, list(weights), rank=8, strategy="stable")
    assert ranks[wide] == 8 and ranks[narrow] == round(8 * 1 / stable_rank(np.array(weights[wide].weight)))


def test_activations_tell_layers_apart_by_what_comes_in(tiny: Base) -> None:
    downs = list(targets(tiny.model, ["mlp.down_proj", "attn.q_proj"]))
    rows = layer_inputs(tiny.model, downs, some_samples(), rows=50)
    for path, seen in rows.items():
        assert seen.shape == (50, 64 if "down" in path else 32) and np.isfinite(seen).all()
    before = {path: id(m) for path, m in tiny.model.named_modules()}
    whole = layer_inputs(tiny.model, [Q], some_samples(1), rows=1000)[Q]
    embedded = tiny.model.model.embed_tokens(mx.array(some_samples(1)[0].tokens))
    normed = tiny.model.model.layers[0].input_layernorm(embedded)
    np.testing.assert_allclose(whole, np.array(normed), rtol=1e-5, atol=1e-6)
    assert {path: id(m) for path, m in tiny.model.named_modules()} == before


def test_a_target_compression_is_kept(tiny: Base, paths: list[str]) -> None:
    shapes = shapes_of(tiny, paths)
    total = sum(out * width for out, width in shapes.values())
    for strategy in (None, "energy"):
        free = rank_map(tiny, paths, rank=16, strategy=strategy)  # type: ignore[arg-type]
        half = rank_map(tiny, paths, rank=16, strategy=strategy, target_compression=0.4)  # type: ignore[arg-type]
        assert numbers(free, shapes) > 0.4 * total >= numbers(half, shapes) > 0.3 * total
        assert all(1 <= half[p] <= free[p] for p in paths)
    assert set(rank_map(tiny, paths, rank=16, target_compression=1e-9).values()) == {1}
    with pytest.raises(BadConfig, match="not above 0"):
        rank_map(tiny, paths, target_compression=0.0)


def test_a_quantized_base_is_read_through_its_packing(checkpoint: Path) -> None:
    plain, packed = load_base(str(checkpoint)), load_base(str(checkpoint))
    nn.quantize(packed.model, group_size=32, bits=8)
    paths = list(targets(packed.model))
    assert shapes_of(packed, paths) == shapes_of(plain, paths)
    assert rank_map(packed, paths, strategy="energy") == rank_map(plain, paths, strategy="energy")
    near = float32_weight(linear_layers(packed.model)[Q])
    np.testing.assert_allclose(np.array(near), np.array(linear_layers(plain.model)[Q].weight), atol=3e-3)


def test_a_rank_over_the_matrix_names_the_module(tiny: Base, paths: list[str]) -> None:
    with pytest.raises(BadConfig) as caught:
        rank_map(tiny, paths, rank=40)
    assert f"{Q} is [32, 32], rank 40 is over 32" in caught.value.message
    assert (
        f"{K} is [16, 32], rank 20 is over 16" in caught.value.message
    )  # with half the width, half the rank
    assert "down_proj is [32, 64]" in caught.value.message and "hint" in str(caught.value)
    with pytest.raises(BadConfig, match="k_proj is \\[16, 32\\], rank 17 is over 16"):
        check_ranks({K: 17}, shapes_of(tiny, [K]))
    assert max(rank_map(tiny, paths, rank=40, strategy="energy").values()) <= 32  # a strategy is capped


def test_a_rank_map_file_is_read_as_written(tmp_path: Path, tiny: Base, paths: list[str]) -> None:
    file = tmp_path / "ranks.json"
    ranks = rank_map(tiny, paths, rank=6, strategy="stable")
    file.write_text(json.dumps(ranks))
    assert read_rank_map(file) == ranks
    assert resolved(read_rank_map(file), tiny, paths) == ranks
    assert json.loads(file.read_text())[Q] == ranks[Q]


def test_a_map_names_modules_roles_or_groups_and_the_most_exact_name_counts(
    tiny: Base, paths: list[str]
) -> None:
    found = resolved({"attn": 2, "attn.q_proj": 3, Q: 4, "mlp.up_proj": 0, "mlp.*": 5}, tiny, paths)
    assert found[Q] == 4 and found["model.layers.1.self_attn.q_proj"] == 3 and found[K] == 2
    assert found["model.layers.0.mlp.down_proj"] == 5 and "model.layers.0.mlp.up_proj" not in found
    assert set(resolved({K: 2}, tiny, paths)) == {K}
    whole = resolved({K: 2}, tiny, paths, rest=rank_map(tiny, paths, rank=8))
    assert whole[K] == 2 and whole[Q] == 8 and len(whole) == len(paths)


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"attn.qproj": 4}, "no layer or role 'attn.qproj'; nearest: attn.q_proj"),
        ({"model.layers.9.self_attn.q_proj": 4}, "nearest: model.layers.1.self_attn.q_proj"),
        ({"attn.q_proj": 33}, "q_proj is \\[32, 32\\], rank 33 is over 32"),
        ({"attn.q_proj": 0}, "leaves every layer out"),
    ],
)
def test_a_map_that_does_not_fit_the_base_is_refused(
    tiny: Base, paths: list[str], entries: dict[str, int], text: str
) -> None:
    with pytest.raises(BadConfig, match=text):
        resolved(entries, tiny, paths)


def test_a_map_for_layers_that_are_not_trained_is_refused(tiny: Base) -> None:
    with pytest.raises(BadConfig, match="'mlp' is none of the layers to train"):
        resolved({"mlp": 4}, tiny, list(targets(tiny.model, ["attn"])))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not JSON"),
        ("[]", "no JSON object"),
        ('{"a": 1, "a": 2}', "'a' stands there twice"),
        ('{"a": 1.5, "b": true, "c": -1}', "'a' has the rank '1.5'.*'b' has the rank 'True'.*'c'"),
        ('{"a": {"b": 1}}', "'a' has the rank"),
        ("{}", "no JSON object"),
    ],
)
def test_a_broken_map_file_says_what_is_wrong(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "ranks.json"
    file.write_text(text)
    with pytest.raises(BadConfig, match=fault):
        read_rank_map(file)
    with pytest.raises(BadConfig, match="cannot read"):
        read_rank_map(tmp_path / "none.json")


def test_the_map_of_a_pack_is_that_of_its_factors(tiny: Base) -> None:
    pack = pack_of(tiny, random_factors(tiny, 0, 3))
    assert map_of_pack(pack, tiny) == {path: f.rank for path, f in pack.factors.items()}
    stranger = pack_of(tiny, {Q.replace("q_proj", "q_prj"): pack.factors[Q]})
    with pytest.raises(BadConfig, match=r"nearest: model.layers.0.self_attn.q_proj"):
        map_of_pack(stranger, tiny)


def test_the_profile_lite_caps_attention_and_the_file() -> None:
    shapes = {f"model.layers.{i}.{leaf}": (4096, 4096) for i in range(16) for leaf in ("attn.q", "mlp.up")}
    ranks = dict.fromkeys(shapes, 64)
    lite = for_profile(ranks, shapes)
    assert all(lite[p] <= 8 for p in lite if "attn" in p)
    assert 0.85 * LITE_BYTES < file_bytes_bound(lite, shapes) <= LITE_BYTES
    assert for_profile(lite, shapes) == lite
    assert for_profile(ranks, shapes, "heavy") == ranks  # control
    with pytest.raises(BadConfig, match="rank 1 on 1 modules takes"):
        for_profile({"mlp.x": 4}, {"mlp.x": (5_000_000, 5_000_000)})


@pytest.mark.parametrize("storage", ["float16", "int8", "int4"])
def test_the_bound_on_a_file_is_near_its_size_and_never_below(storage: str) -> None:
    random = np.random.default_rng(0)
    shapes = {f"model.layers.{i}.mlp.up": (300, 100 + i) for i in range(12)}
    factors = {
        path: Factors(
            random.standard_normal((i + 1, width)).astype(np.float16),
            random.standard_normal((out, i + 1)).astype(np.float16),
            1.0,
        )
        for i, (path, (out, width)) in enumerate(shapes.items())
    }
    size = len(tensor_bytes(factors, storage))  # type: ignore[arg-type]
    ranks = {path: f.rank for path, f in factors.items()}
    assert file_bytes(ranks, shapes, storage, 64) == size  # type: ignore[arg-type]
    bound = file_bytes_bound(ranks, shapes, storage)  # type: ignore[arg-type]
    assert size <= bound <= size + 40 * 5 * len(factors)
