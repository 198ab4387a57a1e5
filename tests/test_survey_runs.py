"""Runs beside each other, texts through experts, engines and sources: the same rows from all of them."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten

from families import DENSE_HUB, HUB, build, mixture, randomized, save
from mlx_plastic.backend import mx
from mlx_plastic.base import load_base
from mlx_plastic.errors import BadData, BaseNotFound, PlasticError
from mlx_plastic.survey import columns, engines
from mlx_plastic.survey.collect import collect, plan_collect
from mlx_plastic.survey.compare import compare_runs
from mlx_plastic.survey.config import Output
from mlx_plastic.survey.folder import RunFolder, init_run
from mlx_plastic.survey.frames import find_table, read_table, write_table
from mlx_plastic.survey.tables import deltas
from mlx_plastic.survey.units import Unit, is_done
from mlx_plastic.survey.watch import _switches, expert_stacks, join_errors, layer_of, watch, write_watched
from test_survey_cli import plastic
from tiny import make_checkpoint

FAST = {"stats": {"spectra": False}, "output": {"format": "csv"}}
SCHEME = [{"name": "q4", "mode": "affine", "bits": 4, "group_size": 32}]


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("moe"), experts=4)


def surveyed(
    model: Path | str, root: Path, *, engine: Any = "local", workers: int = 1, **more: Any
) -> RunFolder:
    given = FAST | {"model_path": str(model), "quant_schemes": SCHEME} | more
    run, _ = init_run(root, given, model_id="m")
    collect(run, plan_collect(run), engine=engine, workers=workers)
    return run


def rows(run: RunFolder, table: str = "quant_sim") -> list[dict[str, Any]]:
    names = columns.QUANT if table == "quant_sim" else columns.matrix_columns(run.config().stats)
    return list(read_table(run.data / table, names))


# -- compare


def test_a_run_against_itself_moves_nothing_and_against_a_quantized_one_what_it_moved(
    moe: Path, tmp_path: Path
) -> None:
    base = load_base(str(moe))
    stacked = tmp_path / "stacked"
    stacked.mkdir()
    weights = {k: v for k, v in mx.load(str(moe / "model.safetensors")).items()}
    louder = {
        k: v * 2 if "layers.1.self_attn.q_proj" in k else v for k, v in base.model.sanitize(weights).items()
    }
    mx.save_safetensors(str(stacked / "model.safetensors"), louder)
    (stacked / "config.json").write_text((moe / "config.json").read_text())
    one, two = surveyed(moe, tmp_path / "one"), surveyed(stacked, tmp_path / "two")
    same = compare_runs(one, one)
    assert same.only_first == same.only_second == []
    assert {row["change"] for row in same.rows} == {0.0}
    found = compare_runs(one, two)  # the hub's layout against MLX's
    assert found.only_first == found.only_second == []
    moved = [row for row in found.rows if row["change"]]
    assert {row["derived_tensor"] for row in moved} == {"model.layers.1.self_attn.q_proj.weight"}
    assert [row["relative"] for row in moved if row["measure"] == "rms"] == [pytest.approx(1.0)]
    done = plastic("compare", one.path, two.path, "--json", "--out", tmp_path / "moved.csv")
    told = json.loads(done.stdout)
    assert told["largest"][0]["derived_tensor"] == "model.layers.1.self_attn.q_proj.weight"
    assert len((tmp_path / "moved.csv").read_text().splitlines()) == len(found.rows) + 1


@pytest.mark.parametrize("name", ["deepseek_v41", "gpt_neox", "longcat_flash", "qwen3_vl"])
def test_layouts_compare_although_names_and_prefixes_differ(tmp_path: Path, name: str) -> None:
    """LongCat has two attentions a layer; of GPT-NeoX and DeepSeek V4.1 hardly a name is the same."""
    tensors = dict(tree_flatten((mixture(name) if name in HUB else randomized(build(name))).parameters()))
    hub = (HUB.get(name) or DENSE_HUB[name])(tensors)
    config = {"model_type": name}
    one = surveyed(save(tmp_path / "mlx", tensors, config), tmp_path / "one", quant_schemes=[])
    two = surveyed(save(tmp_path / "hub", hub, config), tmp_path / "two", quant_schemes=[])
    found = compare_runs(one, two)
    assert found.only_first == found.only_second == []
    assert {row["change"] for row in found.rows} == {0.0}
    assert len({row["derived_tensor"] for row in found.rows}) == len(rows(one, "matrix_stats"))
    del hub[rows(two, "matrix_stats")[0]["source_tensor"]]
    less = surveyed(save(tmp_path / "less", hub, config), tmp_path / "three", quant_schemes=[])
    assert len(compare_runs(one, less).only_first) == 1  # control


def test_runs_of_two_models_have_nothing_in_common(moe: Path, tmp_path: Path) -> None:
    one = surveyed(moe, tmp_path / "one", scan={"experts_only": True})
    dense = make_checkpoint(tmp_path / "dense")
    two = surveyed(dense, tmp_path / "two", parsing={"builtin_rules": False})
    with pytest.raises(BadData, match="no matrix in common"):
        compare_runs(one, two)


# -- watch


def routed_by_hand(model: Any, tokens: list[int]) -> dict[int, np.ndarray]:
    """Of each layer how often each expert is among the two largest of the router's logits."""
    seen: dict[int, np.ndarray] = {}
    for i, layer in enumerate(model.model.layers):
        gate = layer.mlp.gate
        kept: list[mx.array] = []
        kind = type(gate)
        gate.__class__ = type(
            "G", (kind,), {"__call__": lambda self, x, k=kept, c=kind: (k.append(x), c.__call__(self, x))[1]}
        )
        mx.eval(model(mx.array(tokens)[None]))
        gate.__class__ = kind
        logits = np.array(gate(kept[0])).reshape(-1, 4)
        top = np.argsort(-logits, axis=1)[:, :2]
        seen[i] = np.bincount(top.reshape(-1), minlength=4)
    return seen


def test_watching_counts_what_the_routers_choose_and_leaves_the_model_as_it_was(moe: Path) -> None:
    base = load_base(str(moe))
    tokens = [int(t) for t in np.random.default_rng(0).integers(5, 200, 90)]
    before = np.array(base.model(mx.array(tokens)[None]))
    found = watch(base.model, tokens, window=1000)
    for path, counts in found.counts.items():
        assert counts.tolist() == routed_by_hand(base.model, tokens)[int(path.split(".")[2])].tolist()
        assert counts.sum() == 2 * len(tokens)
    assert np.array_equal(np.array(base.model(mx.array(tokens)[None])), before)
    for row in found.layers():
        assert 1 <= row["effective_experts"] <= row["experts"] == 4
        assert row["experts_per_token"] == 2
    assert sum(row["share"] for row in found.rows()) == pytest.approx(2)  # one a layer


TEXT = [int(t) for t in np.random.default_rng(1).integers(0, 64, 24)]
NEEDS_METAL = {"muse_spark"}  # mlx-lm computes it with kernels of its own


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.metal) if n in NEEDS_METAL else n for n in sorted(HUB)]
)
def test_what_is_counted_is_what_a_family_computes_with(name: str) -> None:
    """An expert of the last layer was chosen by those tokens whose answer changes when its weights do."""
    model = mixture(name)
    found, stacks = watch(model, TEXT), expert_stacks(model)
    path = list(found.counts)[-1]
    before = answers(model)
    changed = []
    for expert in range(len(found.counts[path])):
        kept = spoil(stacks[path], expert)
        changed.append(int((answers(model) != before).any(-1).sum()))
        for layer, weight in kept:
            layer.weight = weight
    assert found.counts[path].tolist() == changed
    assert [layer_of(path) for path in found.counts] == sorted(layer_of(path) or 0 for path in found.counts)
    assert len(set(changed)) > 1  # control: counts of others would not do
    for layer in found.layers():
        told = found.counts[layer["module"]].sum() + layer["zero_experts"]
        assert told == layer["experts_per_token"] * len(TEXT)


def answers(model: Any) -> np.ndarray:
    """The logits of each token of the text, (tokens, vocabulary)."""
    return np.array(model(mx.array(TEXT)[None])[0].astype(mx.float32))


def spoil(stack: Any, expert: int) -> list[tuple[Any, mx.array]]:
    """Changes the weights of one expert much. Returns its layers and what they held."""
    layers = list(stack[expert].children().values()) if isinstance(stack, list) else _switches(stack)
    kept = [(layer, layer.weight) for layer in layers]
    for layer in layers:
        w = np.array(layer.weight)
        w[... if isinstance(stack, list) else expert] *= -3
        layer.weight = mx.array(w)
    return kept


def test_a_choice_of_an_expert_that_computes_nothing_is_none_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LongCat's: what reaches the stack is expert 0, with weight 0."""
    model = mixture("longcat_flash")
    found = watch(model, TEXT)
    assert min(found.zeros.values()) > 0
    monkeypatch.setattr("mlx_plastic.survey.watch._zero_routers", lambda model, stacks: {})
    naive = watch(model, TEXT)  # control: counted where the experts are called
    for path, counts in naive.counts.items():
        assert counts[0] == found.counts[path][0] + found.zeros[path]
        assert counts[1:].tolist() == found.counts[path][1:].tolist()


def test_watched_experts_are_joined_with_their_errors(
    moe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLX_PLASTIC_HOME", str(tmp_path / "home"))
    run = surveyed(moe, tmp_path / "runs")
    text = tmp_path / "text.txt"
    text.write_text("Nora lives in Lisbon. " * 20)
    done = plastic("watch", run.path, "--text", text, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == {
        "routing": 8, "C_routing_layer_summary": 2, "C_routing_errors": 8
    }  # fmt: skip
    quant = [r for r in rows(run) if (r["layer"], r["expert_id"]) == (1, 2)]
    square = sum(r["rows"] * r["cols"] * r["w_rel_fro"] ** 2 for r in quant) / sum(
        r["rows"] * r["cols"] for r in quant
    )
    joined = {(r["layer"], r["expert_id"]): r for r in read_csv(run.tables / "C_routing_errors.csv")}
    assert float(joined["1", "2"]["w_rel_fro"]) == pytest.approx(square**0.5)
    assert "Lisbon" not in done.stderr
    assert plastic("plots", run.path).returncode == 0
    assert (run.plots / "heat_routing.svg").exists()


def read_csv(path: Path) -> list[dict[str, str]]:
    import csv

    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_dense_model_has_nothing_to_watch(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(PlasticError, match="no stacks of experts"):
        watch(load_base(str(checkpoint)).model, [1, 2, 3])


# -- sources and engines


def test_a_url_is_read_by_byte_ranges_and_gives_the_same_rows(moe: Path, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in moe.iterdir():
        memory.pipe(f"/bucket/moe/{path.name}", path.read_bytes())
    local = surveyed(moe, tmp_path / "local")
    remote = surveyed("memory://bucket/moe", tmp_path / "remote", workers=0)
    assert rows(remote) == rows(local)
    assert rows(remote, "matrix_stats") == rows(local, "matrix_stats")
    with pytest.raises(BaseNotFound, match="cannot open"):
        surveyed("nosuch://bucket/x", tmp_path / "none")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_an_engine_gives_the_same_rows(moe: Path, tmp_path: Path, engine: str) -> None:
    if importlib.util.find_spec("distributed" if engine == "dask" else "ray") is None:
        pytest.skip(f"the extra {engine} is not installed")
    local = surveyed(moe, tmp_path / "local")
    assert rows(surveyed(moe, tmp_path / engine, engine=engine, workers=2)) == rows(local)


def test_an_engine_that_is_not_installed_is_named(moe: Path, tmp_path: Path) -> None:
    missing = [
        e
        for e, module in (("dask", "distributed"), ("ray", "ray"))
        if importlib.util.find_spec(module) is None
    ]
    for engine in missing:
        with pytest.raises(PlasticError, match=f"engine {engine} is not installed"):
            surveyed(moe, tmp_path / engine, engine=engine)


def dies_once(unit: Unit) -> dict[str, Any]:
    """A worker that is killed the first time that it is given a unit, as when memory runs out."""
    mark = Path(os.environ["MLX_PLASTIC_TEST_MARK"])
    if not mark.exists():
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return {"key": unit.key, "name": unit.name}


def dies_always(unit: Unit) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "dask", "ray"])
def test_a_lost_worker_costs_its_unit_a_second_try(
    moe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Any
) -> None:
    module = {"dask": "distributed", "ray": "ray"}.get(engine)
    if module and importlib.util.find_spec(module) is None:
        pytest.skip(f"the extra {engine} is not installed")
    monkeypatch.setenv("MLX_PLASTIC_TEST_MARK", str(tmp_path / "mark"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)  # of the two above
    run, _ = init_run(tmp_path, FAST | {"model_path": str(moe), "quant_schemes": []})
    (unit,) = plan_collect(run).units
    units = [replace(unit, name=f"{i}.json") for i in range(4)]
    monkeypatch.setattr(engines, "do_unit", dies_once)
    assert {u.name for u, _ in engines.run_units(units, engine, workers=2)} == {u.name for u in units}
    assert (tmp_path / "mark").exists()  # control: one was lost
    monkeypatch.setattr(engines, "do_unit", dies_always)
    lost = "was lost 3 times" if engine == "local" else f"a unit failed on {engine}"
    with pytest.raises(PlasticError, match=lost):
        list(engines.run_units(units[:2], engine, workers=2))


def test_a_survey_that_is_killed_goes_on_and_ends_with_the_same_rows(tmp_path: Path) -> None:
    """Killed while parts come in: those that are there are whole, and are not made again."""
    model = tmp_path / "model"
    model.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        w = mx.array(rng.standard_normal((256, 2048)).astype(np.float32))
        mx.save_safetensors(
            str(model / f"model-{i}.safetensors"), {f"model.layers.{i}.mlp.up_proj.weight": w}
        )
    whole = surveyed(model, tmp_path / "whole")
    run, _ = init_run(
        tmp_path / "killed", FAST | {"model_path": str(model), "quant_schemes": SCHEME}, model_id="m"
    )
    code = (
        "import sys, time; from pathlib import Path; from mlx_plastic.survey import collect as c;"
        "from mlx_plastic.survey.folder import RunFolder; run = RunFolder(Path(sys.argv[1]));"
        "w = c.write_part; c.write_part = lambda *a: (w(*a), time.sleep(0.3));"
        "c.collect(run, c.plan_collect(run))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(run.path)])
    deadline = time.monotonic() + 60
    while len(list(run.parts.glob("*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert not find_table(run.data / "quant_sim")
    plan = plan_collect(run)
    assert 2 <= len(plan.units) - len(plan.todo) < 6
    stamps = {u.name: (run.parts / u.name).stat().st_mtime_ns for u in plan.units if is_done(run.parts, u)}
    collect(run, plan)
    assert rows(run) == rows(whole)
    assert {name: (run.parts / name).stat().st_mtime_ns for name in stamps} == stamps


# -- tables


def test_deltas_are_a_minus_b_of_rows_without_an_error() -> None:
    common = dict.fromkeys(columns.QUANT)
    given = [
        common | {"derived_tensor": "x", "scheme": s, "w_rel_fro": e, "error": why}
        for s, e, why in (("a", 0.5, None), ("b", 0.2, None), ("c", None, "it failed"))
    ]
    pairs = [{"name": "ab", "a": "a", "b": "b"}, {"name": "ac", "a": "a", "b": "c"}]
    (row,) = deltas(given, pairs)
    assert (row["pair"], row["w_rel_fro_delta"], row["sqnr_db_delta"]) == ("ab", 0.3, None)
    with pytest.raises(BadData, match="'x' with scheme 'a' twice"):
        list(deltas([*given, given[0]], pairs))


NAMES = columns.typed("layer", "is_routed_expert", "proj", "mean")
TABLE = [
    {"layer": 0, "is_routed_expert": True, "proj": 'a,"b"\n', "mean": 0.1 + 0.2},
    {"layer": None, "is_routed_expert": False, "proj": None, "mean": 1e-300},
]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_reads_back_as_it_was_written(tmp_path: Path, form: str) -> None:
    if form == "parquet" and importlib.util.find_spec("duckdb") is None:
        pytest.skip("the extra survey is not installed")
    path, count, warning = write_table(tmp_path / "t", NAMES, TABLE, Output(format=form))  # type: ignore[arg-type]
    assert (path.suffix, count, warning) == (f".{form}", 2, "")
    assert list(read_table(tmp_path / "t", NAMES)) == TABLE
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # nothing left beside it


def test_without_duckdb_parquet_falls_back_to_csv_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlx_plastic.survey.frames.has_parquet", lambda: False)
    path, _, warning = write_table(tmp_path / "t", NAMES, TABLE, Output(format="parquet"))
    assert path.suffix == ".csv"
    assert "mlx-plastic[survey]" in warning
    assert write_table(tmp_path / "t", NAMES, TABLE, Output())[2] == ""  # "auto" does without in silence


def test_joining_another_model_is_an_error(moe: Path, tmp_path: Path) -> None:
    run = surveyed(moe, tmp_path)
    found = watch(load_base(str(moe)).model, [7, 8, 9])
    assert write_watched(run, found, Output(format="csv"))["C_routing_errors"] == 8
    far = [row | {"layer": 77} for row in rows(run)]
    with pytest.raises(BadData, match="no expert of the survey was watched"):
        join_errors(found, iter(far))
