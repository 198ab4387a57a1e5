from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from mlx_plastic.base import Base, load_base
from mlx_plastic.cli.main import plastic
from mlx_plastic.draw import Mark, scatter, ticks
from mlx_plastic.errors import BadData, BadPack, PlasticError
from mlx_plastic.home import Home
from mlx_plastic.packs import Store
from mlx_plastic.packs.create.create import create_pack
from mlx_plastic.packs.create.recipe import Recipe, plan_pack
from mlx_plastic.packs.measure.ablate import ALL_COLUMNS, Cell, Grid, ablate, cells, roles_of, rows_of
from mlx_plastic.packs.measure.measure import COLUMNS
from test_create import CONFIG, chat
from test_measure_packs import write

RATE = 1e-2


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "chats.jsonl", *map(chat, range(40)))


def grid_of(base: Base, data: Path, **axes: Any) -> list[Cell]:
    chosen: dict[str, Any] = {"layer_sets": ["qv"], "ranks": [2], "steps": [2], "rates": [RATE]} | axes
    return cells(base, Recipe("ablation", data, CONFIG), Grid(**chosen))


def run_grid(home: Home, base: Base, grid: list[Cell], out: Path, tick: Any = None) -> list[dict[str, Any]]:
    return ablate(home, base, grid, file=out, plot=out.with_suffix(".svg"), on_progress=tick)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(plastic, [str(a) for a in arguments], prog_name="plastic")


def test_a_grid_is_every_combination_and_each_is_planned_before_any_is_trained(
    tiny: Base, data: Path
) -> None:
    found = grid_of(
        *(tiny, data),
        layer_sets=["qv", "mlp+attn.o_proj", "all"],
        ranks=[2, 4],
        rank_maps={"small": {"attn": 1, "mlp": 3}},
        rates=[1e-3, 1e-2],
    )
    assert len(found) == 3 * (2 + 1) * 2 and len({cell.key for cell in found}) == 18
    assert {len(cell.plan.ranks) for cell in found} == {4, 8, 14}
    mapped = [
        cell for cell in found if cell.settings["ranks"] == "small" and cell.settings["layer_set"] == "all"
    ]
    assert set(mapped[0].plan.ranks.values()) == {1, 3}
    assert found[4].settings["ranks"] == "small" and set(found[4].plan.ranks.values()) == {1}  # qv of it
    with pytest.raises(PlasticError, match="no linear layers of role 'vq'"):
        grid_of(tiny, data, layer_sets=["all", "vq"])
    with pytest.raises(BadPack, match="rank 16 in 4 attention modules"):
        grid_of(tiny, data, layer_sets=["all"], ranks=[2, 16])
    with pytest.raises(BadData, match="no sample is held out"):
        cells(tiny, Recipe("a", data, CONFIG, valid_share=0.0), Grid())


def test_sets_have_names_and_can_be_joined() -> None:
    assert roles_of("all") == ""
    assert roles_of("qv+mlp") == "attn.q_proj,attn.v_proj,mlp"
    assert roles_of("qkv+o") == "attn.q_proj,attn.k_proj,attn.v_proj,attn.o_proj"


def test_a_row_is_what_creating_and_measuring_that_pack_gives(
    home: Home, tiny: Base, data: Path, tmp_path: Path
) -> None:
    (cell,) = grid_of(tiny, data)
    (row,) = run_grid(home, tiny, [cell], tmp_path / "grid.csv")
    assert tuple(row) == ALL_COLUMNS == (*COLUMNS, *ALL_COLUMNS[12:])
    config = dataclasses.replace(CONFIG, roles="attn.q_proj,attn.v_proj", steps=2, learning_rate=RATE)
    made = create_pack(Store(home), tiny, plan_pack(tiny, Recipe("same", data, config)))
    assert row["valid_loss"] == pytest.approx(made.manifest.evals["valid_loss"], rel=1e-5)
    assert row["ppl_pack"] == pytest.approx(math.exp(row["valid_loss"]), rel=1e-4)
    assert row["size_MB"] == pytest.approx(made.manifest.sizes.tensor_bytes / 1e6, abs=1e-4)
    assert Store(home).names() == ["same"]  # its own packs are not kept
    assert not list((home.cache / "ablation").iterdir())


def test_rows_that_are_there_are_not_measured_again_and_a_larger_grid_adds_to_them(
    home: Home, tiny: Base, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "grid.csv"
    run_grid(home, tiny, grid_of(tiny, data), out)
    before = out.read_bytes()
    assert run_grid(home, tiny, grid_of(tiny, data), out) == [] and out.read_bytes() == before
    added = run_grid(home, tiny, grid_of(tiny, data, ranks=[2, 3], steps=[2, 4]), out)
    assert len(added) == 3 and len(rows_of(out)) == 4
    assert out.read_bytes().startswith(before)
    with open(data, "a") as file:
        file.write(json.dumps(chat(60)) + "\n")
    assert len(run_grid(home, tiny, grid_of(tiny, data), out)) == 1  # control: other data, another row


class _Stop(KeyboardInterrupt):
    pass


def test_a_grid_that_was_broken_off_goes_on_with_the_same_rows(
    home: Home, tiny: Base, data: Path, tmp_path: Path
) -> None:
    grid = grid_of(tiny, data, ranks=[2, 3], steps=[6])
    whole = run_grid(home, tiny, grid, tmp_path / "whole.csv")

    def tick(done: float, total: float, detail: str) -> None:
        if done == 9:  # in the middle of the second
            raise _Stop

    out = tmp_path / "grid.csv"
    with pytest.raises(_Stop):
        run_grid(home, tiny, grid, out, tick)
    assert len(rows_of(out)) == 1 and (home.cache / "ablation" / grid[1].key).exists()
    (row,) = run_grid(home, tiny, grid, out)
    assert row["valid_loss"] == whole[1]["valid_loss"]
    assert not list((home.cache / "ablation").iterdir())


def test_a_rate_that_breaks_a_training_costs_one_row_not_the_grid(
    home: Home, tiny: Base, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "grid.csv"
    broken, sound = run_grid(home, tiny, grid_of(tiny, data, rates=[1e30, RATE], steps=[4]), out)
    assert broken["valid_loss"] is None and broken["fault"]
    assert sound["valid_loss"] > 0 and not sound["fault"]
    assert "(1 not finite)" in out.with_suffix(".svg").read_text()
    assert run_grid(home, tiny, grid_of(tiny, data, rates=[1e30], steps=[4]), out) == []


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(BadData, match="is not of an ablation"):
        rows_of(path)
    assert rows_of(tmp_path / "new.csv") == []


# -- the plot


def test_the_plot_is_one_sound_svg_with_every_mark_in_its_frame() -> None:
    marks = [
        Mark(x, y, series, f"r{x:g}", "<a & b>") for x, y, series in ((0.1, 5.2, "qv"), (0.4, 4.1, "all"))
    ]
    drawing = scatter([*marks, Mark(math.nan, 1.0, "qv")], title="a < b", x_label="MB", y_label="nats")
    root = ElementTree.fromstring(drawing)
    spot = "{http://www.w3.org/2000/svg}circle"
    dots = [circle for circle in root.iter(spot) if len(circle)]
    assert len(dots) == 2 and len(list(root.iter(spot))) == 2
    for circle in dots:
        assert 74 <= float(circle.attrib["cx"]) <= 530 and 40 <= float(circle.attrib["cy"]) <= 330
    left, right = sorted(dots, key=lambda circle: float(circle.attrib["cx"]))
    assert float(left.attrib["cy"]) < float(right.attrib["cy"])  # the higher loss stands higher
    assert scatter([], title="", x_label="", y_label="")


@pytest.mark.parametrize("values", [[4.1, 6.02], [0.0, 0.0], [5.0], [1e-5, 3e-5], [-2.0, 7e6]])
def test_ticks_are_round_and_reach_around(values: list[float]) -> None:
    found = ticks(min(values), max(values))
    assert found[0] <= min(values) and found[-1] >= max(values) and 2 <= len(found) <= 9
    steps = {round(b - a, 9) for a, b in itertools.pairwise(found)}
    assert max(steps) - min(steps) < 1e-6 * max(steps)


# -- the command


def test_the_command_shows_the_grid_then_measures_it(
    home: Home, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "grid.csv"
    line = (
        *("packs", "ablate", "--base", checkpoint, "--data", data, "--layers", "qv,mlp", "--rank", "2"),
        *("--steps", 2, "--lr", "1e-3,1e-2", "--csv", out, "--json"),
    )
    tried = json.loads(run(*line, "--dry-run").stdout)
    assert len(tried["rows"]) == 4 and all(row["valid_loss"] is None for row in tried["rows"])
    assert not out.exists()
    done = run(*line)
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    losses = [row["valid_loss"] for row in rows]
    assert losses == sorted(losses) and len(set(losses)) == 4
    with open(out, newline="") as file:
        assert len(list(csv.reader(file))) == 5
    assert out.with_suffix(".svg").exists()
    again = run(*line)
    assert "4 combinations, 4 of them measured before" in again.stderr
    assert json.loads(again.stdout)["rows"] == rows


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--rank", "8,x"], 2, "whole numbers from 1 up"),
        (["--lr", "0"], 2, "numbers above 0"),
        (["--lr", "nan"], 2, "numbers above 0"),
        (["--layers", "qx"], 1, "did you mean"),
        (["--rank", "16"], 1, "beyond the profile lite"),
    ],
)
def test_mistakes_are_told(
    home: Home, checkpoint: Path, data: Path, tmp_path: Path, arguments: list[str], code: int, told: str
) -> None:
    out = tmp_path / "grid.csv"
    done = run("packs", "ablate", "--base", checkpoint, "--data", data, "--csv", out, *arguments)
    assert done.exit_code == code and told in done.stderr, done.stderr
    assert not out.exists()
