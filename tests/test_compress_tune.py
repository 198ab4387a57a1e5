"""Tuning after rounding: nearer to the base at the same bytes, or nothing; and a crash in it does no harm."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import mlx_plastic.compress.revise as revising
import mlx_plastic.compress.student as students
import mlx_plastic.compress.tune as tuning
from mlx_plastic.backend import mx
from mlx_plastic.base import Base, load_base
from mlx_plastic.cli.main import plastic
from mlx_plastic.compress.apply import META, Applying, apply
from mlx_plastic.compress.make import Planning, make_plan
from mlx_plastic.compress.plan import Plan, write_plan
from mlx_plastic.compress.price import Pricing
from mlx_plastic.compress.student import Student
from mlx_plastic.compress.texts import read_texts
from mlx_plastic.compress.tune import Tuning, tune
from mlx_plastic.compress.wake import wake
from mlx_plastic.errors import BadData, PlasticError
from mlx_plastic.home import Home
from mlx_plastic.packs.extract.divergence import reference
from test_compress import load_file_raw, some, text_file
from tiny import make_checkpoint

TUNING = Tuning(steps=18, rate=5e-3, batch_tokens=400)
HOW = Applying(park="none", tuning=TUNING)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_file(tmp_path_factory.mktemp("data") / "texts.jsonl")


@pytest.fixture(scope="module")
def plan(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    how = Planning(budget="4.5bpw", pricing=Pricing(tried=False))
    return make_plan(str(checkpoint), how, data=data, metrics=tmp_path_factory.mktemp("plan") / "metrics")


@pytest.fixture(scope="module")
def untuned(checkpoint: Path, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("untuned") / "out"
    apply(plan, str(checkpoint), out, Applying(park="none"))
    return out


@pytest.fixture(scope="module")
def tuned(checkpoint: Path, data: Path, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "out"
    apply(plan, str(checkpoint), out, replace(HOW, park="all"), data=data)
    return out


def kl(base: Base, folder: Path, data: Path) -> float:
    with reference(base.model, read_texts(base, data, tokens=1).judged) as first:
        return first.distance(load_base(str(folder)).model).kl_nats


def test_tuned_lies_nearer_to_the_base_on_texts_it_never_saw_in_the_same_bytes(
    checkpoint: Path, data: Path, untuned: Path, tuned: Path
) -> None:
    base = load_base(str(checkpoint))
    assert kl(base, tuned, data) < 0.95 * kl(base, untuned, data)
    told = json.loads((tuned / META).read_text())["tuned"]
    assert told["kept"] and told["kl_after"] < told["kl_before"] and told["how"]["steps"] == TUNING.steps
    before, after = load_file_raw(untuned), load_file_raw(tuned)
    assert [(k, v.shape, v.dtype) for k, v in before.items()] == [
        (k, v.shape, v.dtype) for k, v in after.items()
    ]
    changed = {name for name, array in after.items() if not mx.array_equal(array, before[name])}
    assert changed and all(name.endswith((".scales", ".biases")) for name in changed)


def test_stock_mlx_lm_loads_it_and_says_what_was_measured(tuned: Path) -> None:
    from mlx_lm import load

    model, _ = load(str(tuned))
    ours = load_base(str(tuned)).logits([5, 6, 7])
    stock = model(mx.array([[5, 6, 7]]))[0].astype(mx.float32)
    np.testing.assert_allclose(np.array(ours), np.array(stock), atol=0.03)  # stock computes in 16 bits


def test_the_student_is_the_checkpoint_until_it_is_moved(untuned: Path) -> None:
    student = Student(untuned)
    mine = student.wear(student.still(), rounded=True)(mx.array([[5, 6, 7]]))[0]
    assert np.array_equal(np.array(mine), np.array(load_base(str(untuned)).logits([5, 6, 7])))
    moves = student.still()
    path = next(iter(moves))
    moves[path]["scales"] = moves[path]["scales"] + 0.5
    moved = student.wear(moves, rounded=True)(mx.array([[5, 6, 7]]))[0]
    assert not np.allclose(np.array(moved), np.array(mine), atol=1e-3)  # control


def test_computing_from_packed_codes_and_densely_gives_the_same_step(
    checkpoint: Path, untuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, texts = load_base(str(checkpoint)), some(2)
    dense = _one_step(base, Student(untuned), texts)
    monkeypatch.setattr(students, "is_slow_low_precision", lambda: False)
    monkeypatch.setattr(students, "widen", lambda model: "")
    packed_student = Student(untuned)
    assert all(grid.codes is None for grid in packed_student.grids.values())
    packed = _one_step(base, packed_student, texts)
    signs = [np.sign(np.array(dense[p]["scales"])) == np.sign(np.array(packed[p]["scales"])) for p in dense]
    assert np.mean(np.concatenate([s.ravel() for s in signs])) > 0.95  # 16-bit products round small slopes


def _one_step(base: Base, student: Student, texts: Any) -> Any:
    optimizer: Any = tuning.optim.Adam(learning_rate=1e-3)
    return tuning._stepped(base, student, student.still(), texts, optimizer)


def test_what_does_not_help_on_held_out_texts_is_not_kept(
    checkpoint: Path, data: Path, plan: Plan, untuned: Path, tmp_path: Path
) -> None:
    wild = replace(TUNING, rate=3.0, steps=6)  # every scale turned over, and over again when it is slower
    done = apply(plan, str(checkpoint), tmp_path / "out", replace(HOW, tuning=wild), data=data)
    assert done.tuned and not done.tuned["kept"] and done.tuned["best_step"] == 0
    theirs = load_file_raw(untuned)
    assert all(mx.array_equal(a, theirs[name]) for name, a in load_file_raw(tmp_path / "out").items())


def test_too_large_steps_are_taken_back_and_smaller_ones_tried(
    checkpoint: Path, data: Path, untuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(str(checkpoint))
    texts = read_texts(base, data, tokens=2000)
    large = replace(TUNING, rate=0.05, steps=24)
    found = tune(base, Student(untuned), texts.learned, texts.tried, large)
    assert found.kept and found.best_step > 4
    monkeypatch.setattr(tuning, "SLOWER", 1.0)  # control: as large again
    assert not tune(base, Student(untuned), texts.learned, texts.tried, large).kept


def test_the_same_seed_tunes_the_same(checkpoint: Path, data: Path, untuned: Path) -> None:
    base = load_base(str(checkpoint))
    texts = read_texts(base, data, tokens=400)
    short = replace(TUNING, steps=3)
    one, two, other = (
        tune(base, Student(untuned), texts.learned, texts.tried, replace(short, seed=seed)).stored
        for seed in (0, 0, 1)
    )
    path = next(iter(one))
    assert mx.array_equal(one[path]["scales"], two[path]["scales"])
    assert not mx.array_equal(one[path]["scales"], other[path]["scales"])  # control


@pytest.mark.parametrize("stage", ["tuning", "putting it in place"])
def test_a_tuning_broken_off_leaves_nothing_half_written_and_goes_on(
    stage: str,
    checkpoint: Path,
    data: Path,
    plan: Plan,
    tuned: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, calls = tmp_path / "out", 0
    stock = revising.Shards.replace

    def torn(self: Any, name: str, array: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        stock(self, name, array)

    def dies(done: int, total: int, detail: str) -> None:
        if stage == "tuning" and detail.startswith("tuning") and done == 2:
            raise KeyboardInterrupt

    if stage != "tuning":
        monkeypatch.setattr(revising.Shards, "replace", torn)
    with pytest.raises(KeyboardInterrupt):
        apply(plan, str(checkpoint), out, replace(HOW, park="all"), data=data, tick=dies)
    assert not out.exists()
    monkeypatch.undo()
    steps: list[str] = []
    tick = lambda done, total, detail: steps.append(detail)  # noqa: E731
    done = apply(plan, str(checkpoint), out, replace(HOW, park="all"), data=data, tick=tick)
    assert done.resumed > 0 and [p.name for p in tmp_path.iterdir()] == ["out"]
    assert any(s.startswith("tuning") for s in steps) == (
        stage == "tuning"
    )  # what was found is not sought again
    theirs = load_file_raw(tuned)
    assert all(mx.array_equal(a, theirs[name]) for name, a in load_file_raw(out).items())
    assert not (out / "tuned.safetensors").exists()


def test_what_is_parked_gives_the_base_back_from_a_tuned_checkpoint_too(
    checkpoint: Path, plan: Plan, tuned: Path, tmp_path: Path
) -> None:
    assert wake(tuned, tmp_path / "whole").exact
    whole, source = load_file_raw(tmp_path / "whole"), load_file_raw(checkpoint)
    for m in plan.matrices:
        if not m.scheme.is_whole:
            name = f"{m.module}.weight"
            assert mx.array_equal(whole[name], source[name].astype(mx.float16))


def test_experts_are_tuned_too(data: Path, tmp_path: Path) -> None:
    moe = make_checkpoint(tmp_path / "base", experts=4)
    how = Planning(budget="4.5bpw", pricing=Pricing(tried=False))
    made = make_plan(str(moe), how, data=data, metrics=tmp_path / "m")
    done = apply(made, str(moe), tmp_path / "out", HOW, data=data)
    assert done.tuned and done.tuned["kl_after"] < done.tuned["kl_before"]
    student = Student(tmp_path / "out")
    assert any("switch_mlp" in path for path in student.grids)


def test_tuning_says_what_it_needs_before_anything_is_written(
    checkpoint: Path, data: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="give data"):
        apply(plan, str(checkpoint), tmp_path / "out", HOW)
    monkeypatch.setattr(tuning, "free_memory_bytes", lambda: 1000)
    with pytest.raises(PlasticError, match="base and copy in memory") as told:
        apply(plan, str(checkpoint), tmp_path / "out", HOW, data=data)
    assert "--no-tune" in told.value.hint and list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    with pytest.raises(BadData):
        apply(plan, str(checkpoint), tmp_path / "out", HOW, data=tmp_path / "nowhere")


def test_the_command_tunes_and_refuses_what_makes_no_sense(
    checkpoint: Path, data: Path, plan: Plan, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_plan(tmp_path / "plan.json", plan)

    def ask(*words: str) -> Any:
        return CliRunner().invoke(plastic, ["compress", "apply", "--out", "small", *words])

    assert ask("--tune").exit_code == 2 and "--data" in ask("--tune").output
    assert ask("--data", str(data), "--tune-steps", "5").exit_code == 2
    assert ask("--data", str(data), "--tune", "--tune-rate", "0").exit_code == 2
    words = ("--data", str(data), "--tune", "--tune-steps", "6", "--tune-rate", "0.005", "--no-harness")
    done = ask(*words, "--json")
    assert json.loads(done.stdout)["tuned"]["how"]["rate"] == 0.005
    assert json.loads((tmp_path / "small" / META).read_text())["tuned"]["steps"] == 6
