from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from click.testing import CliRunner, Result

from mlx_plastic.backend import mx
from mlx_plastic.base import Base, load_base, targets
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadPack, BaseMismatch, PlasticError
from mlx_plastic.home import Home
from mlx_plastic.lowrank.layers import dims
from mlx_plastic.packs import Factors, Pack, Store
from mlx_plastic.packs.convert import export_pack, import_adapter, mlx_lm, peft
from mlx_plastic.packs.convert.fold import Update, folded, halved, relative_error
from mlx_plastic.packs.convert.gguf import turned, turned_back
from mlx_plastic.packs.wear.attach import attached
from test_format import some_manifest
from tiny import make_checkpoint, make_llama

TOKENS = list(range(5, 25))
Q0 = "model.layers.0.self_attn.q_proj"
K1 = "model.layers.1.self_attn.k_proj"


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(str(make_llama(tmp_path_factory.mktemp("llama"))))


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(str(make_checkpoint(tmp_path_factory.mktemp("moe"), experts=4)))


def uneven_pack(base: Base, *, scale: float | None = None, experts: bool = False, name: str = "p") -> Pack:
    """Random factors with ranks of 1 to 6 and as many alphas; scale: the same alpha / rank everywhere."""
    random = np.random.default_rng(0)
    chosen = ["attn", "mlp"] if not experts else ["attn", "experts"]
    factors = {}
    for i, (path, linear) in enumerate(targets(base.model, chosen).items()):
        out, width = dims(linear)
        rank = 1 + i % 6
        stack = (linear.num_experts,) if "switch_mlp" in path else ()
        a, b = (
            (random.standard_normal((*stack, *s)) * 0.1).astype(np.float16)
            for s in ((rank, width), (out, rank))
        )
        alpha = (scale or 0.3 + 0.7 * i % 3) * rank
        factors[path] = Factors(a, b, float(np.float32(alpha)))
    return Pack(some_manifest(factors, name, base_fingerprint=base.fingerprint), factors)


def same_bits(one: Mapping[str, Factors], two: Mapping[str, Factors]) -> bool:
    return list(one) == list(two) and all(
        np.array_equal(one[p].a.view(np.uint16), two[p].a.view(np.uint16))
        and np.array_equal(one[p].b.view(np.uint16), two[p].b.view(np.uint16))
        and one[p].alpha == two[p].alpha
        for p in one
    )


def worn_logits(base: Base, pack: Pack) -> np.ndarray:
    with attached(base.model, {"p": pack}, fingerprint=base.fingerprint):
        return np.array(base.logits(TOKENS).astype(mx.float32))


def stock_logits(base: Base, adapter: Path) -> np.ndarray:
    import mlx_lm as stock

    model, _ = stock.load(str(base.path), adapter_path=str(adapter))
    return np.array(model(mx.array(TOKENS)[None])[0].astype(mx.float32))


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


# --- there and back


@pytest.mark.parametrize("kind", ["peft", "mlx-lm"])
@pytest.mark.parametrize(("scale", "dtype"), [(2.0, "F16"), (None, "F32")])
def test_there_and_back_are_the_same_bits(
    tiny: Base, tmp_path: Path, kind: Any, scale: float | None, dtype: str
) -> None:
    pack = uneven_pack(tiny, scale=scale)
    done = export_pack(pack, kind, tmp_path / "out", base=tiny)
    assert done.exact and done.proof is not None and done.proof.mean_kl_nats > 1e-4
    file = next((tmp_path / "out").glob("*.safetensors"))
    with safetensors.safe_open(file, "np") as opened:
        assert {opened.get_slice(name).get_dtype() for name in opened.keys()} == {dtype}  # noqa: SIM118
    back = import_adapter(tmp_path / "out", kind, name="back", base=tiny)
    assert same_bits(back.factors, pack.factors)
    assert back.conversion.exact
    assert back.manifest.base_fingerprint == tiny.fingerprint
    assert back.manifest.parents == () and back.manifest.training["imported_from"] == kind
    # control: without our note beside the tensors the update is the same, its division into factors is not
    tensors = safetensors.numpy.load_file(file)
    safetensors.numpy.save_file(tensors, file)
    blank = import_adapter(tmp_path / "out", kind, name="back", base=tiny)
    assert not same_bits(blank.factors, pack.factors)
    np.testing.assert_allclose(
        worn_logits(tiny, Pack(blank.manifest, blank.factors)), worn_logits(tiny, pack), atol=5e-3
    )


@pytest.mark.parametrize(("kind", "library"), [("peft", "peft"), ("mlx-lm", "mlx")])
def test_what_is_given_away_has_a_page_that_hubs_read_and_names_nobody(
    tiny: Base, tmp_path: Path, kind: Any, library: str
) -> None:
    import yaml

    pack = uneven_pack(tiny)
    told = {"evals": {"ppl": 3.25, "said: x": 1.0, "passed": True}, "lineage": ("turn-4711",)}
    for base_id, named in (("org/some-base-4bit", True), ("/home/ada/models/base", False)):
        out = tmp_path / str(named)
        manifest = dataclasses.replace(pack.manifest, base_id=base_id, **told)
        export_pack(Pack(manifest, pack.factors), kind, out)
        page = (out / "README.md").read_text("utf-8")
        front = yaml.safe_load(page.split("---")[1])
        assert front.get("base_model") == (base_id if named else None)
        assert front["library_name"] == library and {"lora", "mlx-plastic"} <= set(front["tags"])
        assert tiny.fingerprint in page and "| ppl | 3.25 |" in page and manifest.sha256 in page
        assert not [word for word in ("/home", "turn-4711", "said") if word in page]
        assert import_adapter(out, kind, name="back", base=tiny).factors  # the page is in nobody's way


def test_a_false_note_beside_the_tensors_is_not_believed(tiny: Base, tmp_path: Path) -> None:
    pack = uneven_pack(tiny)
    export_pack(pack, "peft", tmp_path / "out")
    file = tmp_path / "out" / peft.TENSORS
    tensors = safetensors.numpy.load_file(file)
    key = "mlx-plastic.ranks-and-alphas"
    for noted in (
        json.dumps({path: [f.rank, 7.7 * f.alpha] for path, f in pack.factors.items()}),
        json.dumps({path: [1, 1.0] for path in pack.factors}),
        json.dumps({path: [10**6, 1e30] for path in pack.factors}),
        '{"a": [1]}',
        "[" * 500,
    ):
        safetensors.numpy.save_file(tensors, file, {key: noted})
        blank = import_adapter(tmp_path / "out", "peft", name="back", base=tiny)
        updates = peft.read(tmp_path / "out").updates
        assert max(relative_error(updates[p], blank.factors[p]) for p in updates) < 1e-3


def test_stock_mlx_lm_computes_the_same_logits(tiny: Base, tmp_path: Path) -> None:
    pack = uneven_pack(tiny)
    export_pack(pack, "mlx-lm", tmp_path / "adapter", base=tiny)
    wanted = worn_logits(tiny, pack)
    np.testing.assert_allclose(stock_logits(tiny, tmp_path / "adapter"), wanted, rtol=1e-5, atol=1e-5)
    parameters = json.loads((tmp_path / "adapter/adapter_config.json").read_text())["lora_parameters"]
    edit(tmp_path / "adapter", lora_parameters=parameters | {"scale": 2.0})
    assert np.abs(stock_logits(tiny, tmp_path / "adapter") - wanted).max() > 0.01  # control: a wrong scale


def test_stacks_of_experts_go_to_mlx_lm_and_gguf_but_not_to_peft(moe: Base, tmp_path: Path) -> None:
    pack = uneven_pack(moe, experts=True)
    assert any(f.a.ndim == 3 for f in pack.factors.values())
    done = export_pack(pack, "mlx-lm", tmp_path / "adapter", base=moe)
    assert done.exact
    np.testing.assert_allclose(
        stock_logits(moe, tmp_path / "adapter"), worn_logits(moe, pack), rtol=1e-5, atol=1e-5
    )
    back = import_adapter(tmp_path / "adapter", "mlx-lm", name="back", base=moe)
    assert same_bits(back.factors, pack.factors)
    assert export_pack(pack, "gguf", tmp_path / "p.gguf", base=moe).exact
    shapes = {t.name: tuple(t.data.shape) for t in gguf.GGUFReader(tmp_path / "p.gguf").tensors}
    f = pack.factors["model.layers.0.mlp.switch_mlp.down_proj"]
    assert shapes["blk.0.ffn_down_exps.weight.lora_a"] == f.a.shape
    assert shapes["blk.0.ffn_down_exps.weight.lora_b"] == f.b.shape
    with pytest.raises(BadPack, match=r"PEFT cannot hold.*layers\.0\.mlp\.switch_mlp\.down_proj"):
        export_pack(pack, "peft", tmp_path / "peft", base=moe)
    assert not (tmp_path / "peft").exists()


# --- PEFT


def test_peft_files_are_as_peft_reads_them(tiny: Base, tmp_path: Path) -> None:
    pack = uneven_pack(tiny)
    export_pack(pack, "peft", tmp_path / "out", base=tiny)
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    tensors = safetensors.numpy.load_file(tmp_path / "out" / peft.TENSORS)
    assert config["peft_type"] == "LORA" and config["r"] == config["lora_alpha"] == 6
    assert config["rank_pattern"] == config["alpha_pattern"]
    assert config["target_modules"] == sorted(pack.factors)
    assert len(tensors) == 2 * len(pack.factors)
    for path, f in pack.factors.items():
        a, b = (tensors[f"base_model.model.{path}.lora_{part}.weight"] for part in "AB")
        matching = [r for key, r in config["rank_pattern"].items() if re.match(rf"(.*\.)?({key})$", path)]
        assert (matching or [config["r"]]) == [f.rank]  # as PEFT looks it up; one key matches, not two
        np.testing.assert_allclose(b @ a, f.scale * (f.b.astype(np.float64) @ f.a), rtol=1e-4, atol=1e-6)
    assert any(f.scale != 1 for f in pack.factors.values())  # control: there was a scale to fold


def peft_adapter(folder: Path, base: Base, **config: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A PEFT adapter as others write it; returns (a, b) by module path."""
    random = np.random.default_rng(1)
    pairs = {}
    ranks = config.pop("ranks", {})
    dtype = config.pop("dtype", np.float32)
    for path, linear in targets(base.model, ["attn"]).items():
        out, width = dims(linear)
        rank = next((r for key, r in ranks.items() if re.match(rf"(.*\.)?({key})$", path)), 4)
        a, b = (random.standard_normal(s) * 0.05 for s in ((rank, width), (out, rank)))
        pairs[path] = (a.astype(dtype), b.astype(dtype))
    folder.mkdir(exist_ok=True)
    tensors = {
        f"base_model.model.{p}.lora_{n}.weight": x
        for p, ab in pairs.items()
        for n, x in zip("AB", ab, strict=True)
    }
    safetensors.numpy.save_file(tensors, folder / peft.TENSORS, {"format": "pt"})
    told = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": base.ref, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(told | {"rank_pattern": ranks} | config))
    return pairs


@pytest.mark.parametrize("use_rslora", [False, True])
def test_patterns_are_read_as_peft_reads_them(tiny: Base, tmp_path: Path, use_rslora: bool) -> None:
    ranks = {r"model\.layers\.1\.self_attn\.k_proj": 2, r".*\.0\..*": 3, "v_proj": 5}
    alphas = {r"layers.\d+.self_attn.q_proj": 24, r"^self_attn.k_proj": 1e9, r"(v|o)_proj": 5, "o_proj": 7}
    pairs = peft_adapter(tmp_path / "a", tiny, ranks=ranks, alpha_pattern=alphas, use_rslora=use_rslora)
    updates = peft.read(tmp_path / "a").updates
    assert set(updates) == set(pairs)
    for path, (a, _) in pairs.items():
        alpha = next((n for key, n in alphas.items() if re.match(rf"(.*\.)?({key})$", path)), 8)
        assert updates[path].scale == alpha / (math.sqrt(len(a)) if use_rslora else len(a))
    assert {u.rank for u in updates.values()} == {2, 3, 4, 5}  # control: every pattern had its say


def test_an_imported_adapter_does_what_its_numbers_say(tiny: Base, tmp_path: Path) -> None:
    pairs = peft_adapter(tmp_path / "a", tiny)
    made = import_adapter(tmp_path / "a", "peft", name="theirs", base=tiny)
    for path, (a, b) in pairs.items():
        f = made.factors[path]
        assert f.alpha == 8.0 and f.rank == 4
        np.testing.assert_allclose(f.scale * (f.b.astype(float) @ f.a), 2.0 * (b @ a), atol=1e-4)
    assert 0 < made.conversion.error < 1e-3
    assert made.manifest.training["float16_error"] == made.conversion.error
    assert made.manifest.evals["probe_kl_nats"] == made.conversion.proof.mean_kl_nats > 0  # type: ignore[union-attr]


def test_bfloat16_is_read_without_loss(tiny: Base, tmp_path: Path) -> None:
    pairs = peft_adapter(tmp_path / "a", tiny)
    file = tmp_path / "a" / peft.TENSORS
    mx.save_safetensors(
        str(file), {n: mx.array(t).astype(mx.bfloat16) for n, t in safetensors.numpy.load_file(file).items()}
    )
    updates = peft.read(tmp_path / "a").updates
    for path, (a, _) in pairs.items():
        assert np.array_equal(updates[path].a, np.array(mx.array(a).astype(mx.bfloat16).astype(mx.float32)))
    made = import_adapter(tmp_path / "a", "peft", name="theirs", base=tiny)
    assert made.conversion.exact  # 8 bits of bfloat16 lie within the 11 of float16


PEFT_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": ({"use_dora": True}, "DoRA"),
    "biases": ({"lora_bias": True}, "lora_bias"),
    "all biases": ({"bias": "all"}, "biases"),
    "whole modules": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "tokens": ({"trainable_token_indices": [1]}, "tokens"),
    "repeated layers": ({"layer_replication": [[0, 2], [1, 2]]}, "repeats layers"),
    "bare parameters": ({"target_parameters": ["mlp.experts.down_proj"]}, "bare parameters"),
    "aLoRA": ({"alora_invocation_tokens": [5]}, "aLoRA"),
    "PiSSA": ({"init_lora_weights": "pissa_niter_4"}, "changed base weights"),
    "another method": ({"peft_type": "LOHA"}, "peft_type"),
    "a setting of tomorrow": ({"use_new_trick": True}, "'use_new_trick', which is not known"),
    "another rank": ({"r": 8}, "rank 4, not 8"),
    "alpha a word": ({"lora_alpha": "16"}, "no numbers"),
    "alphas a list": ({"alpha_pattern": [1]}, "no numbers"),
    "a slow pattern": ({"alpha_pattern": {r"(a+)+$": 1}}, "not simple"),
    "many choices": ({"alpha_pattern": {"(a|a)" * 30: 1}}, "not simple"),
    "many stars": ({"alpha_pattern": {".*a" * 30: 1}}, "not simple"),
    "many patterns": ({"alpha_pattern": {f"x{i}.*": 1 for i in range(99)}}, "99 regular expressions"),
}


@pytest.mark.parametrize("what", PEFT_REFUSED)
def test_what_a_pack_cannot_hold_is_refused(tiny: Base, tmp_path: Path, what: str) -> None:
    peft_adapter(tmp_path / "a", tiny)
    peft.read(tmp_path / "a")  # control: it is sound before
    changes, reason = PEFT_REFUSED[what]
    edit(tmp_path / "a", **changes)
    started = time.monotonic()
    with pytest.raises(BadPack, match=reason):
        peft.read(tmp_path / "a")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (f"base_model.model.{Q0}.lora_magnitude_vector", "DoRA magnitudes"),
        (f"base_model.model.{Q0}.lora_B.bias", "lora_bias"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "trained embeddings"),
        ("base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta", "trained tokens"),
        ("base_model.model.lm_head.weight", "not lora_A or lora_B"),
        ("base_model.model.lm_head.modules_to_save.weight", "whole modules"),
        ("base_model.model.../../etc.lora_A.weight", "names no module"),
        ("base_model.model.model.layers.7.x.lora_A.weight", "has no lora_B"),
    ],
)
def test_tensors_that_are_no_factors_are_refused(tiny: Base, tmp_path: Path, name: str, reason: str) -> None:
    peft_adapter(tmp_path / "a", tiny)
    file = tmp_path / "a" / peft.TENSORS
    safetensors.numpy.save_file(
        safetensors.numpy.load_file(file) | {name: np.ones((4, 4), np.float32)}, file, {"format": "pt"}
    )
    with pytest.raises(BadPack, match=reason):
        peft.read(tmp_path / "a")


def change_tensors(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    file = folder / peft.TENSORS
    tensors = safetensors.numpy.load_file(file)
    change(tensors)
    safetensors.numpy.save_file(tensors, file)


def test_damaged_and_foreign_files_are_refused(tiny: Base, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    name = f"base_model.model.{Q0}.lora_A.weight"

    def fresh() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        peft_adapter(folder, tiny)

    def refused(reason: str) -> None:
        with pytest.raises(BadPack, match=reason) as caught:
            peft.read(folder)
        assert caught.value.hint
        fresh()

    with pytest.raises(BadPack, match="not a folder"):
        peft.read(folder)
    fresh()
    whole = (folder / peft.TENSORS).read_bytes()
    (folder / peft.TENSORS).write_bytes(whole[:-9])
    refused("accounts for")
    (folder / peft.TENSORS).write_bytes(b"\xff" * 8 + whole[8:])
    refused("claims")
    (folder / peft.TENSORS).rename(folder / "adapter_model.bin")
    refused(r"adapter_model\.bin, which is not opened")
    (folder / "adapter_config.json").write_text('{"r": NaN}')
    refused("not JSON")
    (folder / "adapter_config.json").unlink()
    refused("missing")
    change_tensors(folder, lambda t: t.update({name: t[name] * np.nan}))
    refused("not finite")
    change_tensors(folder, lambda t: t.update({name: t[name][:3]}))
    refused("do not fit")
    change_tensors(folder, lambda t: t.update({name: t[name].astype(np.int32)}))
    refused("is I32")
    elsewhere = tmp_path / "elsewhere"
    (folder / peft.TENSORS).rename(elsewhere)
    (folder / peft.TENSORS).symlink_to(elsewhere)
    refused("not a plain file")
    blobs = tmp_path / "hub" / "blobs"  # as the hub's cache lays it out
    snapshot = tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        file.rename(blobs / file.name)
        (snapshot / file.name).symlink_to(blobs / file.name)
    assert peft.read(snapshot).updates


def test_modules_that_the_base_lacks_are_named(tiny: Base, tmp_path: Path) -> None:
    peft_adapter(tmp_path / "a", tiny)

    def move(tensors: dict[str, np.ndarray]) -> None:
        for part in "AB":
            name = f"base_model.model.{Q0}.lora_{part}.weight"
            tensors[name.replace("layers.0", "layers.9")] = tensors.pop(name)

    change_tensors(tmp_path / "a", move)
    with pytest.raises(BadPack, match=r"no linear layer model\.layers\.9\.self_attn\.q_proj; nearest: model"):
        import_adapter(tmp_path / "a", "peft", name="theirs", base=tiny)


def test_names_that_mlx_lm_changed_are_not_guessed(moe: Base, tmp_path: Path) -> None:
    """The hub calls an expert mlp.experts.0.up_proj, mlx-lm calls the stack mlp.switch_mlp.up_proj."""
    path = "model.layers.0.mlp.experts.0.up_proj"
    tensors = {
        f"base_model.model.{path}.lora_{part}.weight": np.ones(shape, np.float32)
        for part, shape in (("A", (2, 32)), ("B", (64, 2)))
    }
    (tmp_path / "a").mkdir()
    safetensors.numpy.save_file(tensors, tmp_path / "a" / peft.TENSORS)
    (tmp_path / "a/adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
    with pytest.raises(BadPack, match=r"no linear layer model\.layers\.0\.mlp\.experts\.0\.up_proj"):
        import_adapter(tmp_path / "a", "peft", name="theirs", base=moe)


def test_a_base_whose_files_name_a_module_otherwise_is_refused(tmp_path: Path) -> None:
    """mlx-lm renames some families at load; here the file is renamed under a base that is loaded."""
    base = load_base(str(make_checkpoint(tmp_path / "base")))
    pack = uneven_pack(base)
    export_pack(pack, "peft", tmp_path / "before", base=base)  # control
    file = base.path / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    tensors["model.layers.0.attention.wq.weight"] = tensors.pop(f"{Q0}.weight")
    safetensors.numpy.save_file(tensors, file, {"format": "pt"})
    with pytest.raises(BadPack, match=r"no weights of these names: model\.layers\.0\.self_attn\.q_proj"):
        export_pack(pack, "peft", tmp_path / "after", base=base)
    assert not (tmp_path / "after").exists()


def test_a_base_that_mlx_lm_converted_is_told_where_names_may_differ(tmp_path: Path) -> None:
    base = load_base(str(make_checkpoint(tmp_path / "base")))
    file = base.path / "model.safetensors"
    safetensors.numpy.save_file(safetensors.numpy.load_file(file), file, {"format": "mlx"})
    pack = uneven_pack(base)
    assert export_pack(pack, "peft", tmp_path / "known", base=base).notes == ()
    strange = dataclasses.replace(base, config=base.config | {"model_type": "plamo"})
    (told,) = export_pack(pack, "peft", tmp_path / "strange", base=strange).notes
    assert "converted by mlx-lm" in told and "'plamo'" in told


# --- mlx-lm


def stock_adapter(folder: Path, base: Base, *, scale: float = 20.0, keys: Any = None) -> None:
    """An adapter as mlx-lm's own trainer writes it, with a lora_b that is not zero."""
    import mlx_lm as stock
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model, _ = stock.load(str(base.path))
    parameters = {"rank": 3, "scale": scale, "dropout": 0.0} | ({"keys": keys} if keys else {})
    model.freeze()
    linear_to_lora_layers(model, 1, parameters)
    flat = dict(mx_flat(model.trainable_parameters()))
    for i, name in enumerate(sorted(flat)):
        if name.endswith("lora_b"):
            flat[name] = mx.random.normal(flat[name].shape, key=mx.random.key(i)) * 0.01
    folder.mkdir()
    mx.save_safetensors(str(folder / mlx_lm.TENSORS), flat)
    config = {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": parameters, "model": base.ref}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def mx_flat(tree: Any) -> Any:
    from mlx_plastic.backend import tree_flatten

    return tree_flatten(tree)


@pytest.mark.parametrize("keys", [None, ["self_attn.q_proj", "mlp.up_proj"]])
def test_an_adapter_of_mlx_lm_answers_the_same_as_a_pack(tiny: Base, tmp_path: Path, keys: Any) -> None:
    stock_adapter(tmp_path / "a", tiny, keys=keys)
    made = import_adapter(tmp_path / "a", "mlx-lm", name="theirs", base=tiny)
    assert not made.conversion.notes
    assert all(f.rank == 3 and f.alpha == 60.0 for f in made.factors.values())
    wanted = stock_logits(tiny, tmp_path / "a")
    found = worn_logits(tiny, Pack(made.manifest, made.factors))
    np.testing.assert_allclose(found, wanted, atol=2e-3)  # float32 factors became float16
    assert np.abs(np.array(tiny.logits(TOKENS)) - wanted).max() > 0.05  # control: it does act


def test_an_adapter_of_mlx_lm_that_lacks_tensors_is_told(tiny: Base, tmp_path: Path) -> None:
    for keys, folder in ((["self_attn.q_proj", "mlp.up_proj"], "named"), (None, "unnamed")):
        stock_adapter(tmp_path / folder, tiny, keys=keys)
        file = tmp_path / folder / mlx_lm.TENSORS
        kept = {n: t for n, t in safetensors.numpy.load_file(file).items() if "q_proj" in n}
        safetensors.numpy.save_file(kept, file)
    with pytest.raises(BadPack, match=r"lacks the tensors of 1 modules.*layers\.1\.mlp\.up_proj"):
        import_adapter(tmp_path / "named", "mlx-lm", name="theirs", base=tiny)
    told = import_adapter(tmp_path / "unnamed", "mlx-lm", name="theirs", base=tiny).conversion.notes
    assert told == ("6 linear layers of the blocks that it names have no tensors",)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fine_tune_type": "full"}, "whole weights"),
        ({"fine_tune_type": "dora"}, "'dora', not 'lora'"),
        ({"lora_parameters": {"rank": 3, "alpha": 8}}, "no number lora_parameters.scale"),
        ({"lora_parameters": None}, "no number lora_parameters.scale"),
        ({"lora_parameters": {"rank": 3, "scale": 1, "keys": [["q_proj"]]}}, "keys that are not names"),
    ],
)
def test_what_mlx_lm_adapters_cannot_bring(tiny: Base, tmp_path: Path, changes: Any, reason: str) -> None:
    export_pack(uneven_pack(tiny), "mlx-lm", tmp_path / "a")
    mlx_lm.read(tmp_path / "a")  # control
    edit(tmp_path / "a", **changes)
    with pytest.raises(BadPack, match=reason):
        mlx_lm.read(tmp_path / "a")


def test_dora_magnitudes_of_mlx_lm_are_refused(tiny: Base, tmp_path: Path) -> None:
    export_pack(uneven_pack(tiny), "mlx-lm", tmp_path / "a")
    file = tmp_path / "a" / mlx_lm.TENSORS
    safetensors.numpy.save_file(
        safetensors.numpy.load_file(file) | {f"{Q0}.m": np.ones((4, 4), np.float32)}, file
    )
    with pytest.raises(BadPack, match="DoRA magnitudes"):
        mlx_lm.read(tmp_path / "a")


# --- GGUF


def half_split_rotation(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Rotary embedding as the hub's checkpoints want it: the halves of a head are the pairs."""
    first, second = np.split(x, 2)
    return np.concatenate(
        [first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)]
    )


def alternating_rotation(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """The same as llama.cpp computes it for these families: neighbours are the pairs."""
    even, odd = x[0::2], x[1::2]
    y = np.empty_like(x)
    y[0::2] = even * np.cos(angles) - odd * np.sin(angles)
    y[1::2] = odd * np.cos(angles) + even * np.sin(angles)
    return y


def test_rows_are_turned_as_the_rotation_of_llama_cpp_wants_them() -> None:
    random = np.random.default_rng(0)
    heads, width = 3, 8
    b = random.standard_normal((heads * width, 2))
    h, angles = random.standard_normal(2), random.standard_normal(width // 2)
    q, k = (b @ h).reshape(heads, width), (turned(b, heads) @ h).reshape(heads, width)
    for head in range(heads):
        ours = half_split_rotation(q[head], angles)
        theirs = alternating_rotation(k[head], angles)
        np.testing.assert_allclose(np.sort(theirs), np.sort(ours))  # the same numbers in another order
        np.testing.assert_allclose(theirs[0::2], ours[: width // 2])
        assert not np.allclose(np.sort(alternating_rotation(q[head], angles)), np.sort(ours))  # control
    assert np.array_equal(turned_back(turned(b, heads), heads), b)
    assert turned(b, 0) is b


def test_gguf_holds_the_pack_under_llama_cpp_names(llama: Base, tmp_path: Path) -> None:
    pack = uneven_pack(llama, scale=2.0)
    done = export_pack(pack, "gguf", tmp_path / "p.gguf", base=llama)
    assert done.exact and done.dtype == "float16" and done.proof is not None and done.proof.acts
    reader = gguf.GGUFReader(tmp_path / "p.gguf")
    fields = {key: field.contents() for key, field in reader.fields.items()}
    assert fields["general.type"] == "adapter" and fields["adapter.type"] == "lora"
    assert fields["general.architecture"] == "llama" and fields["adapter.lora.alpha"] == 0.0
    tensors = {t.name: np.array(t.data) for t in reader.tensors}
    names = {Q0: "blk.0.attn_q", K1: "blk.1.attn_k", "model.layers.1.mlp.down_proj": "blk.1.ffn_down"}
    for path, name in names.items():
        f = pack.factors[path]
        a, b = tensors[f"{name}.weight.lora_a"], tensors[f"{name}.weight.lora_b"]
        assert np.array_equal(a, f.a) and b.shape == f.b.shape
        heads = {Q0: 4, K1: 2}.get(path, 0)
        assert np.array_equal(turned_back(b, heads), (f.b * np.float16(2.0)))
    assert not np.array_equal(
        tensors["blk.0.attn_q.weight.lora_b"], pack.factors[Q0].b * 2
    )  # control: turned
    assert len(tensors) == 2 * len(pack.factors)


def test_gguf_of_a_family_that_is_not_turned(tiny: Base, tmp_path: Path) -> None:
    pack = uneven_pack(tiny, scale=1.0)
    export_pack(pack, "gguf", tmp_path / "p.gguf", base=tiny)
    tensors = {t.name: np.array(t.data) for t in gguf.GGUFReader(tmp_path / "p.gguf").tensors}
    assert np.array_equal(tensors["blk.0.attn_q.weight.lora_b"], pack.factors[Q0].b)


def test_gguf_of_an_unknown_family_or_module_is_refused(tiny: Base, tmp_path: Path) -> None:
    pack = uneven_pack(tiny)
    strange = dataclasses.replace(tiny, config=tiny.config | {"model_type": "plamo"})
    with pytest.raises(PlasticError, match="type 'plamo'"):
        export_pack(pack, "gguf", tmp_path / "p.gguf", base=strange)
    with pytest.raises(PlasticError, match="architecture"):
        export_pack(pack, "gguf", tmp_path / "p.gguf")
    odd = {"model.layers.0.self_attn.extra_proj": pack.factors[Q0]}
    with pytest.raises(BadPack, match="extra_proj"):
        export_pack(Pack(some_manifest(odd), odd), "gguf", tmp_path / "p.gguf", base=tiny)
    assert list(tmp_path.iterdir()) == []


# --- numbers


def update_of(a_size: float, b_size: float, scale: float = 1.0) -> Update:
    random = np.random.default_rng(0)
    a, b = random.standard_normal((4, 32)) * a_size, random.standard_normal((24, 4)) * b_size
    return Update(a.astype(np.float32), b.astype(np.float32), scale)


@pytest.mark.parametrize(
    ("a_size", "b_size", "scale"), [(0.02, 1e-7, 2.0), (1e6, 1e-6, 0.5), (1e-9, 1e-9, 1e6), (0.1, 0.1, -3.0)]
)
def test_balancing_saves_what_float16_would_lose(a_size: float, b_size: float, scale: float) -> None:
    update = update_of(a_size, b_size, scale)
    factors, errors = halved({"m": update}, {})
    assert errors["m"] < 1e-3 and factors["m"].alpha > 0
    with np.errstate(over="ignore"):
        plain = Factors(update.a.astype(np.float16), update.b.astype(np.float16), 4 * scale)
    assert relative_error(update, plain) > 0.02 or scale < 0  # control: a plain cast is far worse
    wanted = update.scale * update.b.astype(np.float64) @ update.a
    found = factors["m"].scale * factors["m"].b.astype(np.float64) @ factors["m"].a
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    np.testing.assert_allclose(errors["m"], error, rtol=1e-3)  # as the dense matrices tell


def test_an_update_of_uneven_components_keeps_every_one_of_them() -> None:
    update = update_of(1.0, 1.0)
    steps = np.array([1e-9, 1.0, 1e9, 1e3], np.float32)
    uneven = Update(update.a * steps[:, None], update.b / steps, 1.0)
    factors, errors = halved({"m": uneven}, {})
    assert errors["m"] < 1e-3 and np.abs(factors["m"].a).max() < 16


def test_numbers_that_no_float16_holds_are_refused() -> None:
    """Two components that all but cancel: what is left of them lies below their rounding."""
    update = update_of(1.0, 1.0)
    update.a[1:], update.b[:, 1:] = update.a[:1], -update.b[:, :1] / 3 * np.float32(1.00001)
    with pytest.raises(BadPack, match=r"m would change by \d+"):
        halved({"m": update}, {})


def test_folding_is_float16_only_where_that_is_exact() -> None:
    f = Factors(np.ones((2, 4), np.float16), np.full((4, 2), 1.003, np.float16), 4.0)
    assert folded({"m": f})["m"].b.dtype == np.float16
    for alpha in (0.2, 3e5):  # a product that needs more bits; one that overflows float16
        wide = folded({"m": f, "n": dataclasses.replace(f, alpha=alpha)})
        assert all(u.b.dtype == u.a.dtype == np.float32 for u in wide.values())


def test_a_rank_above_what_the_matrix_can_have_is_narrowed(tiny: Base, tmp_path: Path) -> None:
    pairs = peft_adapter(tmp_path / "a", tiny, ranks={"k_proj": 40}, alpha_pattern={"k_proj": 40})
    made = import_adapter(tmp_path / "a", "peft", name="theirs", base=tiny)
    a, b = pairs[K1]
    f = made.factors[K1]
    assert f.rank == 16
    np.testing.assert_allclose(f.scale * (f.b.astype(float) @ f.a), b @ a, atol=1e-3)


# --- what is refused, and what is left behind


def test_a_pack_that_does_nothing_is_refused(tiny: Base, tmp_path: Path) -> None:
    pack = uneven_pack(tiny)
    idle = {p: dataclasses.replace(f, b=f.b * 0) for p, f in pack.factors.items()}
    with pytest.raises(BadPack, match="does nothing"):
        export_pack(Pack(some_manifest(idle), idle), "mlx-lm", tmp_path / "out")
    peft_adapter(tmp_path / "a", tiny)
    change_tensors(tmp_path / "a", lambda t: t.update({n: x * 0 for n, x in t.items() if "lora_B" in n}))
    with pytest.raises(BadPack, match="does nothing"):
        import_adapter(tmp_path / "a", "peft", name="theirs", base=tiny)
    assert not (tmp_path / "out").exists()


def test_a_failed_export_leaves_nothing(tiny: Base, llama: Base, tmp_path: Path) -> None:
    pack = uneven_pack(tiny)
    for kind, name in (("peft", "out"), ("mlx-lm", "out"), ("gguf", "out.gguf")):
        with pytest.raises(BaseMismatch):
            export_pack(pack, kind, tmp_path / name, base=llama)  # type: ignore[arg-type]
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "taken").mkdir()
    with pytest.raises(PlasticError, match="there already"):
        export_pack(pack, "peft", tmp_path / "taken")
    done = export_pack(pack, "peft", tmp_path / "out", base=tiny, dry_run=True)
    assert done.exact and done.proof is not None
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


# --- the command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(plastic, arguments, prog_name="plastic")


def test_convert_out_and_in_again(home: Home, tiny: Base, tmp_path: Path) -> None:
    pack = uneven_pack(tiny, name="cooking")
    Store(home).add(pack.factors, pack.manifest)
    out, base = str(tmp_path / "out"), str(tiny.path)
    dry = run("packs", "convert", "cooking", "--to", "peft", "--out", out, "--base", base, "--dry-run")
    assert dry.exit_code == 0 and "WOULD BE" in dry.stdout and not (tmp_path / "out").exists()
    done = run("packs", "convert", "cooking", "--to", "peft", "--out", out, "--base", base, "--json")
    assert done.exit_code == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["exact"] and value["proof"]["mean_kl_nats"] > 0 and value["modules"] == len(pack.factors)
    again = run("packs", "convert", "cooking", "--to", "peft", "--out", out)
    assert again.exit_code == 1 and "there already" in again.stderr and "hint:" in again.stderr
    taken = run("packs", "convert", out, "--from", "peft", "--name", "back", "--base", base)
    assert taken.exit_code == 0 and "bit for bit" in taken.stdout
    assert Store(home).status("back") == "candidate"
    assert same_bits(Store(home).read("back").factors, pack.factors)
    shown = run("packs", "convert", "cooking", "--to", "mlx-lm", "--out", str(tmp_path / "plain"))
    assert shown.exit_code == 0 and "not measured" in shown.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["x"],
        ["x", "--to", "peft"],
        ["x", "--to", "peft", "--out", "y", "--name", "z"],
        ["x", "--from", "peft"],
        ["x", "--from", "peft", "--name", "z"],
        ["x", "--from", "gguf", "--name", "z"],
    ],
)
def test_wrong_usage_is_told(home: Home, arguments: list[str]) -> None:
    done = run("packs", "convert", *arguments)
    assert done.exit_code == 2 and "Usage" in done.stderr


def test_without_the_package_gguf_the_way_to_get_it_is_told(
    tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(PlasticError, match="gguf is not installed") as caught:
        export_pack(uneven_pack(tiny), "gguf", tmp_path / "p.gguf", base=tiny)
    assert "mlx-plastic[gguf]" in caught.value.hint
