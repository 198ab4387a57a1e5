"""Compression from end to end, on tiny checkpoints.

priced right, really smaller, loadable, and with a way back.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from mlx_plastic.backend import mx
from mlx_plastic.base import Base, load_base
from mlx_plastic.base.checkpoint import fingerprint
from mlx_plastic.base.weights import open_weights
from mlx_plastic.cli.main import plastic
from mlx_plastic.compress.apply import META, Applying, apply
from mlx_plastic.compress.calibrate import calibrated
from mlx_plastic.compress.cuts import with_cuts
from mlx_plastic.compress.judge import Bounds, decide
from mlx_plastic.compress.make import Planning, make_plan
from mlx_plastic.compress.park import Parked
from mlx_plastic.compress.plan import Plan, budget_bytes, explained, read_plan, write_plan
from mlx_plastic.compress.price import Pricing, opened, price
from mlx_plastic.compress.schemes import Scheme, nearest, rounded
from mlx_plastic.compress.shards import Shards
from mlx_plastic.compress.swaps import swapped
from mlx_plastic.compress.taps import at, storable
from mlx_plastic.compress.texts import read_texts
from mlx_plastic.compress.wake import wake
from mlx_plastic.errors import BadCheckpoint, BadConfig, BadData, BaseMismatch, Busy, PlasticError
from mlx_plastic.home import Home
from mlx_plastic.packs.extract.divergence import Distance, reference
from mlx_plastic.samples import Encoded
from test_attach import modules
from test_repair import WORDS, quantized
from tiny import make_checkpoint

Q = "model.layers.0.self_attn.q_proj"


def text_file(path: Path, count: int = 48) -> Path:
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, 30)) for _ in range(count)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_file(tmp_path_factory.mktemp("data") / "texts.jsonl")


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("moe") / "base", experts=4)


def some(count: int, seed: int = 0, length: int = 40) -> list[Encoded]:
    random = np.random.default_rng(seed)
    return [
        Encoded(tuple(random.integers(5, 300, length).tolist()), (False, *[True] * (length - 1)))
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def planned(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    folder = tmp_path_factory.mktemp("plan")
    how = Planning(budget="5.0bpw")
    return make_plan(str(checkpoint), how, data=data, metrics=folder / "metrics"), folder


@pytest.fixture(scope="module")
def small(checkpoint: Path, planned: tuple[Plan, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "small"
    apply(planned[0], str(checkpoint), out, Applying(park="all"))
    return out


# --- calibration


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_the_price_of_an_error_is_the_real_kl_of_it(kind: str, checkpoint: Path, moe: Path) -> None:
    base = load_base(str(checkpoint if kind == "dense" else moe))
    before = modules(base.model)
    curvatures = dict(calibrated(base.model, list(storable(base.model)), some(24)))
    assert modules(base.model) == before
    ratios = []
    with reference(base.model, some(12, seed=5)) as first:
        for path, found in curvatures.items():
            layer = at(base.model, path)
            w = np.array(layer.weight)
            off = nearest(w, Scheme(3, 32), "float16")
            told = sum(
                c.nats(one) for c, one in zip(found, (w - off).reshape(-1, *w.shape[-2:]), strict=True)
            )
            layer.weight = mx.array(off)
            ratios.append(first.distance(base.model).kl_nats / told)
            layer.weight = mx.array(w)
    most = 2 if kind == "dense" else 4  # a random router is often undecided, and its flips have no gradient
    assert 0.5 < np.median(ratios) < most
    assert np.mean([0.2 < ratio < 5 for ratio in ratios]) > 0.8


def test_experts_are_weighed_by_how_often_they_are_asked(moe: Path) -> None:
    base = load_base(str(moe))
    path = next(p for p in storable(base.model) if "switch_mlp.up_proj" in p)
    (found,) = (c for p, c in calibrated(base.model, [path], some(6)))
    assert len(found) == 4
    traces = [float(np.trace(c.metric)) for c in found]
    assert max(traces) > 1.2 * min(traces) >= 0


def test_a_few_matrices_at_a_time_give_the_same(checkpoint: Path) -> None:
    base = load_base(str(checkpoint))
    paths = list(storable(base.model))[:4]
    one = dict(calibrated(base.model, paths, some(4)))
    many = dict(calibrated(base.model, paths, some(4), chunk_bytes=1))
    for path in paths:
        np.testing.assert_allclose(one[path][0].metric, many[path][0].metric, rtol=1e-4)


# --- the plan


def test_a_plan_keeps_its_budget_and_says_how_good_it_is(planned: tuple[Plan, Path]) -> None:
    plan, _ = planned
    assert plan.nbytes <= plan.budget_bytes == budget_bytes("5.0bpw", plan.parameters)
    assert plan.exact and plan.bound <= plan.cost < sum(m.rtn_nats for m in plan.matrices)
    assert plan.by == "texts" and plan.calibration["tokens"] > 100
    text = "\n".join(explained(plan))
    assert "nats per token" in text and "no choice" in text


def test_a_plan_is_a_file_that_a_person_may_change(planned: tuple[Plan, Path], tmp_path: Path) -> None:
    plan, _ = planned
    file = tmp_path / "plan.json"
    write_plan(file, plan)
    assert read_plan(file) == plan
    value = json.loads(file.read_text())
    value["matrices"][0] |= {"bits": 8, "group_size": 32}
    file.write_text(json.dumps(value))
    changed = read_plan(file)
    assert changed.matrices[0].bits == 8 and changed.nbytes > plan.nbytes
    for wrong, text in (({"bits": 7}, "7 bits"), ({"group_size": 48}, "48"), ({"rank": 99}, "rank 99")):
        value["matrices"][0] |= {"bits": 8, "group_size": 32, "rank": None} | wrong
        file.write_text(json.dumps(value))
        with pytest.raises(BadConfig, match=text):
            read_plan(file)
    for content, text in (("{", "not JSON"), ("[]", "no plan"), ('{"format_version": 1}', "no plan")):
        file.write_text(content)
        with pytest.raises(BadConfig, match=text):
            read_plan(file)


def test_without_texts_a_plan_says_that_it_goes_by_rules_of_thumb(checkpoint: Path) -> None:
    plan = make_plan(str(checkpoint), Planning(budget="5.0bpw"))
    assert plan.by == "roles" and "rules of thumb" in "\n".join(explained(plan))
    assert not any(m.gptq for m in plan.matrices)


def surveyed(folder: Path) -> list[dict[str, Any]]:
    """Rows as a survey writes them, for every matrix of a file but the embedding."""
    found = []
    for name, w in load_file(folder / "model.safetensors").items():
        for scheme in (Scheme(3, 32), Scheme(4, 32), Scheme(8, 32), Scheme(4, 32, "mxfp4")):
            if w.ndim != 2 or "embed" in name:
                continue
            error = float(np.linalg.norm(w - nearest(w, scheme, "float16")) / np.linalg.norm(w))
            kind = {"mode": scheme.mode, "bits": scheme.bits, "group_size": scheme.group_size}
            found.append({"source_tensor": name, "w_rel_fro": error, **kind})
    return [*found, {**found[0], "w_rel_fro": None}]  # a scheme that failed


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_a_surveys_errors_make_the_plan_that_measuring_again_would(
    kind: str, checkpoint: Path, moe: Path
) -> None:
    folder = checkpoint if kind == "dense" else moe
    plan = make_plan(str(folder), Planning(budget="5.5bpw"), survey=surveyed(folder))
    again = make_plan(str(folder), Planning(budget="5.5bpw"))
    assert {m.module for m in plan.matrices} == {m.module for m in again.matrices}
    offered = {(m.bits, m.group_size) for m in plan.matrices if "embed" not in m.module}
    assert offered <= {(3, 32), (4, 32), (8, 32), (16, 0)} and plan.nbytes <= plan.budget_bytes
    same = {m.module: m for m in again.matrices}
    for m in plan.matrices:
        if m.scheme == same[m.module].scheme and m.bits < 16:
            assert m.kl_nats == pytest.approx(same[m.module].kl_nats, rel=0.02)
    with pytest.raises(BadConfig, match="measured no matrix"):
        make_plan(str(folder), Planning(), survey=[])


@pytest.mark.parametrize(
    ("text", "nbytes"), [("4.0bpw", 500), ("2.5GB", 2_500_000_000), ("1kib", 1024), ("300", 300)]
)
def test_budgets_are_read(text: str, nbytes: int) -> None:
    assert budget_bytes(text, 1000) == nbytes


@pytest.mark.parametrize("text", ["", "bpw", "-1GB", "many", "nanbpw", "infGB"])
def test_budgets_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BadConfig, match="number of bytes"):
        budget_bytes(text, 1000)


def test_an_impossible_budget_is_told_with_what_is_possible(checkpoint: Path) -> None:
    with pytest.raises(BadConfig, match="too few") as told:
        make_plan(str(checkpoint), Planning(budget="0.5bpw"))
    least = told.value.hint.split(" bytes")[0].split()[-1]
    assert make_plan(str(checkpoint), Planning(budget=least)).nbytes <= int(least)
    with pytest.raises(BadConfig):
        make_plan(str(checkpoint), Planning(budget=str(int(least) - 1)))


def test_two_bits_are_used_only_where_three_do_not_fit(checkpoint: Path) -> None:
    plan = make_plan(str(checkpoint), Planning(budget="3.3bpw"))
    assert min(m.bits for m in plan.matrices) == 2 and any("2 bits" in note for note in plan.notes)
    roomy = make_plan(str(checkpoint), Planning(budget="5.0bpw"))
    assert min(m.bits for m in roomy.matrices) >= 3
    with pytest.raises(BadConfig, match="too few"):
        make_plan(str(checkpoint), Planning(budget="3.3bpw", floor=3))


def test_under_three_bits_swaps_are_scored_by_the_kl_of_the_whole(checkpoint: Path, data: Path) -> None:
    base = load_base(str(checkpoint))
    before = modules(base.model), base.logits([5, 6, 7])
    how = Planning(budget="3.1bpw", swaps=6, pricing=Pricing(tried=False))
    plan = make_plan(str(checkpoint), how, data=data)
    (note,) = [note for note in plan.notes if "swaps" in note]
    first, last = (float(word) for word in note.split(": ")[1].split(" nats")[0].split(" -> "))
    assert last <= first and plan.nbytes <= plan.budget_bytes
    texts = read_texts(base, data, tokens=512)
    rows = price(opened(str(checkpoint), dequantize=False), how.pricing, data=data).rows
    start, room = [1] * len(rows), 64
    choice, history = swapped(base, rows, start, room, texts.tried, "float16", None, tries=4)
    assert history == sorted(history, reverse=True) and len(history) == 5
    assert (modules(base.model), True) == (before[0], bool(mx.array_equal(base.logits([5, 6, 7]), before[1])))
    grown = sum(r.offers[k].nbytes - r.offers[1].nbytes for r, k in zip(rows, choice, strict=True))
    assert grown <= room


def test_the_models_own_wish_for_a_layer_is_kept(moe: Path) -> None:
    plan = make_plan(str(moe), Planning(budget="4.3bpw"))
    routers = [m for m in plan.matrices if m.module.endswith("mlp.gate")]
    assert routers and all(m.bits >= 8 for m in routers)  # mlx-lm's qwen3_moe asks for 8 bits there
    assert min(m.bits for m in plan.matrices) < 8  # control


# --- what is written


def test_what_is_written_is_smaller_and_stock_mlx_lm_loads_it(
    checkpoint: Path, small: Path, planned: tuple[Plan, Path]
) -> None:
    from mlx_lm import load

    plan = planned[0]
    model, tokenizer = load(str(small))
    layers = storable(model)
    for m in plan.matrices:
        layer: Any = layers[m.module]
        if m.bits == 16:
            assert "scales" not in layer
        else:
            assert (layer.bits, layer.group_size, layer.mode) == (m.bits, m.group_size, m.mode)
    assert mx.isfinite(model(mx.array([[5, 6, 7]])).astype(mx.float32)).all()
    assert tokenizer.encode("Nora") and tokenizer.has_chat_template
    stored = sum(array.nbytes for array in load_file_raw(small).values())
    assert stored == plan.nbytes <= plan.budget_bytes
    source = sum(f.stat().st_size for f in checkpoint.glob("*.safetensors"))
    assert sum(f.stat().st_size for f in small.glob("*.safetensors")) < 0.4 * source
    meta = json.loads((small / META).read_text())
    assert meta["base_fingerprint"] == plan.base_fingerprint and meta["bytes"] == plan.nbytes


def load_file_raw(folder: Path) -> dict[str, mx.array]:
    found: dict[str, mx.array] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        found |= mx.load(str(file))  # type: ignore[arg-type]
    return found


def test_rounding_by_texts_lies_nearer_than_plain_rounding_of_as_many_bytes(
    checkpoint: Path, small: Path, data: Path, tmp_path: Path
) -> None:
    plain = quantized(checkpoint, tmp_path / "q4", bits=4)  # groups of 32: 5 bits per weight
    first = load_base(str(checkpoint))
    texts = read_texts(first, data, tokens=1).judged
    with reference(first.model, texts) as r:
        ours, theirs = (r.distance(load_base(str(folder)).model).kl_nats for folder in (small, plain))
    assert ours < 0.75 * theirs


def test_the_base_is_only_read(checkpoint: Path, small: Path) -> None:
    assert fingerprint(checkpoint) == json.loads((small / META).read_text())["base_fingerprint"]


def test_what_a_layer_computes_for_itself_is_not_written(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "base")
    config = json.loads((source / "config.json").read_text())
    scaling = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 256}
    config["rope_scaling"] = {"rope_type": "llama3", "factor": 8.0, **scaling}  # as Llama 3 has it
    config["time_step_limit"] = [0.0, math.inf]  # as Nemotron-H has it
    (source / "config.json").write_text(json.dumps(config))
    rope = load_base(str(source)).model.layers[0].self_attn.rope
    assert isinstance(rope["_freqs"], mx.array)  # control: there is such an array
    apply(make_plan(str(source), Planning(budget="6bpw")), str(source), tmp_path / "small", Applying())
    small = load_base(str(tmp_path / "small"))  # refuses what is no parameter
    assert small.config["time_step_limit"] == [0.0, math.inf]


def test_experts_are_compressed_and_load(moe: Path, data: Path, tmp_path: Path) -> None:
    plan = make_plan(
        str(moe), Planning(budget="4.5bpw", pricing=Pricing(tried=False)), data=data, metrics=tmp_path / "m"
    )
    apply(plan, str(moe), tmp_path / "out", Applying(rows=5))
    from mlx_lm import load

    model, _ = load(str(tmp_path / "out"))
    assert any("switch_mlp" in m.module and m.bits < 8 for m in plan.matrices)
    base = load_base(str(moe))
    with reference(base.model, some(6, seed=3)) as r:
        kl = r.distance(load_base(str(tmp_path / "out")).model).kl_nats
    assert 0 < kl < 0.5 and mx.isfinite(model(mx.array([[5, 6, 7]])).astype(mx.float32)).all()


def test_what_lies_beside_the_weights_is_carried_along(checkpoint: Path, tmp_path: Path) -> None:
    source = tmp_path / "base"
    shutil.copytree(checkpoint, source)
    for name in ("LICENSE", "README.md", "generation_config.json", "chat_template.jinja", "evil.py"):
        (source / name).write_text("{}")
    plan = make_plan(str(source), Planning(budget="5.0bpw"))
    apply(plan, str(source), tmp_path / "out", Applying())
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"LICENSE", "README.base.md", "generation_config.json", "chat_template.jinja"} <= names
    assert not {"evil.py", "README.md"} & names


@pytest.mark.parametrize("after", [7, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1, 20))])
def test_a_broken_off_apply_goes_on_and_ends_the_same(
    checkpoint: Path, planned: tuple[Plan, Path], small: Path, tmp_path: Path, after: int
) -> None:
    seen = 0

    def dies(done: int, total: int, detail: str) -> None:
        nonlocal seen
        if seen == after:
            raise KeyboardInterrupt
        seen += 1

    out, how = tmp_path / "out", Applying(park="all")
    with pytest.raises(KeyboardInterrupt):
        apply(planned[0], str(checkpoint), out, how, tick=dies)
    assert not out.exists()
    part = tmp_path / ".out.part"
    for file in part.glob("model*.safetensors"):  # what the crash left of the tensor that was being written
        with open(file, "ab") as torn:
            torn.write(b"torn")
    done = apply(planned[0], str(checkpoint), out, how)
    assert done.resumed >= min(after, 1) - 1 and not part.exists()
    theirs = load_file_raw(small)
    for name, array in load_file_raw(out).items():
        assert mx.array_equal(array, theirs[name]), name
    assert json.loads((out / "parked" / "parked.json").read_text()) == json.loads(
        (small / "parked" / "parked.json").read_text()
    )


def test_what_was_begun_by_another_plan_is_begun_anew(
    checkpoint: Path, planned: tuple[Plan, Path], tmp_path: Path
) -> None:
    def dies(done: int, total: int, detail: str) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply(planned[0], str(checkpoint), tmp_path / "out", Applying(), tick=dies)
    other = make_plan(str(checkpoint), Planning(budget="6.0bpw"))
    done = apply(other, str(checkpoint), tmp_path / "out", Applying())
    assert done.resumed == 0
    assert sum(a.nbytes for a in load_file_raw(tmp_path / "out").values()) == other.nbytes


def test_a_second_process_that_writes_the_same_checkpoint_is_refused(
    checkpoint: Path, planned: tuple[Plan, Path], tmp_path: Path
) -> None:
    part = tmp_path / ".out.part"
    part.mkdir()
    held = os.open(part, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)  # a lock of another descriptor is as good as another process
    with pytest.raises(Busy, match="another process writes"):
        apply(planned[0], str(checkpoint), tmp_path / "out", Applying())
    assert list(part.iterdir()) == []
    os.close(held)
    assert apply(planned[0], str(checkpoint), tmp_path / "out", Applying()).nbytes  # control
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_told_before_anything_is_written_and_while(
    checkpoint: Path, planned: tuple[Plan, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(PlasticError, match="1000 are free"):
        apply(planned[0], str(checkpoint), tmp_path / "out", Applying())
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    calls = 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mlx_plastic.compress.shards.sync", full)
    with pytest.raises(OSError, match="No space"):
        apply(planned[0], str(checkpoint), tmp_path / "out", Applying())
    monkeypatch.undo()
    assert apply(planned[0], str(checkpoint), tmp_path / "out", Applying()).resumed > 0


def test_many_shards_hold_what_one_holds(checkpoint: Path, tmp_path: Path) -> None:
    from mlx_plastic.compress.apply import layout

    plan = make_plan(str(checkpoint), Planning(budget="5.0bpw"))
    tensors = list(layout(open_weights(str(checkpoint)), plan))
    shards = Shards(tmp_path, tensors, "x", shard_bytes=5_000)
    for t in tensors:
        shards.write([(t.name, np.zeros(t.nbytes, np.uint8))])
    shards.close()
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert {n: a.shape for n, a in load_file_raw(tmp_path).items()} == {t.name: t.shape for t in tensors}


# --- the way back


def test_waking_gives_every_matrix_back_bit_for_bit(checkpoint: Path, small: Path, tmp_path: Path) -> None:
    done = wake(small, tmp_path / "again")
    assert done.exact and done.nbytes > done.bytes_before
    source, woken = load_file(checkpoint / "model.safetensors"), load_file_raw(tmp_path / "again")
    squeezed = load_file_raw(small)
    for name, w in source.items():
        want = w.astype(np.float16)
        np.testing.assert_array_equal(np.array(woken[name]), want)
    assert "model.layers.0.mlp.up_proj.scales" in squeezed  # control: that is not how it was stored
    from mlx_lm import load

    assert "quantization" not in json.loads((tmp_path / "again" / "config.json").read_text())
    load(str(tmp_path / "again"))


def test_one_matrix_can_be_woken_alone_and_the_rest_later(small: Path, tmp_path: Path) -> None:
    wake(small, tmp_path / "one", modules=[Q])
    quantized_now = set(open_weights(str(tmp_path / "one")).quantized)
    assert Q not in quantized_now and len(quantized_now) > 5
    assert Q not in Parked.open(tmp_path / "one").modules
    wake(tmp_path / "one", tmp_path / "rest")
    wake(small, tmp_path / "all")
    one, other = load_file_raw(tmp_path / "rest"), load_file_raw(tmp_path / "all")
    assert all(mx.array_equal(array, other[name]) for name, array in one.items())


@pytest.mark.parametrize("svd", ["exact", pytest.param("randomized", marks=pytest.mark.slow)])
def test_a_matrix_cut_to_a_rank_parks_what_was_removed(checkpoint: Path, svd: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    write_plan(file, make_plan(str(checkpoint), Planning(budget="9bpw")))
    value = json.loads(file.read_text())
    entry = next(m for m in value["matrices"] if m["module"] == Q)
    entry |= {"rank": 6, "bits": 16, "group_size": 0, "mode": "affine"}
    file.write_text(json.dumps(value))
    out = tmp_path / "out"
    done = apply(read_plan(file), str(checkpoint), out, Applying(svd=svd))  # type: ignore[arg-type]
    assert done.parked_bytes > 0 and list(Parked.open(out).modules) == [Q]
    source = load_file(checkpoint / "model.safetensors")[f"{Q}.weight"].astype(np.float32)
    cut = np.array(load_file_raw(out)[f"{Q}.weight"].astype(mx.float32))
    assert np.linalg.matrix_rank(cut, tol=1e-2) <= 6 < np.linalg.matrix_rank(source, tol=1e-2)
    wake(out, tmp_path / "some", components=10)
    some_back = np.array(load_file_raw(tmp_path / "some")[f"{Q}.weight"].astype(mx.float32))
    wake(out, tmp_path / "all")
    back = np.array(load_file_raw(tmp_path / "all")[f"{Q}.weight"].astype(mx.float32))
    np.testing.assert_array_equal(back, rounded(source, "float16"))
    assert 0 < np.linalg.norm(some_back - source) < np.linalg.norm(cut - source)


def test_directions_that_do_nothing_are_cut_and_those_that_do_are_woken(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    source = tmp_path / "base"
    shutil.copytree(checkpoint, source)
    weights = load_file(source / "model.safetensors")
    w = weights[f"{Q}.weight"]
    u, s, vt = np.linalg.svd(w)
    s[6:] = 1e-5
    weights[f"{Q}.weight"] = ((u * s) @ vt).astype(np.float32)
    save_file(weights, str(source / "model.safetensors"), metadata={"format": "pt"})
    base = load_base(str(source))
    before = modules(base.model), base.logits([5, 6, 7])
    plan, events = with_cuts(
        make_plan(str(source), Planning(budget="6bpw")), base, read_texts(base, data, tokens=1).tried
    )
    assert (modules(base.model), True) == (before[0], bool(mx.array_equal(base.logits([5, 6, 7]), before[1])))
    ranks = {m.module: m.rank for m in plan.matrices if m.rank}
    assert ranks[Q] <= 6 and "cut to a rank" in plan.notes[-1]
    assert {"shrink", "wake"} <= {event.kind for event in events}  # control: some cuts did hurt
    done = apply(plan, str(source), tmp_path / "out", Applying())
    assert done.parked_bytes > 0 and set(Parked.open(tmp_path / "out").modules) == set(ranks)
    wake(tmp_path / "out", tmp_path / "again", modules=[Q])
    np.testing.assert_array_equal(
        np.array(load_file_raw(tmp_path / "again")[f"{Q}.weight"]), weights[f"{Q}.weight"].astype(np.float16)
    )


def test_parked_parts_that_are_gone_or_damaged_are_told(small: Path, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="not parked"):
        wake(small, tmp_path / "out", modules=["model.nothing"])
    broken = tmp_path / "broken"
    shutil.copytree(small, broken)
    entry = Parked.open(broken).modules[Q]
    file = broken / "parked" / entry.file
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(BadCheckpoint, match="damaged"):
        wake(broken, tmp_path / "out", modules=[Q])
    other = Parked.open(small).modules["model.layers.1.self_attn.q_proj"]
    shutil.copyfile(small / "parked" / other.file, file)
    with pytest.raises(BadCheckpoint, match="belong together"):
        wake(broken, tmp_path / "out", modules=[Q])
    assert not (tmp_path / "out").exists() and not (tmp_path / ".out.part").exists()
    shutil.rmtree(broken / "parked")
    with pytest.raises(BadCheckpoint, match="nothing is parked"):
        wake(broken, tmp_path / "out")


# --- bad input


def test_a_quantized_source_needs_consent(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    four = quantized(checkpoint, tmp_path / "q4", bits=4)
    with pytest.raises(PlasticError, match="quantized already, to 4 bits"):
        make_plan(str(four), Planning(budget="4.0bpw"))
    plan = make_plan(str(four), Planning(budget="4.0bpw", pricing=Pricing(dequantize=True)))
    with pytest.raises(PlasticError, match="quantized already"):
        apply(plan, str(four), tmp_path / "out", Applying())
    apply(plan, str(four), tmp_path / "out", Applying(dequantize=True))
    assert mx.isfinite(load_base(str(tmp_path / "out")).logits([5, 6, 7])).all()


@pytest.mark.parametrize(
    ("value", "text"), [(np.nan, "not finite"), (np.inf, "not finite"), (1e6, "too large")]
)
def test_weights_that_cannot_be_stored_are_named(
    checkpoint: Path, planned: tuple[Plan, Path], tmp_path: Path, value: float, text: str
) -> None:
    source = tmp_path / "base"
    shutil.copytree(checkpoint, source)
    weights = load_file(source / "model.safetensors")
    weights[f"{Q}.weight"][1, 2] = value
    save_file(weights, str(source / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(BadCheckpoint, match=f"{Q} holds .*{text}"):
        make_plan(str(source), Planning(budget="5.0bpw"))


def test_a_plan_of_another_checkpoint_or_without_its_calibration_is_refused(
    checkpoint: Path, planned: tuple[Plan, Path], moe: Path, tmp_path: Path
) -> None:
    plan = planned[0]
    with pytest.raises(BaseMismatch, match="the plan is of checkpoint"):
        apply(plan, str(moe), tmp_path / "out", Applying())
    with pytest.raises(BadConfig, match="no calibration"):
        apply(plan, str(checkpoint), tmp_path / "out", Applying(), metrics=tmp_path / "none")
    apply(plan, str(checkpoint), tmp_path / "out", Applying(gptq=False), metrics=tmp_path / "none")
    with pytest.raises(PlasticError, match="exists"):
        apply(plan, str(checkpoint), tmp_path / "out", Applying())


def test_rank_deficient_and_idle_matrices_are_compressed(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    source = tmp_path / "base"
    shutil.copytree(checkpoint, source)
    weights = load_file(source / "model.safetensors")
    weights[f"{Q}.weight"][:] = np.outer(np.arange(32), np.ones(32)) * 1e-3
    weights["model.layers.1.mlp.down_proj.weight"][:] = 0
    save_file(weights, str(source / "model.safetensors"), metadata={"format": "pt"})
    how = Planning(budget="5.0bpw", pricing=Pricing(tried=False))
    plan = make_plan(str(source), how, data=data, metrics=tmp_path / "m")
    apply(plan, str(source), tmp_path / "out", Applying())
    assert mx.isfinite(load_base(str(tmp_path / "out")).logits([5, 6, 7])).all()


def test_texts_that_are_too_few_are_told(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="pieces of text"):
        make_plan(
            str(checkpoint), Planning(), data=text_file(tmp_path / "t.jsonl", 1), metrics=tmp_path / "m"
        )


# --- the gate, and the commands


def test_the_gate_fails_what_lies_too_far_off_or_is_no_number() -> None:
    base = Distance(0.0, 0.0, 2.0, 100)
    near, far, none = (Distance(kl, 0.01, 2.0 + kl, 100) for kl in (0.01, 0.4, float("nan")))
    tasks = {"a": True, "b": False}
    assert decide(base, near, tasks, tasks, Bounds()).passed
    assert not decide(base, far, tasks, tasks, Bounds()).passed
    assert not decide(base, none, {}, {}, Bounds()).passed
    lost = {f"t{i}": True for i in range(40)}
    assert not decide(base, near, lost, lost | {f"t{i}": False for i in range(3)}, Bounds()).passed
    assert dict(decide(base, near, {}, {}, Bounds()).unjudged)


def ask(*words: str) -> Result:
    return CliRunner().invoke(plastic, ["compress", *words])


def test_the_commands_plan_apply_judge_and_wake(
    checkpoint: Path, data: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = ["--base", str(checkpoint), "--data", str(data)]
    dry = ask("plan", *base, "--budget", "5bpw", "--dry-run", "--no-try")
    assert dry.exit_code == 0 and list(tmp_path.glob("plan*")) == []
    made = ask("plan", *base, "--budget", "5bpw", "--explain", "--no-try")
    assert made.exit_code == 0 and "q_proj" in made.stdout and "bits per weight" in made.stdout
    dry = ask("apply", "--out", "small", "--dry-run", "--json")
    assert json.loads(dry.stdout)["dry_run"] and not (tmp_path / "small").exists()
    done = ask("apply", "--out", "small", "--data", str(data), "--park", "all", "--json", "--no-harness")
    value = json.loads(done.stdout)
    assert value["judged"]["kl_nats"] > 0 and done.exit_code == (0 if value["judged"]["passed"] else 1)
    assert json.loads((tmp_path / "small" / META).read_text())["judged"] == value["judged"]
    assert json.loads(ask("wake", "small", "--out", "x", "--dry-run", "--json").stdout)["parked"]
    assert json.loads(ask("wake", "small", "--out", "whole", "--json").stdout)["exact"]
    shown = ask("gguf", "--source", str(checkpoint), "--name", "m").stdout.splitlines()
    assert shown[0].startswith("python convert_hf_to_gguf.py") and "llama-quantize" in shown[1]
    assert "--jinja" in shown[2]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("plan", "--base", "nano", "--budget", "huge"), 1),
        (("plan", "--base", "/nowhere", "--budget", "4bpw"), 1),
        (("plan", "--budget", "4bpw", "--floor", "1"), 2),
        (("plan",), 2),
        (("apply", "--out", "x", "--plan", "/nowhere"), 2),
        (("wake", "/nowhere", "--out", "x"), 2),
    ],
)
def test_mistakes_are_answered_without_a_traceback(home: Home, words: tuple[str, ...], code: int) -> None:
    answer = ask(*words)
    assert answer.exit_code == code and "Traceback" not in answer.output


def test_a_base_is_an_object_of_its_own_after_planning(checkpoint: Path, data: Path) -> None:
    base: Base = load_base(str(checkpoint))
    before = base.logits([5, 6, 7])
    make_plan(str(checkpoint), Planning(budget="5.0bpw", pricing=Pricing(tokens=64)), data=data)
    assert mx.array_equal(load_base(str(checkpoint)).logits([5, 6, 7]), before)


@pytest.mark.slow
def test_a_repair_pack_can_be_made_beside_it(
    checkpoint: Path, data: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ask("plan", "--base", str(checkpoint), "--data", str(data), "--budget", "4.2bpw", "--no-try")
    done = ask(
        *("apply", "--out", "small", "--data", str(data), "--no-harness"), "--repair-mb", "0.01", "--json"
    )
    assert json.loads(done.stdout)["repair_pack"] == "repair-small"
    assert "repair-small" in CliRunner().invoke(plastic, ["packs", "list"]).stdout
    assert ask("apply", "--out", "x", "--repair-mb", "1").exit_code == 2  # it learns from texts
