"""Trends over nights: what can be compared is, what got worse is told, noise is not."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import PlasticError
from mlx_plastic.evals import History
from mlx_plastic.evals.trend_plots import draw
from mlx_plastic.evals.trends import Point, Series, trends
from mlx_plastic.home import Home


def night(
    tag: str, ppl: float, *, passed: bool = True, tasks: int = 9, spread: float | None = None
) -> dict[str, Any]:
    def report(loss: float, ppl: float) -> dict[str, Any]:
        scores = [
            {
                "name": "night_loss",
                "value": loss,
                "unit": "nats/token",
                "higher_is_better": False,
                "spread": 0.1,
            },
            {"name": "general_ppl", "value": ppl, "unit": "", "higher_is_better": False, "spread": spread},
        ]
        return {"scores": scores, "tasks": {f"t{i}": i < tasks for i in range(10)}}

    return {
        "when": "2026-01-01",
        "tag": tag,
        "kind": "night",
        "verdict": {"passed": passed},
        "before": report(3.0, 3.0),
        "after": report(1.0, ppl),
        "seconds": 50,
    }


def named(found: list[Series], name: str) -> Series:
    return next(one for one in found if one.name == name)


def lower(*values: float, error: float | None = None) -> Series:
    return Series("loss", "", False, tuple(Point("", str(i), v, error) for i, v in enumerate(values)))


def test_a_series_that_got_worse_by_more_than_the_tolerance_has_regressed() -> None:
    assert not lower(3.0, 3.05).regressed()
    assert lower(3.0, 3.07).regressed()
    assert lower(3.0, 2.0, 2.9).regressed()  # against the best so far, not the one before
    assert not lower(3.0, 2.9).regressed() and not lower(3.0).regressed() and not lower().regressed()
    assert Series("recall", "", True, (Point("", "a", 0.9), Point("", "b", 0.8))).regressed()
    assert not Series("recall", "", True, (Point("", "a", 0.9), Point("", "b", 0.95))).regressed()
    assert not lower(3.0, 3.3).regressed(tolerance_pct=15)


def test_what_its_errors_explain_is_no_regression() -> None:
    assert not lower(3.0, 3.2, error=0.1).regressed()
    assert lower(3.0, 3.2, error=0.01).regressed()  # control


def test_nights_that_were_set_apart_are_shown_and_do_not_count() -> None:
    found = trends([night("one", 3.0), night("two", 9.0, passed=False), night("three", 3.01)], [])
    ppl = named(found, "night general_ppl")
    assert [p.value for p in ppl.points] == [3.0, 9.0, 3.01]
    assert [p.value for p in ppl.worn] == [3.0, 3.01]
    assert not ppl.regressed()
    assert [row["change"] for row in ppl.rows()] == [None, 6.0, pytest.approx(0.01)]
    assert named(found, "night tasks passed").points[0].value == 9


def test_what_rests_on_other_lessons_every_night_is_never_called_worse() -> None:
    harder = night("two", 3.0)
    harder["after"]["scores"][0]["value"] = 2.9
    found = trends([night("one", 3.0), harder], [])
    gain = named(found, "night gain")
    assert [p.value for p in gain.points] == [2.0, pytest.approx(0.1)]
    assert not gain.regressed()


def test_only_what_was_measured_on_the_same_data_is_one_series() -> None:
    def loss(data: str, nll: float) -> dict[str, Any]:
        return {"when": "", "tag": "", "kind": "loss", "data": data, "nll": nll, "spread": 0.001}

    found = trends([], [loss("a", 1.0), loss("b", 2.0), loss("a", 1.5)])
    assert {one.name: len(one.points) for one in found} == {"loss on a": 2, "loss on b": 1}
    assert named(found, "loss on a").regressed()


@pytest.mark.parametrize(
    "entry", [{}, {"kind": "loss"}, {"kind": "harness", "tasks": "x"}, {"after": 3, "verdict": []}]
)
def test_entries_of_no_use_are_passed_over(entry: dict[str, Any]) -> None:
    found = trends([entry], [entry])
    assert all(not one.worn for one in found)
    json.dumps([one.rows() for one in found], allow_nan=False)


def run(home: Home, *arguments: str) -> Any:
    return CliRunner().invoke(plastic, ["--home", str(home.root), "eval", "trends", *arguments])


def kept(home: Home, *nights: dict[str, Any]) -> None:
    for entry in nights:
        History(home.logs / "nights.jsonl").append(**entry)


def test_the_command_shows_the_course_and_fails_on_request(home: Home, tmp_path: Path) -> None:
    kept(home, night("one", 3.0), night("two", 3.01))
    assert run(home, "--fail-on-regression").exit_code == 0
    kept(home, night("three", 3.5))
    told = run(home)
    assert told.exit_code == 0  # only told
    assert "worse: night general_ppl is 3.5, and was 3 (one)" in told.stderr
    assert run(home, "--fail-on-regression").exit_code == 1
    assert run(home, "--fail-on-regression", "--tolerance", "20").exit_code == 0
    assert run(home, "--fail-on-regression", "--series", "tasks").exit_code == 0
    out = tmp_path / "t.csv"
    found = json.loads(run(home, "--json", "--csv", str(out), "--last", "2").stdout)
    assert found["regressed"] == ["night general_ppl"]
    ppl = [row for row in found["rows"] if row["series"] == "night general_ppl"]
    assert [(row["tag"], row["value"]) for row in ppl] == [("two", 3.01), ("three", 3.5)]
    assert len(list(csv.DictReader(out.open()))) == len(found["rows"])


def test_an_empty_home_is_no_error(home: Home) -> None:
    done = run(home)
    assert done.exit_code == 0 and "nothing was measured yet" in done.stderr
    assert json.loads(run(home, "--json").stdout) == {"rows": [], "regressed": []}
    assert run(home, "--plot", "x.png").exit_code == 1


def test_the_picture_is_drawn(home: Home, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    kept(home, night("one", 3.0, spread=0.1), night("two", 9.0, passed=False), night("three", 3.01))
    picture = tmp_path / "plots" / "t.svg"
    done = run(home, "--plot", str(picture))
    assert done.exit_code == 0, done.output
    assert picture.read_text().count("<svg") == 1
    with pytest.raises(PlasticError, match="cannot draw"):
        draw([lower(1.0)], tmp_path / "t.doc")
    draw([lower(1.0, math.nan)], tmp_path / "nan.png")
    assert (tmp_path / "nan.png").stat().st_size > 0
