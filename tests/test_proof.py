"""The page of benchmarks tells what was measured, whatever it was, and README quotes nothing else."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

plan, pages = importlib.import_module("proof.plan"), importlib.import_module("proof.page")


def kept(**runs: Any) -> dict[str, Any]:
    return {
        name: {"date": "2026-01-02", "commit": "abc", "machine": "2 x Some", "runs": found}
        for name, found in runs.items()
    }


def test_the_page_is_what_the_kept_figures_say() -> None:
    found = json.loads((ROOT / "docs" / "benchmarks.json").read_text("utf-8"))
    assert pages.page(found) == (ROOT / "docs" / "benchmarks.md").read_text("utf-8")


def test_readme_quotes_what_the_kept_figures_say() -> None:
    found = json.loads((ROOT / "docs" / "benchmarks.json").read_text("utf-8"))
    readme = (ROOT / "README.md").read_text("utf-8")
    assert pages.quoted(readme, found) == readme
    found["train"]["runs"] = [{"all_layers_ratio": 0.5}]  # control: others
    told = pages.quoted(readme, found)
    assert told != readme and "trainer | 0.5 | at least 1.5 |" in told and "not measured" in told


def test_every_benchmark_is_a_script_that_is_there() -> None:
    for bench in plan.BENCHES:
        assert (ROOT / bench.command[1]).is_file() and bench.figures
    assert len({bench.name for bench in plan.BENCHES}) == len(plan.BENCHES)


@pytest.mark.parametrize(("speedup", "word"), [([6.0, 5.5, 8.0], "yes"), ([4.0, 4.5, 8.0], "**no**")])
def test_medians_spreads_and_missed_aims_are_told(speedup: list[float], word: str) -> None:
    told = pages.page(kept(svd=[{"speedup": value, "rel_error": 1e-7} for value in speedup]))
    row = next(line for line in told.splitlines() if "slowest case" in line)
    middle, low, high = sorted(speedup)[1], min(speedup), max(speedup)
    assert f"| {middle:g} | {low:g} to {high:g}, n = 3 | at least 5 | {word} |" in row
    assert "`python benchmarks/bench_svd.py --json` (2026-01-02, commit abc, 2 x Some)" in told
    assert "svd" not in told.split("Not measured yet")[1]


def test_a_figure_that_a_run_lacks_is_said_to_be_missing_and_not_made_up() -> None:
    told = pages.page(kept(svd=[{"speedup": 6.0, "rel_error": None}], serve=[{}]))
    svd, serve = told.split("## Eight requests")
    assert "slowest case | 6 |" in svd and svd.count("not measured") == 1  # of the best fit
    assert serve.count("| not measured |") == 4 and "yes" not in serve


def test_how_far_a_figure_is_over_its_aim_counts_for_both_directions() -> None:
    found = dict(pages.over_aim(kept(svd=[{"speedup": 10.0, "rel_error": 1e-4}])))
    assert [round(ratio, 6) for ratio in found.values()] == [2.0, 0.1]
