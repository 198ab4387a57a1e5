from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mlx_plastic.base.roles import natural
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadPack
from mlx_plastic.home import Home
from mlx_plastic.packs import Factors, Pack, Store
from mlx_plastic.packs.algebra.ledger import as_csv, compare, ledger
from test_compose import dense, half, pack_of

Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.10.mlp.down_proj"
UP = "model.layers.2.mlp.up_proj"
STACK = "model.layers.3.mlp.switch_mlp.up_proj"


def factors(seed: int, rank: int = 6, out: int = 30, width: int = 40, *stack: int) -> Factors:
    random = np.random.default_rng(seed)
    return Factors(half(random, *stack, rank, width), half(random, *stack, out, rank), 2.0 * rank)


def pack(name: str = "p", seed: int = 0) -> Pack:
    return pack_of({DOWN: factors(seed), Q: factors(seed + 1, 4), STACK: factors(seed, 3, 20, 24, 5)}, name)


def test_every_measure_is_that_of_the_full_matrix() -> None:
    found = ledger(pack())
    assert [line.module for line in found.lines] == [Q, STACK, DOWN]  # layer 2 before 10
    for line in found.lines:
        w = dense(pack().factors[line.module])
        stack = w.reshape(-1, *w.shape[-2:])
        spectra = [np.linalg.svd(one, compute_uv=False)[: int(line.declared_rank)] for one in stack]
        entropy = [math.exp(-sum(p * math.log(p) for p in s / s.sum())) for s in spectra]
        assert line.effective_rank == pytest.approx(np.mean(entropy), rel=1e-4)
        assert line.stable_rank == pytest.approx(np.mean([sum(s**2) / s[0] ** 2 for s in spectra]), rel=1e-4)
        assert line.norm == pytest.approx(np.linalg.norm(w), rel=1e-5)
        assert line.slack == pytest.approx(line.declared_rank - line.effective_rank)
        assert line.scale == 2.0
    assert found.total.declared_rank == 13
    assert found.total.norm == pytest.approx(math.hypot(*(line.norm for line in found.lines)))
    assert found.total.parameters == sum(f.parameters for f in pack().factors.values())


def test_slack_shows_ranks_that_are_not_used() -> None:
    f = factors(0, 8)
    b = f.b.copy()
    b[:, 2:] = 0
    idle = ledger(pack_of({Q: Factors(f.a, b, f.alpha)}, "idle")).total
    busy = ledger(pack_of({Q: f}, "busy")).total
    assert idle.declared_rank == busy.declared_rank == 8
    assert 1 < idle.effective_rank <= 2 and idle.slack >= 6
    assert busy.effective_rank > 6  # control
    nothing = ledger(pack_of({Q: Factors(f.a, f.b * 0, f.alpha)}, "nothing")).total
    assert (nothing.effective_rank, nothing.stable_rank, nothing.norm) == (0, 0, 0)


def test_a_pack_lies_on_itself_and_random_packs_do_not() -> None:
    same = compare(pack("one"), pack("two"))
    for line in (*same.lines, same.total):
        assert line.cosine == pytest.approx(1, abs=1e-6)
        assert line.column_overlap == pytest.approx(1, abs=1e-5) == line.row_overlap
        assert line.column_angle_deg < 0.1 and line.norm_ratio == pytest.approx(1)
    other = compare(pack("one"), pack("two", seed=7))
    for line in other.lines:
        assert abs(line.cosine) < 0.2
        assert line.column_overlap == pytest.approx(line.column_chance, abs=0.15)  # as random spaces do
        assert line.row_overlap == pytest.approx(line.row_chance, abs=0.15)


def test_the_cosine_is_that_of_the_full_matrices() -> None:
    one, two = pack("one"), pack("two", seed=3)
    found = compare(one, two)
    whole = {p: (dense(one.factors[p]), dense(two.factors[p])) for p in one.factors}
    for line in found.lines:
        w, v = whole[line.module]
        assert line.cosine == pytest.approx(np.sum(w * v) / np.linalg.norm(w) / np.linalg.norm(v), abs=1e-6)
    w, v = (np.concatenate([pair[i].ravel() for pair in whole.values()]) for i in (0, 1))
    assert found.total.cosine == pytest.approx(w @ v / np.linalg.norm(w) / np.linalg.norm(v), abs=1e-6)
    assert found.total.norm_ratio == pytest.approx(np.linalg.norm(v) / np.linalg.norm(w), rel=1e-5)


def test_rows_and_columns_are_told_apart() -> None:
    f, g = factors(0), factors(1)
    found = compare(pack_of({Q: f}, "one"), pack_of({Q: Factors(f.a, g.b, g.alpha)}, "two")).total
    assert found.row_overlap > 0.9 > 0.5 > found.column_overlap  # the same inputs, other outputs
    turned = compare(pack_of({Q: f}, "one"), pack_of({Q: Factors(f.a, -f.b, f.alpha)}, "two")).total
    assert turned.cosine == pytest.approx(-1) and turned.row_overlap == pytest.approx(1, abs=1e-5)


def test_modules_of_one_pack_alone_are_named() -> None:
    one = pack_of({Q: factors(0), UP: factors(1)}, "one")
    two = pack_of({Q: factors(0), DOWN: factors(2)}, "two")
    found = compare(one, two)
    assert found.only == ((UP,), (DOWN,))
    assert 0 < found.total.cosine < 1  # what only one updates counts as nothing in the other


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(BadPack, match="share no module"):
        compare(pack_of({Q: factors(0)}, "one"), pack_of({UP: factors(0)}, "two"))
    with pytest.raises(BadPack, match=r"\(30, 40\) in one and \(20, 40\)"):
        compare(pack_of({Q: factors(0)}, "one"), pack_of({Q: factors(0, out=20)}, "two"))


def test_paths_are_ordered_as_layers_are() -> None:
    assert sorted(["m.10.a", "m.2.b", "m.2.a", "head"], key=natural) == ["head", "m.2.a", "m.2.b", "m.10.a"]


def test_csv_has_one_line_a_module_and_the_sum() -> None:
    found = ledger(pack())
    rows = list(csv.DictReader(io.StringIO(as_csv([*found.lines, found.total]))))
    assert [row["module"] for row in rows] == [Q, STACK, DOWN, "all"]
    assert float(rows[0]["effective_rank"]) == found.lines[0].effective_rank


# --- the command


@pytest.fixture
def store(home: Home) -> Store:
    store = Store(home)
    for seed, name in enumerate(("one", "two")):
        made = pack(name, seed)
        store.add(made.factors, made.manifest)
    return store


def run(*arguments: str) -> Result:
    return CliRunner().invoke(plastic, ["packs", "ledger", *arguments], prog_name="plastic")


def test_the_command_shows_one_pack_or_two(store: Store, tmp_path: Path) -> None:
    done = run("one", "--csv", str(tmp_path / "out.csv"))
    assert done.exit_code == 0, done.output
    assert "EFFECTIVE RANK" in done.stdout and done.stdout.splitlines()[-1].startswith("all")
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 5
    value = json.loads(run("one", "--compare", "two", "--json").stdout)
    assert value["names"] == ["one", "two"] and len(value["lines"]) == 3
    assert -1 <= value["total"]["cosine"] <= 1
    assert run("one", "--compare", "twoo").exit_code == 1
