from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mlx_plastic.backend import mx, nn
from mlx_plastic.base import Base, load_base
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadCheckpoint, BadConfig, BadData
from mlx_plastic.home import Home
from mlx_plastic.lowrank.layers import linear_layers
from mlx_plastic.packs import Store
from mlx_plastic.packs.extract.covariance import input_covariances
from mlx_plastic.packs.extract.divergence import Distance, fit, reference
from mlx_plastic.packs.extract.repair import Repaired, Repairing, repair, weighted
from mlx_plastic.packs.extract.requantize import Option, Scheme, Upgrade, choose, quantized_anew
from mlx_plastic.packs.extract.worth import Worth
from mlx_plastic.samples import Encoded
from test_attach import modules
from tiny import TEXT, make_checkpoint

Q, K = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"
WORDS = TEXT.replace("?", "").replace(".", "").split()


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty texts of words that the tiny tokenizer knows, in random order."""
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    texts = [" ".join(random.choice(WORDS, 24)) for _ in range(40)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def quantized(source: Path, folder: Path, *, bits: int, linear_only: bool = False) -> Path:
    """The checkpoint quantized by mlx-lm's own tools, in groups of 32."""
    from mlx_lm.utils import load, quantize_model, save

    model, tokenizer, config = load(str(source), return_config=True)
    kind = {"quant_predicate": lambda _, m: isinstance(m, nn.Linear)} if linear_only else {}
    with contextlib.redirect_stdout(io.StringIO()):
        model, config = quantize_model(model, config, 32, bits, **kind)
        save(folder, str(source), model, tokenizer, config)
    return folder


@pytest.fixture(scope="module")
def four_bit(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantized(checkpoint, tmp_path_factory.mktemp("q") / "q4", bits=4, linear_only=True)


def repaired(checkpoint: Path, small: Path, data: Path, **how: Any) -> Repaired:
    return repair(str(checkpoint), str(small), data, "repair", Repairing(**how))


def some_texts(count: int = 6, length: int = 12, seed: int = 0) -> list[Encoded]:
    random = np.random.default_rng(seed)
    return [
        Encoded(tuple(random.integers(5, 300, length).tolist()), (False, *[True] * (length - 1)))
        for _ in range(count)
    ]


def test_covariances_are_those_of_what_comes_in(tiny: Base) -> None:
    texts, before = some_texts(), modules(tiny.model)
    found = next(iter(input_covariances(tiny.model, [K, Q], texts)))
    block, embed = tiny.model.model.layers[0], tiny.model.model.embed_tokens
    x = np.concatenate([np.array(block.input_layernorm(embed(mx.array(text.tokens)))) for text in texts])
    np.testing.assert_allclose(found[Q], x.T @ x / len(x), rtol=1e-4, atol=1e-5)
    assert found[K] is found[Q]  # queries and keys are given the very same input
    assert modules(tiny.model) == before
    small_chunks = input_covariances(tiny.model, [K, Q], texts, chunk_bytes=1)
    for chunk, path in zip(small_chunks, [K, Q], strict=True):
        np.testing.assert_allclose(chunk[path], found[path], rtol=1e-5)


def test_layers_of_other_inputs_do_not_share(tiny: Base) -> None:
    paths = list(linear_layers(tiny.model))
    found = next(iter(input_covariances(tiny.model, paths, some_texts())))
    assert len(found) == 14
    assert len({id(c) for c in found.values()}) == 8  # per block: q k v, o, gate up, down


def test_the_closed_form_is_the_best_of_its_rank_for_the_inputs() -> None:
    random = np.random.default_rng(0)
    residual = random.standard_normal((30, 20)).astype(np.float32)
    x = random.standard_normal((200, 20)) @ np.diag(0.7 ** np.arange(20)) @ random.standard_normal((20, 20))
    covariance = x.T @ x / len(x)
    root = np.linalg.cholesky(covariance).astype(np.float32)

    def error(update: np.ndarray) -> float:  # the mean squared error of the outputs
        return float(np.mean(np.sum(((residual - update) @ x.T) ** 2, axis=0)) ** 0.5)

    whole = weighted(residual, root, 20)
    best = (whole.u[:, :4] * whole.s[:4]) @ whole.vt[:4]
    assert error(best) == pytest.approx(np.linalg.norm(whole.s[4:]), rel=1e-3)  # as the spectrum says
    u, s, vt = np.linalg.svd(residual)
    assert error(best) < 0.8 * error((u[:, :4] * s[:4]) @ vt[:4])  # control: the SVD that sees no inputs
    values, vectors = np.linalg.eigh(covariance)  # QERA's own root, the symmetric one, gives the same
    symmetric = (vectors * np.sqrt(values)) @ vectors.T
    u, s, vt = np.linalg.svd(residual @ symmetric)
    qera = (u[:, :4] * s[:4]) @ vt[:4] @ np.linalg.inv(symmetric)
    np.testing.assert_allclose(best, qera, atol=1e-2 * np.abs(qera).max())


def test_at_full_rank_the_quantized_base_predicts_as_the_full_one(
    checkpoint: Path, four_bit: Path, data: Path
) -> None:
    made = repaired(checkpoint, four_bit, data, rank=10_000)
    assert made.worth.quantized.kl_nats > 1e-4  # control: four bits do change it
    assert made.worth.repaired.kl_nats < 1e-4 * made.worth.quantized.kl_nats  # float16 is left
    assert max(made.errors.values()) < 1e-3


def test_a_pack_of_low_rank_repairs_some_and_is_bound_to_the_quantized_base(
    checkpoint: Path, four_bit: Path, data: Path
) -> None:
    made = repaired(checkpoint, four_bit, data, rank=4, storage="int8")
    worth = made.worth
    assert 0 < worth.repaired.kl_nats < 0.9 * worth.quantized.kl_nats
    assert worth.full.kl_nats == 0 and worth.full.tokens == worth.repaired.tokens > 100
    assert made.manifest.base_fingerprint == load_base(str(four_bit)).fingerprint
    assert made.manifest.storage == "int8" and made.manifest.training["made_by"] == "repair"
    assert made.manifest.data.samples == 32  # of forty texts eight are held out
    assert worth.more_bits is not None and worth.upgrades
    assert sum(up.extra_bytes for up in worth.upgrades) <= made.manifest.sizes.tensor_bytes
    assert worth.verdict == made.manifest.evals["verdict"]
    loose = repaired(checkpoint, four_bit, data, rank=1)
    assert loose.worth.repaired.kl_nats > worth.repaired.kl_nats  # control: less rank repairs less


def test_a_budget_is_kept(checkpoint: Path, four_bit: Path, data: Path) -> None:
    made = repaired(checkpoint, four_bit, data, budget_bytes=9_000, storage="int8")
    assert 7_000 < made.manifest.sizes.tensor_bytes <= 9_000
    assert len(set(made.manifest.rank_map.values())) > 1


def test_what_is_quantized_and_not_repaired_is_named(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    small = quantized(checkpoint, tmp_path / "q", bits=4)
    made = repaired(checkpoint, small, data, rank=4)
    assert made.notes == ("quantized too, and not repaired: model.embed_tokens",)
    moe = make_checkpoint(tmp_path / "moe", hidden=64, experts=4)
    made = repaired(moe, quantized(moe, tmp_path / "moe4", bits=4), data, rank=4)
    assert "switch_mlp" in made.notes[0] and not any("switch_mlp" in path for path in made.factors)


def test_pairs_that_are_none_and_too_little_text_are_refused(
    checkpoint: Path, four_bit: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadCheckpoint, match="is not quantized"):
        repaired(checkpoint, checkpoint, data, rank=2)
    with pytest.raises(BadCheckpoint, match="not of one architecture"):
        repaired(make_checkpoint(tmp_path / "other", hidden=64), four_bit, data, rank=2)
    with pytest.raises(BadConfig, match="no size"):
        repaired(checkpoint, four_bit, data)
    one = tmp_path / "one.jsonl"
    one.write_text(json.dumps({"text": TEXT}) + "\n")
    with pytest.raises(BadData, match="less than two texts"):
        repaired(checkpoint, four_bit, one, rank=2)


# --- how far predictions lie apart


def test_the_distance_is_the_kl_of_the_predictions(checkpoint: Path, four_bit: Path) -> None:
    full, small = load_base(str(checkpoint)), load_base(str(four_bit))
    texts = some_texts()
    with reference(full.model, texts) as first:
        same, other = first.distance(full.model), first.distance(small.model)
    kls = []
    for text in texts:
        p, q = (np.array(base.logits(text.tokens[:-1]), np.float64) for base in (full, small))
        p, q = (x - np.log(np.exp(x).sum(axis=-1, keepdims=True)) for x in (p, q))
        kls.append(np.sum(np.exp(p) * (p - q), axis=-1))
    assert other.kl_nats == pytest.approx(np.concatenate(kls).mean(), rel=1e-3)
    assert same.kl_nats == 0 and same.nll == first.own.nll
    assert other.tokens == 66 and other.spread > 0
    nats = sum(nats for nats, _ in full.nll(texts)) / 66
    assert first.own.nll == pytest.approx(nats, rel=1e-5)


def test_only_as_many_texts_as_fit_are_kept() -> None:
    texts = some_texts(6, 11)
    assert len(fit(texts, 35)) == 3 and len(fit(texts, 1)) == 1 and len(fit(texts, 10**9)) == 6


def distance(*per_text: float) -> Distance:
    pairs = tuple((kl, 10) for kl in per_text)
    return Distance(sum(per_text) / (10 * len(per_text)), 0.1, 2.0, 10 * len(per_text), pairs)


def test_the_verdict_says_what_is_the_better_use_of_the_bytes() -> None:
    upgrades = (Upgrade(Q, Scheme(5, 32), 100),)
    worth = Worth(distance(0, 0, 0), distance(9, 9, 9), distance(1, 2, 3), distance(4, 5, 6), upgrades)
    assert worth.better == "pack" and "the pack is the better use" in worth.verdict
    worse = dataclasses.replace(worth, repaired=worth.more_bits, more_bits=worth.repaired)
    assert worse.better == "more bits" and "MORE BITS ARE THE BETTER USE" in worse.verdict
    even = dataclasses.replace(worth, more_bits=distance(6, 2, -2))
    assert even.better == "equal" and "neither is better" in even.verdict
    alone = dataclasses.replace(worth, more_bits=None, upgrades=())
    assert alone.better == "pack" and "would not buy more bits" in alone.verdict


# --- other bits for the same bytes


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_a_scheme_takes_the_bytes_that_mlx_takes(bits: int, group_size: int) -> None:
    w = mx.random.normal((12, 256), key=mx.random.key(0)).astype(mx.float16)
    parts = mx.quantize(w, group_size=group_size, bits=bits)
    assert Scheme(bits, group_size).nbytes((12, 256)) == sum(part.nbytes for part in parts)
    wide = quantized_anew(np.array(w.astype(mx.float32)), Scheme(bits, group_size, "float16"))
    mlx = np.array(mx.dequantize(*parts, group_size=group_size, bits=bits).astype(mx.float32))
    np.testing.assert_allclose(wide, mlx, atol=0.02)


def test_upgrades_are_the_best_that_fit() -> None:
    def option(extra: int, gain: float) -> Option:
        return Option(Scheme(5, 32), extra, gain)

    offers = {"a": [option(10, 5.0), option(20, 8.0)], "b": [option(10, 4.0), option(12, 0.5)]}
    assert {up.module: up.extra_bytes for up in choose(offers, 20)} == {"a": 10, "b": 10}
    assert {up.module: up.extra_bytes for up in choose(offers, 30)} == {"a": 20, "b": 10}
    assert {up.module: up.extra_bytes for up in choose(offers, 12)} == {"a": 10}
    assert choose(offers, 9) == ()
    late = {"a": [option(10, 1.0), option(20, 8.0)]}  # the first alone is not worth its bytes
    assert [up.extra_bytes for up in choose(late, 15)] == []


# --- the command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(plastic, ["packs", "from-delta", *arguments], prog_name="plastic")


def test_the_command_stores_a_repair_pack_and_says_what_it_is_worth(
    home: Home, checkpoint: Path, four_bit: Path, data: Path
) -> None:
    arguments = ("--base", str(checkpoint), "--quantized", str(four_bit), "--name", "repair", "--rank", "4")
    done = run(*arguments, "--data", str(data), "--storage", "int8")
    assert done.exit_code == 0, done.output
    assert "the pack takes the KL from" in done.stdout and "more bits instead" in done.stdout
    assert Store(home).read("repair").manifest.base_fingerprint == load_base(str(four_bit)).fingerprint
    dry = run(*arguments[:-3], "other", "--rank", "2", "--data", str(data), "--json", "--dry-run")
    value = json.loads(dry.stdout)
    assert value["kl_nats_repaired"] < value["kl_nats_quantized"] and value["upgrades"]
    assert value["better_use"] in ("pack", "more bits", "equal")
    assert Store(home).names() == ["repair"]
    assert run(*arguments).exit_code == 2  # no data
    assert run(*arguments, "--data", str(data), "--tuned", str(checkpoint)).exit_code == 2
