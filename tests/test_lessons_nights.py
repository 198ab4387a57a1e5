"""The days that bench_nights lives: new to nano, the same for a seed; and, slowly, a few nights of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from nights.people import NAMES, NICKNAMES, TOPICS, VALUES, current, days

from mlx_plastic.sleep.lessons import normal
from nano_recipe import attributes
from nano_recipe import people as recipe

ROOT = Path(__file__).resolve().parent.parent


def test_no_name_value_or_question_of_the_days_was_in_nanos_training() -> None:
    assert set(NAMES).isdisjoint([*attributes.NAMES, *attributes.HELD_NAMES])
    assert set(NICKNAMES).isdisjoint([*attributes.NICKNAMES, *attributes.HELD_NICKNAMES])
    for topic in TOPICS:
        assert set(VALUES[topic.name]).isdisjoint(topic.values), topic.name
    for day in days(20, seed=4, facts=6):
        for fact in day.told:
            topic = next(t for t in TOPICS if t.name == fact.topic)
            voice = recipe.person(fact.who).user if fact.who else recipe.ME.user
            trained = {normal(recipe.fill(q, voice)) for q in topic.questions}
            assert trained.isdisjoint(map(normal, fact.ask))


def test_a_seed_gives_the_same_days_and_more_nights_go_on_with_them() -> None:
    assert days(8, seed=1, facts=5) == days(8, seed=1, facts=5) != days(8, seed=2, facts=5)
    assert days(8, seed=1, facts=5) == days(30, seed=1, facts=5)[:8]


def test_a_correction_replaces_what_is_asked_for_and_strangers_are_never_told_of() -> None:
    lived = days(30, seed=0, facts=6)
    told = [fact for day in lived for fact in day.told]
    assert sum(bool(day.corrected) for day in lived) >= 9 and sum(bool(day.wish) for day in lived) >= 4
    now = {(f.who, f.topic): f.expect for f in current(lived)}
    assert len(now) == sum(len(day.facts) for day in lived)
    for day in lived:
        for fact in day.corrected:
            before = next(f for f in told if (f.who, f.topic) == (fact.who, fact.topic))
            assert before.expect != fact.expect or len([f for f in told if f.who == fact.who]) > 2
    people = {fact.who for fact in told}
    assert not any(name in question for day in lived for question in day.strangers for name in people if name)


def test_the_bench_refuses_too_few_nights_and_unknown_sides() -> None:
    for wrong in (["--nights", "2"], ["--sides", "plane"], ["--set", "lessons"]):
        ran = subprocess.run(
            [sys.executable, str(ROOT / "benchmarks" / "bench_nights.py"), *wrong],
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 2 and wrong[-1] in ran.stderr


DATA = ROOT / "tests" / "data"
# nights of a few seconds: too short to learn much, long enough to go through everything
SHORT = f"""
    lessons.rounds=1 lessons.wanted=4 lessons.general=4 lessons.older=12 lessons.strangers=1
    lessons.mixed_up=0 lessons.told=1 night.epochs=4 night.batch_tokens=512 night.tries=1
    judge.canaries=2 judge.commands=1
    judge.tasks={DATA / "tasks.jsonl"} judge.general={DATA / "general.jsonl"} gate.max_ppl_rise_pct=1000
    gate.max_ppl_rise_since_base_pct=1000 gate.max_old_loss_rise=100 gate.max_recall_drop=1
""".split()


def test_the_bench_lives_three_short_nights_and_tells_their_figures(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "bench_nights.py"), "--nights", "3", "--facts", "1"]
    command += ["--sides", "ours", "--folder", str(tmp_path), "--json"]
    for setting in SHORT:
        command += ["--set", setting]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["falsely_refused"] == 0 and ran.stderr.count(" passed: ") == 3
    assert found["facts"] == 3 and found["told_recall"] == 1.0  # nano understands what is told
    assert len(found["curve"]) == len(found["cost_s"]) == len(found["steps"]) == 3 and min(found["steps"]) > 0
    assert found["wishes_followed"] >= 0.5 and 0 <= found["retained_recall"] <= 1  # a wish is learned at once
    assert json.loads((tmp_path / "figures.json").read_text())["sides"] == ["ours"]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_three_nights_are_learned_and_kept_and_every_planted_one_is_refused() -> None:
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "bench_nights.py"),
        "--nights",
        "3",
        "--facts",
        "4",
        "--json",
    ]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    wanted = """day_recall_mean retained_recall ppl_delta_pct harness_lost cost_ratio_last_first
        plain_retained scratch_retained scratch_cost_ratio refused_planted refused_total falsely_refused"""
    assert set(wanted.split()) <= found.keys()
    assert found["falsely_refused"] == 0 and found["refused_planted"] == found["refused_total"] >= 4
    assert (
        found["day_recall_mean"] >= 0.8 and found["retained_recall"] >= 0.8
    )  # 12 facts: a question is 3 points
    assert found["retained_recall"] > found["plain_retained"]
    assert found["ppl_delta_pct"] <= 3.0 and found["harness_lost"] <= 2
