"""Factors of matrices: told how far off, small when quantized, and the same when read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from mlx_plastic.backend import mx
from mlx_plastic.base.weights import open_weights
from mlx_plastic.cli.main import plastic
from mlx_plastic.compress.probe import probe
from mlx_plastic.errors import BadCheckpoint, BadConfig
from mlx_plastic.home import Home
from mlx_plastic.lowrank.factors import (
    FLOAT16_BOUND,
    factorized_lowrank,
    factors_from_bytes,
    factors_to_bytes,
    quantize_factors,
    svd_lowrank,
)
from test_svd import falling
from tiny import make_checkpoint

Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("rank") / "base")


def test_a_low_rank_fit_tells_what_it_lost() -> None:
    w = falling((40, 24))
    fit, residual = svd_lowrank(w, 6)
    assert np.linalg.matrix_rank(fit, tol=1e-4) == 6
    assert residual == pytest.approx(np.linalg.norm(w - fit) / np.linalg.norm(w), abs=1e-6)
    assert svd_lowrank(w, 12)[1] < residual  # control: more directions lose less


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_factors_are_small_and_their_error_is_measured(bits: int) -> None:
    u, s, vt = factorized_lowrank(falling((128, 192), decay=0.9), 16)
    small = quantize_factors(u, s, vt, bits=bits)  # type: ignore[arg-type]
    whole = (u * s) @ vt
    error = np.linalg.norm(small.matrix() - whole) / np.linalg.norm(whole)
    assert small.error == pytest.approx(error, rel=1e-3)
    assert error < {8: 0.01, 4: 0.2}[bits]
    numbers = 16 * (128 + 192)
    assert small.nbytes < numbers * (bits + 1) / 8  # float16 would take 2 bytes each


def test_float32_factors_come_back_bit_for_bit_and_float16_ones_within_their_bound() -> None:
    factors = {"a.b": factorized_lowrank(falling((40, 24)), 8), "c": factorized_lowrank(falling((9, 30)), 3)}
    back = factors_from_bytes(factors_to_bytes(factors))
    assert back.keys() == factors.keys()
    for name, parts in factors.items():
        assert all(np.array_equal(x, y) for x, y in zip(parts, back[name], strict=True))
    half = factors_from_bytes(factors_to_bytes(factors, dtype="float16"))
    for name, (u, s, vt) in factors.items():
        hu, hs, hvt = (x.astype(np.float32) for x in half[name])
        whole = (u * s) @ vt
        lost = np.linalg.norm((hu * hs) @ hvt - whole)
        assert 0 < lost <= FLOAT16_BOUND * np.sqrt(len(s)) * np.linalg.norm(whole)


def test_what_is_no_file_of_factors_is_refused() -> None:
    good = factors_to_bytes({"a": factorized_lowrank(falling((10, 8)), 2)})
    for data, text in ((b"nonsense", "SafeTensors"), (good[:-4], "SafeTensors")):
        with pytest.raises(ValueError, match=text):
            factors_from_bytes(data)
    with pytest.raises(ValueError, match="cannot"):
        factors_to_bytes({"a": (np.full((2, 1), 1e6), np.ones(1), np.ones((1, 2)))}, dtype="float16")


def test_probing_says_where_a_matrix_has_a_gap(small: Path, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "gap")
    weights = load_file(folder / "model.safetensors")
    rank_5 = falling((32, 32), decay=1.0, keep=5)
    weights[f"{Q}.weight"] = rank_5
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (gap,) = probe(open_weights(str(folder)), roles=[Q])
    assert (gap.theorem, gap.defect, gap.energy) == (5, 0, 5)
    (noise,) = probe(open_weights(str(small)), roles=[Q])
    assert noise.defect != 0  # control: a random matrix has no gap


def test_each_expert_of_a_stack_is_probed(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "moe", experts=3, layers=1)
    found = probe(open_weights(str(folder)), roles=["experts.up_proj"])
    assert [row.module[-3:] for row in found] == ["[0]", "[1]", "[2]"]


def test_bad_matrices_polynomials_and_names_are_told(small: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="nothing_proj"):
        probe(open_weights(str(small)), roles=["nothing_proj"])
    with pytest.raises(BadConfig, match="divides the other"):
        probe(open_weights(str(small)), pair=((1, -1), (1, -3, 2)))
    folder = make_checkpoint(tmp_path / "nan")
    weights = load_file(folder / "model.safetensors")
    weights[f"{Q}.weight"][3, 3] = np.nan
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(BadCheckpoint, match=r"layers\.0\.self_attn\.q_proj holds values"):
        probe(open_weights(str(folder)))


def test_the_memory_table_counts_what_is_really_stored(home: Home) -> None:
    def memory(*words: str) -> Result:
        return CliRunner().invoke(plastic, ["bench", "memory", *words])

    value = json.loads(memory("--m", "96", "--n", "128", "--rank", "8", "--json").stdout)
    forms = {form["form"]: form for form in value["forms"]}
    w = mx.array(falling((96, 128))).astype(mx.float16)
    for bits, group in ((4, 64), (3, 32)):
        stored = sum(part.nbytes for part in mx.quantize(w, group_size=group, bits=bits))
        assert forms[f"q{bits}g{group}"]["nbytes"] == stored
    assert forms["rank 8 float16"]["nbytes"] == 2 * 8 * (96 + 128)
    assert value["break_even_rank"] == 96 * 128 // 224
    assert {route["svd"] for route in value["routes"]} == {"gram", "exact", "randomized"}
    counted = json.loads(memory("--m", "200000", "--n", "200000", "--rank", "8", "--json").stdout)
    assert counted["routes"] == [] and counted["forms"][0]["error"] is None  # it was not made
    assert (
        CliRunner().invoke(plastic, ["bench", "memory", "--m", "4", "--n", "4", "--rank", "5"]).exit_code == 2
    )


def test_the_commands_print_and_write(small: Path, home: Home, tmp_path: Path) -> None:
    run = CliRunner().invoke
    shown = run(plastic, ["rank", "probe", "--base", str(small), "--layers", "attn"])
    assert shown.exit_code == 0 and "It does not say which rank" in shown.stdout
    value = json.loads(run(plastic, ["rank", "probe", "--base", str(small), "--json"]).stdout)
    assert len(value["matrices"]) == 14 and "heuristic" in value["claim"]
    out = tmp_path / "q.safetensors"
    given = ["rank", "factor", "--base", str(small), "--module", Q, "--rank", "4", "--out", str(out)]
    assert run(plastic, [*given, "--dry-run"]).exit_code == 0 and not out.exists()
    assert run(plastic, given).exit_code == 0
    assert factors_from_bytes(out.read_bytes())[Q][0].shape == (32, 4)
    assert run(plastic, given).exit_code == 2  # it is there already
    for wrong, code in ((["--f", "1,x"], 2), (["--f", "1,0"], 2), (["--layers", "nope"], 1)):
        answer = run(plastic, ["rank", "probe", "--base", str(small), *wrong])
        assert answer.exit_code == code and "Traceback" not in answer.output
