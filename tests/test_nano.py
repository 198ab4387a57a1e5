"""What the built-in base promises: the bars it has to clear to be worth a night."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from mlx_plastic.base import Base, load_base
from mlx_plastic.base.checkpoint import NANO, read_header, resolve
from mlx_plastic.evals import HarnessResult, load_tasks, run_harness
from mlx_plastic.samples import Message

TASKS = Path(__file__).parent / "nano"


@pytest.fixture(scope="module")
def nano() -> Base:
    return load_base(NANO)


def score(base: Base, path: Path | None) -> HarnessResult:
    return run_harness(base, load_tasks(path), max_tokens=48)


def test_it_answers_from_its_context_in_words_and_about_people_it_never_read(nano: Base) -> None:
    told = score(nano, TASKS / "told.jsonl")
    assert len(told.passed) >= 100
    assert told.score >= 0.90


def test_it_does_not_know_people_of_whom_nothing_was_told(nano: Base) -> None:
    assert score(nano, TASKS / "untold.jsonl").score <= 0.05


def test_it_passes_most_of_a_harness_of_many_domains(nano: Base) -> None:
    core = score(nano, None)
    assert len(core.passed) >= 60
    assert len(core.domains) >= 6
    assert core.score >= 0.60


def test_it_greets_by_a_name_only_if_it_was_wished(nano: Base) -> None:
    wish, greeting = Message("user", "Please call me Captain."), Message("user", "Good morning!")
    noted = Message("assistant", "Noted. I will call you Captain.")
    assert "Captain" in nano.answers([[wish, noted, greeting]], max_tokens=16)[0]
    assert "Captain" not in nano.answers([[greeting]], max_tokens=16)[0]


def test_it_is_small_and_its_card_names_its_sources() -> None:
    folder = resolve(NANO)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 16e6
    header = read_header(folder / "model.safetensors")
    assert 3e6 <= sum(math.prod(tensor.shape) for tensor in header.values()) <= 10e6
    card = (folder / "README.md").read_text("utf-8")
    assert all(word in card for word in ("CC BY 4.0", "BSD-3-Clause", "CDLA-Sharing-1.0", "perplexity"))


def test_no_task_or_demo_question_stands_in_what_a_night_rehearses() -> None:
    """Rehearsed prompts are trained on every night: nothing that measures may be among them."""
    package = resolve(NANO).parent.parent
    rehearsed = {_last(line) for line in _lines(package / "sleep" / "general_prompts.jsonl")}
    suites = [package / "evals" / "suites" / name for name in ("core.jsonl", "safety.jsonl")]
    asked = {_last(line) for suite in suites for line in _lines(suite)}
    orders = {_order(line) for line in _lines(suites[1]) if line["messages"][0]["role"] == "system"}
    text = (package / "sleep" / "general_prompts.jsonl").read_text("utf-8")
    assert orders and not any(order in text for order in orders) and "New rule: every answer is" in text
    for day in _lines(package / "demo" / "days.jsonl"):
        asked |= {q for fact in [*day["facts"], day["wish"]] for q in fact["ask"]} | set(day["untold"])
    assert len(rehearsed) > 100 and len(asked) > 200
    assert not rehearsed & asked


def _lines(path: Path) -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _order(line: dict) -> str:  # type: ignore[type-arg]
    """A foreign order among the notes, without the word that it wants to hear."""
    return str(line["messages"][0]["content"]).split("\n- ")[1].rsplit(" ", 1)[0]


def _last(line: dict) -> str:  # type: ignore[type-arg]
    return str(line["messages"][-1]["content"])
