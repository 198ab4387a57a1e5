"""`plastic survey` as a person runs it on tiny folders: rows, columns, values, and bad input."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

from mlx_plastic.cli.main import plastic as group
from mlx_plastic.survey.plain import to_bf16
from test_survey_rules import write_safetensors

SCRIPT = "import sys; from mlx_plastic.cli.main import main; main()"
GATE, UP, DOWN = "gate_proj", "up_proj", "down_proj"


def plastic(*arguments: object, apart: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
    """`plastic survey …`; apart, or with variables of its own, as a process of its own."""
    given = ["survey", *map(str, arguments)]
    if apart or variables:
        command = [sys.executable, "-c", SCRIPT, *given]
        environment = os.environ | variables
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    done = CliRunner().invoke(group, given)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(given, done.exit_code, done.stdout, done.stderr)


def tensors(layers: int = 2, experts: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.02).astype(np.float32)

    found = {"model.embed_tokens.weight": normal(40, 64), "model.norm.weight": np.ones(64, np.float32)}
    for i in range(layers):
        p = f"model.layers.{i}"
        found[f"{p}.self_attn.q_proj.weight"] = normal(64, 64)
        found[f"{p}.mlp.gate.weight"] = normal(experts, 64)
        found[f"{p}.mlp.shared_expert.up_proj.weight"] = normal(32, 64)
        for e in range(experts):
            found[f"{p}.mlp.experts.{e}.gate_proj.weight"] = normal(32, 64)
            found[f"{p}.mlp.experts.{e}.up_proj.weight"] = normal(32, 64)
            found[f"{p}.mlp.experts.{e}.down_proj.weight"] = normal(64, 32)
    return found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two layers of two experts in two shards, with an index."""
    folder = tmp_path / "moe"
    folder.mkdir()
    found = tensors()
    names = sorted(found)
    shards = {"model-1.safetensors": names[:9], "model-2.safetensors": names[9:]}
    for file, mine in shards.items():
        save_file({name: found[name] for name in mine}, folder / file)
    index = {name: file for file, mine in shards.items() for name in mine}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_moe"}))
    return folder


def run(
    model: Path, root: Path, *more: str, **variables: str
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    done = plastic("run", model, "--root", root, *more, **variables)
    return root / model.name / "default", done


def rows(folder: Path, table: str) -> list[dict[str, str]]:
    with open(folder / f"{table}.csv", newline="") as file:
        return list(csv.DictReader(file))


def edit(folder: Path, **sections: Any) -> None:
    """Changes the config of a run: sections are merged, lists replaced."""
    path = folder / "analysis_config.json"
    config = json.loads(path.read_text())
    for name, value in sections.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(config))


def csv_config(tmp_path: Path, **more: Any) -> Path:
    path = tmp_path / "begin.json"
    path.write_text(json.dumps({"output": {"format": "csv"}} | more))
    return path


def test_a_run_writes_every_row_and_column_with_right_values(model: Path, tmp_path: Path) -> None:
    folder, done = run(model, tmp_path / "runs", "--config", str(csv_config(tmp_path)), apart=True)
    assert done.returncode == 0, done.stderr
    exact = tensors()
    stats = {row["derived_tensor"]: row for row in rows(folder / "data", "matrix_stats")}
    assert stats.keys() == {name for name in exact if exact[name].ndim == 2}
    for name, row in stats.items():
        w = exact[name].astype(np.float64)
        assert (int(row["rows"]), int(row["cols"])) == w.shape
        assert float(row["rms"]) == pytest.approx(np.sqrt((w * w).mean()), rel=1e-9)
        assert float(row["p999_abs"]) == pytest.approx(np.percentile(np.abs(w), 99.9), rel=1e-9)
        assert float(row["spectral_norm"]) == pytest.approx(np.linalg.norm(w, 2), rel=1e-6)
    row = stats["model.layers.1.mlp.experts.1.up_proj.weight"]
    assert [
        row[c] for c in ("layer", "block4", "proj", "expert_id", "is_routed_expert", "is_shared_expert")
    ] == [*("1", "0", "up_proj", "1", "true", "false")]
    shared = stats["model.layers.0.mlp.shared_expert.up_proj.weight"]
    assert (shared["is_routed_expert"], shared["is_shared_expert"]) == ("false", "true")
    dense = stats["model.layers.0.self_attn.q_proj.weight"]  # a dense matrix is not called a routed expert
    assert (dense["is_routed_expert"], dense["expert_id"], dense["kind"]) == ("false", "", "attn")
    quant = rows(folder / "data", "quant_sim")
    assert len(quant) == 3 * len(stats)
    error = {(row["derived_tensor"], row["scheme"]): row["w_rel_fro"] for row in quant}
    eight_bits = error["model.layers.0.self_attn.q_proj.weight", "affine_q8_g64"]
    assert float(eight_bits) == pytest.approx(0.0053, rel=0.05)
    inventory = rows(folder / "data", "tensor_inventory")
    assert len(inventory) == len(exact)
    assert {(r["in_index"], r["index_shard"] == r["file"]) for r in inventory} == {("true", True)}
    by_layer = rows(folder / "tables", "A_weight_layer_summary")
    assert {(r["layer"], r["kind"], r["proj"], r["count"]) for r in by_layer} >= {
        ("0", "experts", "gate_proj", "2"),
        ("1", "experts", "down_proj", "2"),
        ("", "embed", "embed_tokens", "1"),
    }
    mine = [
        float(r["rms"]) for r in stats.values() if (r["layer"], r["kind"], r["proj"]) == ("1", "experts", UP)
    ]
    summed = next(r for r in by_layer if (r["layer"], r["kind"], r["proj"]) == ("1", "experts", UP))
    assert float(summed["rms_mean"]) == pytest.approx(np.mean(mine), rel=1e-12)
    deltas = rows(folder / "tables", "B_quant_deltas")
    assert {r["pair"] for r in deltas} == {
        "affine_q8_g64_minus_affine_q4_g64",
        "mxfp4_g32_minus_affine_q4_g64",
    }
    for r in deltas:
        exactly = float(error[r["derived_tensor"], r["a"]]) - float(error[r["derived_tensor"], r["b"]])
        assert float(r["w_rel_fro_delta"]) == exactly
    assert done.stdout.splitlines()[-1] == str(folder / "plots" / "report.html")


def test_a_second_run_does_nothing_again_and_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    folder, _ = run(model, tmp_path / "runs", "--no-spectra", "--config", str(csv_config(tmp_path)))
    before = (folder / "data" / "quant_sim.csv").read_bytes()
    again = json.loads(plastic("collect", folder, "--json").stdout)
    assert again["units_done_before"] == again["units"] == 2
    assert (folder / "data" / "quant_sim.csv").read_bytes() == before
    part = sorted((folder / "data" / "parts").iterdir())[0]
    part.write_bytes(part.read_bytes()[:-100])  # as a crash would not leave it, but a bad disk may
    again = json.loads(plastic("collect", folder, "--json").stdout)
    assert again["units_done_before"] == 1
    assert (folder / "data" / "quant_sim.csv").read_bytes() == before
    edit(folder, quant_schemes=[{"name": "q2", "mode": "affine", "bits": 2, "group_size": 32}])
    again = json.loads(plastic("collect", folder, "--json").stdout)
    assert again["units_done_before"] == 0  # control: another config is other work
    assert {row["scheme"] for row in rows(folder / "data", "quant_sim")} == {"q2"}


def test_two_processes_give_the_same_rows_as_one(model: Path, tmp_path: Path) -> None:
    config = str(csv_config(tmp_path))
    index = json.loads((model / "model.safetensors.index.json").read_text())
    for i in range(7):  # more files, so more units, than are handed out at once: each has to come back
        name = f"model.layers.{i + 2}.self_attn.q_proj.weight"
        save_file({name: np.full((4, 64), i, np.float32)}, model / f"more-{i}.safetensors")
        index["weight_map"][name] = f"more-{i}.safetensors"
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    one, _ = run(model, tmp_path / "one", "--config", config, "--workers", "1")
    two, done = run(model, tmp_path / "two", "--config", config, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert len(list((two / "data" / "parts").iterdir())) == 9
    for table in ("matrix_stats", "quant_sim", "spectra"):
        mine, theirs = rows(one / "data", table), rows(two / "data", table)
        assert [r["derived_tensor"] for r in mine] == [r["derived_tensor"] for r in theirs]
        for a, b in zip(mine, theirs, strict=True):
            for name in ("rms", "w_rel_fro", "spectral_norm"):  # BLAS on two threads adds up in another order
                if a.get(name):
                    assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-6)


def test_a_config_of_the_older_pipeline_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    w = np.arange(64, dtype=np.float32).reshape(2, 8, 4)
    np.savez(folder / "weights.npz", **{"layers.3.experts.bank.w13": w, "layers.3.attn.weight": w[0]})
    old = {
        "model_path": str(folder),
        "scan": {"extensions": [".npz"], "experts_only": True, "include_shared_expert": True,
                 "inventory_all_tensors": True, "use_safetensors_index_json": True, "strict_index": False,
                 "max_files": None},
        "parsing": {"layer_regex": r"(?:^|\.)layers\.(\d+)(?:\.|$)",
                    "expert_regex": r"(?:^|\.)experts\.(\d+)(?:\.|$)",
                    "proj_aliases": {"down_proj": ["down_proj"], "gate_proj": ["w1"], "up_proj": ["w3"]},
                    "shared_expert_keywords": ["shared", "expert"], "strict_packed_split": True,
                    "proj_group_strict": False},
        "extract_rules": [
            {"name": "off", "enabled": False, "match": ".*", "ndim": 3},
            {"name": "bank", "match": r".*experts.*\.w13$", "ndim": 3,
             "layout": {"layer_axis": None, "expert_axis": 0, "rows_axis": 1, "cols_axis": 2},
             "packed_split": {"axis": "rows", "splits": [4, 4], "projs": ["gate_proj", "up_proj"]}},
        ],
        "metadata": {"enabled": False, "mode": "validate", "config_path": None},
        "mlx": {"enabled": True, "device": "cpu"},
        "stats": {"eps": 1e-12, "sample_per_matrix": 4, "sample_seed": 123, "percentiles_abs": [50.0],
                  "group_outlier_percentile": 95.0, "group_sizes_lastdim": [2]},
        "quant_schemes": [],
        "output": {"format": "csv", "compression": None},
        "debug": {"dump_unmatched_tensors": True, "print_progress_every_files": 0},
    }  # fmt: skip
    where = tmp_path / "run"
    where.mkdir()
    (where / "analysis_config.json").write_text(json.dumps(old))
    done = plastic("run", where, apart=True)
    assert done.returncode == 0, done.stderr
    found = {(r["layer"], r["proj"], r["expert_id"]): r for r in rows(where / "data", "matrix_stats")}
    assert set(found) == {("3", proj, e) for proj in (GATE, UP) for e in "01"}  # experts_only: no attention
    assert float(found["3", UP, "1"]["mean"]) == w[1, 4:].mean()
    assert float(found["3", UP, "1"]["p50_abs"]) == np.percentile(w[1, 4:], 50)
    assert float(found["3", GATE, "0"]["g2_max_outlier"]) == pytest.approx(2.0)  # of 0 and 1: 1 over 0.5
    assert rows(where / "data", "quant_sim") == []
    assert len(rows(where / "data", "tensor_inventory")) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scan": {"expert_only": True}}, "did you mean 'experts_only'?"),
        ({"quant_scheme": []}, "did you mean 'quant_schemes'?"),
        (
            {"quant_schemes": [{"name": "q7", "mode": "affine", "bits": 7}]},
            "legal are: affine with bits 2, 3, 4",
        ),
        (
            {"quant_schemes": [{"name": "x", "mode": "mxfp4", "bits": 4, "group_size": 64}]},
            "mxfp4 (4 bits, group 32)",
        ),
        (
            {"quant_schemes": [{"name": "x", "bits": 4}, {"name": "x", "bits": 8}]},
            "two schemes are named 'x'",
        ),
        ({"quant_schemes": [{"name": "x", "bit": 4}]}, "did you mean 'bits'?"),
        ({"delta_pairs": [{"name": "d", "a": "q9", "b": "q8"}]}, "schemes that are not there: q8, q9"),
        ({"extract_rules": [{"match": "("}]}, "no regular expression"),
        ({"stats": {"percentiles_abs": [101]}}, "not within 0 and 100"),
        ({"scan": {"strict_index": True, "use_safetensors_index_json": False}}, "strict_index needs"),
        ({"output": {"format": "xml"}}, "'auto', 'parquet', 'csv'"),
    ],
)
def test_a_config_that_cannot_be_followed_is_refused_at_the_start(
    model: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    where = tmp_path / "run"
    where.mkdir()
    (where / "analysis_config.json").write_text(json.dumps({"model_path": str(model)} | change))
    done = plastic("collect", where)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (where / "data" / "matrix_stats.csv").exists()


NO_MLX = "raise ImportError('no mlx here')\n"
BROKEN = """
import importlib.util, sys
from pathlib import Path
sys.path = [p for p in sys.path if not Path(p, 'mlx', 'broken').exists()]
del sys.modules['mlx'], sys.modules['mlx.core']
import mlx.core as real
def quantize(*args, mode='affine', bits=None, **more):
    if mode == 'mxfp4' or bits == 8:
        raise RuntimeError('no kernel for that')
    return kept(*args, mode=mode, bits=bits, **more)
kept, real.quantize = real.quantize, quantize
sys.modules['mlx.core'] = real
"""


def stub(folder: Path, source: str) -> str:
    (folder / "mlx").mkdir(parents=True)
    (folder / "mlx" / "__init__.py").write_text("")
    (folder / "mlx" / "broken").write_text("")
    (folder / "mlx" / "core.py").write_text(source)
    return str(folder)


def test_without_mlx_the_survey_still_writes_stats_one_warning_and_the_header(
    model: Path, tmp_path: Path
) -> None:
    folder, done = run(model, tmp_path / "runs", "--config", str(csv_config(tmp_path)),
                       PYTHONPATH=stub(tmp_path / "stub", NO_MLX))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(rows(folder / "data", "matrix_stats")) == 19
    assert rows(folder / "data", "quant_sim") == []
    header = (folder / "data" / "quant_sim.csv").read_text().splitlines()[0]
    assert "w_rel_fro" in header and header.endswith(",error")
    warnings = [row["warning"] for row in rows(folder / "logs", "warnings")]
    assert [w for w in warnings if "MLX" in w] == [
        "quantization is not simulated: no MLX (ImportError: no mlx here)"
    ]
    assert done.stderr.count("no mlx here") == 1


def test_a_scheme_that_fails_gives_rows_that_say_so_and_the_others_go_on(model: Path, tmp_path: Path) -> None:
    folder, done = run(model, tmp_path / "runs", "--no-spectra", "--config", str(csv_config(tmp_path)),
                       PYTHONPATH=stub(tmp_path / "stub", BROKEN))  # fmt: skip
    assert done.returncode == 0, done.stderr
    by_scheme: dict[str, set[str]] = {}
    for row in rows(folder / "data", "quant_sim"):
        by_scheme.setdefault(row["scheme"], set()).add(row["error"].partition(":")[0])
        assert (row["w_rel_fro"] == "") == (row["error"] != "")
    assert by_scheme["affine_q8_g64"] == by_scheme["mxfp4_g32"] == {"RuntimeError"}
    assert by_scheme["affine_q4_g64"] == {"", "group size 64 does not divide 32 columns"}
    told = [r["warning"] for r in rows(folder / "logs", "warnings")]
    assert len([text for text in told if "no kernel for that" in text]) == 2
    (rest,) = [text for text in told if "have no figures" in text]
    assert rest.endswith("group size 64 does not divide 32 columns (4)")


def damage(model: Path, kind: str) -> None:
    shard = model / "model-2.safetensors"
    data = shard.read_bytes()
    if kind == "truncated":
        shard.write_bytes(data[:-10])
    elif kind == "header lies":
        shard.write_bytes(data.replace(b'"F32"', b'"F64"', 1))
    elif kind == "no safetensors":
        shard.write_bytes(b"x" * 100)
    elif kind == "empty":
        shard.write_bytes(b"")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("truncated", "model-2.safetensors is truncated"),
        ("header lies", "do not fit together"),
        ("no safetensors", "is not a SafeTensors file"),
        ("empty", "is not a SafeTensors file"),
    ],
)
def test_a_damaged_shard_is_named_before_anything_is_done(
    model: Path, tmp_path: Path, kind: str, said: str
) -> None:
    damage(model, kind)
    folder, done = run(model, tmp_path / "runs", apart=kind == "truncated")
    assert done.returncode == 1
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not list((folder / "data").glob("*.csv"))


def test_an_index_that_names_missing_files_stops_or_warns(model: Path, tmp_path: Path) -> None:
    (model / "model-2.safetensors").unlink()
    folder, done = run(model, tmp_path / "runs", "--no-spectra", "--config", str(csv_config(tmp_path)))
    assert done.returncode == 0, done.stderr
    assert "shards that the index names are missing: model-2.safetensors" in done.stderr
    assert {row["file"] for row in rows(folder / "data", "matrix_stats")} == {"model-1.safetensors"}
    edit(folder, scan={"strict_index": True})
    done = plastic("collect", folder)
    assert done.returncode == 1
    assert "model-2.safetensors" in done.stderr


def test_files_that_the_index_does_not_name_are_not_touched(model: Path, tmp_path: Path) -> None:
    (model / "poison.safetensors").write_bytes(b"not a checkpoint")
    _, done = run(model, tmp_path / "runs", "--no-spectra")
    assert done.returncode == 0
    assert "1 files that the index does not name are left out: poison.safetensors" in done.stderr


def test_tensors_that_lie_in_two_files_count_once(model: Path, tmp_path: Path) -> None:
    twice = {"model.layers.0.self_attn.q_proj.weight": np.ones((64, 64), np.float32)}
    save_file(twice, model / "model-0.safetensors")
    (model / "model.safetensors.index.json").unlink()
    folder, done = run(model, tmp_path / "runs", "--no-spectra", "--config", str(csv_config(tmp_path)))
    assert "1 tensors lie in several files" in done.stderr
    assert len(rows(folder / "data", "matrix_stats")) == 19
    assert len(rows(folder / "data", "tensor_inventory")) == 21


def test_dtypes_that_nobody_knows_are_listed_and_the_rest_is_surveyed(tmp_path: Path) -> None:
    folder = tmp_path / "strange"
    folder.mkdir()
    w = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    write_safetensors(
        folder / "model.safetensors",
        {"model.layers.0.mlp.up_proj.weight": ("BF16", to_bf16(w)),
         "model.layers.0.mlp.down_proj.weight": ("F6_E3M2", w.view(np.uint8)),
         "model.layers.0.mlp.gate_proj.weight": ("I8", w.view(np.int8))},
    )  # fmt: skip
    where, done = run(folder, tmp_path / "runs", "--config", str(csv_config(tmp_path)))
    assert done.returncode == 0, done.stderr
    assert [row["proj"] for row in rows(where / "data", "matrix_stats")] == ["up_proj"]
    reasons = {row["tensor_name"]: row["reason"] for row in rows(where / "data", "unmatched_tensors")}
    assert reasons["model.layers.0.mlp.down_proj.weight"] == "dtype F6_E3M2 cannot be read as weights"


def test_an_npz_is_never_unpickled(tmp_path: Path) -> None:
    folder = tmp_path / "npz"
    folder.mkdir()

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "exploded").write_text, ("boom",))

    np.savez(folder / "w.npz", **{"layers.0.mlp.up_proj.weight": np.ones((4, 4), np.float32),
             "layers.1.mlp.up_proj.weight": np.array([[Bomb(), Bomb()]], object)})  # fmt: skip
    where, done = run(folder, tmp_path / "runs", "--config", str(csv_config(tmp_path)))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "exploded").exists()
    assert len(rows(where / "data", "matrix_stats")) == 1
    assert [row["reason"] for row in rows(where / "data", "unmatched_tensors")] == [
        "dtype object cannot be read as weights"
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_an_error_with_its_name(model: Path, tmp_path: Path) -> None:
    root = tmp_path / "locked"
    root.mkdir(mode=0o500)
    _, done = run(model, root)
    assert done.returncode == 1
    assert "locked" in done.stderr and "Traceback" not in done.stderr


def test_a_file_where_the_run_folder_would_be_is_an_error(model: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    _, done = run(model, tmp_path / "runs")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_options_that_a_run_folder_would_pass_over_are_refused(model: Path, tmp_path: Path) -> None:
    folder = Path(plastic("init", "--model", model, "--root", tmp_path).stdout.strip())
    done = plastic("run", folder, "--scheme", "q8", "--no-spectra", "--dry-run")
    assert done.returncode == 2
    assert "--scheme, --no-spectra: of a run that is there its analysis_config.json decides" in done.stderr
    assert plastic("run", folder, "--dry-run").returncode == 0  # control


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no folder here where nobody can make one")
def test_a_root_where_no_folder_can_be_made_is_an_error(model: Path) -> None:
    done = plastic("init", "--model", model, "--root", "/proc/nothing")
    assert done.returncode == 1
    assert "/proc/nothing" in done.stderr and "cannot be made" in done.stderr


def test_a_key_that_stands_twice_stops_the_tables_and_is_named(model: Path, tmp_path: Path) -> None:
    folder, _ = run(model, tmp_path / "runs", "--no-spectra", "--config", str(csv_config(tmp_path)))
    path = folder / "data" / "quant_sim.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]) + "\n")
    done = plastic("tables", folder)
    assert done.returncode == 1
    assert f"{lines[1].split(',')[2]!r} with scheme 'affine_q4_g64' twice" in done.stderr
    path.write_text("\n".join(lines) + "\n")
    assert plastic("tables", folder).returncode == 0  # control


def test_what_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for arguments, said in (
        (("run", tmp_path / "nothing"), "nothing at"),
        (("collect", tmp_path), "has no analysis_config.json"),
        (("run", tmp_path, "--root", tmp_path / "r"), "no .safetensors or .npz in"),
        (("init", "--model", tmp_path, "--name", "../x"), "is no name of a folder"),
        (("run", tmp_path, "--scheme", "q7"), "legal are"),
        (("run", tmp_path, "--scheme", "int4"), "is no scheme"),
        (
            ("run", "nobody/has-this", "--root", tmp_path / "r"),
            "nobody/has-this is not in the local hub cache",
        ),
    ):
        done = plastic(*arguments)
        assert done.returncode == 1, arguments
        assert said in done.stderr and "Traceback" not in done.stderr


def test_the_built_in_base_is_surveyed_by_its_name(tmp_path: Path) -> None:
    done = plastic("run", "nano", "--root", tmp_path / "runs", "--dry-run", "--json")
    plan = json.loads(done.stdout)
    assert plan["model_type"] == "qwen3" and plan["unmatched"] == 0 and plan["matrices"] > 20


def test_a_dry_run_tells_the_plan_and_writes_no_data(model: Path, tmp_path: Path) -> None:
    folder, done = run(model, tmp_path / "runs", "--dry-run", "--json")
    plan = json.loads(done.stdout)
    assert (plan["matrices"], plan["kinds"]["experts"], plan["model_type"]) == (19, 12, "qwen2_moe")
    assert not folder.parent.exists()
    run(model, tmp_path / "runs", "--no-spectra")
    before = sorted(path.name for path in folder.rglob("*"))
    assert json.loads(plastic("collect", folder, "--fresh", "--dry-run", "--json").stdout)["matrices"] == 19
    assert sorted(path.name for path in folder.rglob("*")) == before


# -- the report


class Page(HTMLParser):
    """Tags of a page, what it would load, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.loads: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.loads += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_has_every_picture_and_loads_nothing(model: Path, tmp_path: Path) -> None:
    folder, done = run(model, tmp_path / "runs", "--scheme", "q4g32", "--scheme", "q8g32")
    assert done.returncode == 0, done.stderr
    text = (folder / "plots" / "report.html").read_text()
    page = Page(text)
    drawn = sorted(path.stem for path in (folder / "plots").glob("*.svg"))
    assert page.tags["svg"] == len(drawn) == 1 + 2 + 1 + 3 * (3 + 2)
    assert {"bits_error", "spectra", "error_by_layer_affine_q4_g32", "heat_kurtosis_up_proj"} <= set(drawn)
    assert page.loads == [] and "script" not in page.tags
    assert set(re.findall(r"https?://[^\"']+", text)) == {"http://www.w3.org/2000/svg"}
    for said in (
        "Survey of moe",
        "Most fragile",
        "Outlier channels",
        "Bits against error",
        "Error of experts",
    ):
        assert said in page.text
    for path in (folder / "plots").glob("*.svg"):
        ElementTree.parse(path)


@pytest.mark.slow
def test_a_browser_shows_the_report(model: Path, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    if browser is None:
        pytest.skip("no Chromium here")
    folder, _ = run(model, tmp_path / "runs", "--scheme", "q4g32")
    address = (folder / "plots" / "report.html").as_uri()
    shot = tmp_path / "page.png"
    common = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    dom = subprocess.run([*common, "--dump-dom", address], capture_output=True, text=True, timeout=120).stdout
    assert Page(dom).tags["svg"] == len(list((folder / "plots").glob("*.svg")))
    assert "Most fragile" in Page(dom).text
    subprocess.run([*common, f"--screenshot={shot}", address], capture_output=True, timeout=120, check=True)
    assert shot.stat().st_size > 20_000  # a page with pictures, not a blank one
