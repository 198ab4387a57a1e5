"""The whole story, lived for real by the command itself; minutes each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlx_plastic.demo.picture import page
from mlx_plastic.demo.story import Answer, Fact, Story, _recall, claims, script

SCRIPT = "import sys; from mlx_plastic.cli.main import main; main()"
GOOD: dict[str, Any] = {
    "days": 1, "facts": 22, "recall_before": 0.0, "recall_after": 0.95, "wish_after": 1.0, "made_up": 0.0,
    "trained_wordings": 0, "nights_passed": 1, "ppl_delta_pct": 0.5, "harness_lost": 0, "harness_tasks": 72,
    "poisoned_refused": True, "rollback_identical": True, "base_unchanged": True, "seconds": 100.0,
}  # fmt: skip


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=1500)


@pytest.mark.parametrize(
    "worse",
    [
        {"recall_before": 0.2},
        {"recall_after": 0.89},
        {"trained_wordings": 3},
        {"wish_after": 0.25},
        {"made_up": 0.5},
        {"ppl_delta_pct": 2.1},
        {"ppl_delta_pct": float("nan")},
        {"harness_lost": 2},
        {"poisoned_refused": False},
        {"rollback_identical": False},
        {"base_unchanged": False},
    ],
    ids=lambda worse: next(iter(worse)),
)
def test_every_claim_can_fail(worse: dict[str, Any]) -> None:
    assert all(claim.ok for claim in claims(GOOD))
    assert sum(not claim.ok for claim in claims(GOOD | worse)) == 1


def test_three_days_claim_that_the_first_is_kept() -> None:
    figures = GOOD | {"days": 3, "recall_day1_after_3": 0.79}
    assert [claim.text for claim in claims(figures) if not claim.ok] == ["day 1 after night 3"]


def test_a_wording_that_a_night_wrote_too_counts_neither_way() -> None:
    facts = [Fact("", ("Where is it?", "Which place?"), "Oslo")]
    assert _recall(facts, ["In Oslo.", "Rome."], set()) == 0.5
    assert _recall(facts, ["In Oslo.", "Rome."], {"where is it"}) == 0.0
    assert _recall(facts, ["In Oslo.", "Rome."], {"which place"}) == 1.0


def test_a_day_tells_twenty_facts_and_a_wish_and_asks_each_in_two_ways() -> None:
    for day in script():
        assert len(day.facts) >= 20
        assert all(len(set(fact.ask)) == 2 and fact.expect not in " ".join(fact.ask) for fact in day.facts)
        assert day.wish.expect in day.wish.say


def test_the_picture_shows_text_as_text_and_loads_nothing() -> None:
    story = Story(recall_before=[0.0], recall_after=[1.0], facts=1)
    story.answers = [Answer("<script>alert(1)</script>", "x", "no", "yes")]
    html = page(story, claims(GOOD))
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert "http" not in html


def test_a_folder_in_use_is_refused_as_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    result = demo("--folder", str(tmp_path))
    assert result.returncode == 2
    assert "not empty" in result.stderr
    assert (tmp_path / "mine.txt").read_text() == "keep me"


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("days", [1, 3])
def test_the_demo_keeps_every_claim(tmp_path: Path, days: int) -> None:
    figures_file = tmp_path / "figures.json"
    result = demo("--days", str(days), "--json", str(figures_file), "--folder", str(tmp_path / "home"))
    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads(figures_file.read_text())
    assert all(claim.ok for claim in claims(figures))
    assert figures["nights_passed"] == days
    assert (tmp_path / "home" / "demo.html").stat().st_size > 1000
