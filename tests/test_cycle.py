"""Measure, sleep, measure: every number is kept, and the same before and after where nothing changed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlx_plastic.base import Base, load_base
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import PlasticError
from mlx_plastic.home import Home
from mlx_plastic.packs import Store
from mlx_plastic.sleep.cycle import cycle
from nightly import write_config
from test_night import say
from test_nights_cli import PLAIN


@pytest.fixture(scope="module")
def base(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


def logged(home: Home, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (home.logs / name).read_text().splitlines()]


def test_a_cycle_keeps_every_number_of_before_the_night_and_after(home: Home, base: Base) -> None:
    say(home, 8)
    write_config(home, PLAIN, base.path)
    command = ["--home", str(home.root), "cycle", "--tag", "monday", "--json"]
    done = CliRunner().invoke(plastic, command)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["night"]["outcome"] == "passed" and Store(home).active() == ("monday",)
    assert (found["before"]["worn"], found["after"]["worn"]) == ([], ["monday"])
    assert found["deltas"]["general_nll"] != 0  # control: another model was measured
    experiments = logged(home, "experiments.jsonl")
    assert [(e["tag"], e["kind"]) for e in experiments] == [
        ("monday", "cycle before"),
        ("monday", "cycle night"),
        ("monday", "cycle after"),
    ]
    (summary,) = json.loads((home.logs / "eval_summary.json").read_text())
    assert summary["deltas"] == found["deltas"] and summary["before"] == found["before"]
    with (home.logs / "loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(r["phase"], r["set"]) for r in rows} >= {
        ("before", "general"),
        ("after", "general"),
        ("after", "lessons"),
        ("training", "train"),
        *([("training", "valid")] if found["night"]["counts"]["valid"] else []),  # drawn by conversation
    }
    general = [r for r in rows if (r["phase"], r["set"]) == ("after", "general")]
    assert float(general[0]["nll"]) == pytest.approx(found["after"]["losses"]["general"]["nll"])
    assert "Rex" not in done.output


def test_a_cycle_with_nothing_new_measures_once_and_a_taken_tag_measures_nothing(
    home: Home, base: Base
) -> None:
    found = cycle(home, base, tag="empty", chosen=PLAIN)
    assert found.night.outcome == "nothing"
    assert found.after is found.before and set(found.deltas.values()) == {0}
    (home.packs / "taken").mkdir(parents=True)
    before = (home.logs / "experiments.jsonl").read_bytes()
    with pytest.raises(PlasticError, match="'taken' already"):
        cycle(home, base, tag="taken", chosen=PLAIN)
    assert (home.logs / "experiments.jsonl").read_bytes() == before


def test_a_cycle_needs_a_tag(home: Home) -> None:
    assert CliRunner().invoke(plastic, ["--home", str(home.root), "cycle"]).exit_code == 2
