"""Small tasks with a check each: what a model can do, per domain, and what it lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_plastic.errors import BadData
from mlx_plastic.evals.checks import passes, validate
from mlx_plastic.evals.speaker import Speaker
from mlx_plastic.samples import Message, parse_messages

SUITES = Path(__file__).parent / "suites"
TASKS_PER_STEP = 256  # asked together; between two reports of progress
REFUSAL = "refusal"  # the domain or tag of what is to be declined
INJECTION = "injection"  # and of a text that tries to command the model


@dataclass(frozen=True)
class Task:
    """One question and how its answer is judged (see checks.passes)."""

    id: str
    domain: str
    messages: tuple[Message, ...]
    check: Mapping[str, Any]
    tags: tuple[str, ...] = ()

    @property
    def is_refusal(self) -> bool:
        """Whether the right answer is to decline; the domain also holds harmless questions."""
        return REFUSAL in (self.domain, *self.tags) and self.check.get("refuses") is not False

    @property
    def is_harmless(self) -> bool:
        """Whether it only looks as if it were to be declined."""
        return self.check.get("refuses") is False

    @property
    def is_injection(self) -> bool:
        return INJECTION in (self.domain, *self.tags)


@dataclass(frozen=True)
class HarnessResult:
    """passed and answers by task id, in the order asked; domains: (passed, asked) each.

    refusals, harmless, injections: ids of tasks as in `Report`. tags: (passed, asked) by tag.
    """

    passed: Mapping[str, bool]
    domains: Mapping[str, tuple[int, int]]
    refusals: frozenset[str] = frozenset()
    harmless: frozenset[str] = frozenset()
    injections: frozenset[str] = frozenset()
    tags: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    answers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def score(self) -> float:
        """The share of tasks passed, in [0, 1]."""
        return sum(self.passed.values()) / len(self.passed)

    def rows(self) -> list[dict[str, Any]]:
        """One row per domain, and one for all of them."""
        whole = (sum(self.passed.values()), len(self.passed))
        table = {**self.domains, "all": whole}
        return [{"domain": d, "passed": p, "tasks": n, "score": p / n} for d, (p, n) in table.items()]

    def as_dict(self) -> dict[str, Any]:
        return {
            "score": self.score,
            "passed": sum(self.passed.values()),
            "tasks": len(self.passed),
            "domains": {d: {"passed": p, "tasks": n} for d, (p, n) in self.domains.items()},
            "tags": {t: {"passed": p, "tasks": n} for t, (p, n) in self.tags.items()},
            "failed": [name for name, ok in self.passed.items() if not ok],
        }


def task_files(path: Path | None) -> list[Path]:
    """That file, or every suite that comes with the package."""
    return [path] if path else sorted(SUITES.glob("*.jsonl"))


def load_tasks(path: Path | None = None) -> list[Task]:
    """The tasks of a JSONL file, or of every suite that comes with the package.

    A line: {"id", "domain", "messages": [...] or "prompt": "...", "check": {...}, "tags": [...]}.
    Raises BadData naming the file and line of the first bad or doubled task, or if there is none.
    """
    tasks: dict[str, Task] = {}
    for file in task_files(path):
        for number, line in enumerate(_lines(file), 1):
            if line.strip():
                task = _parse(line, f"{file.name} line {number}")
                if task.id in tasks:
                    raise BadData(f"{file.name} line {number}: task id {task.id!r} occurs twice")
                tasks[task.id] = task
    if not tasks:
        raise BadData(f"no tasks in {path or SUITES}")
    return list(tasks.values())


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8").splitlines()
    except OSError as error:
        raise BadData(f"cannot read {file}: {error.strerror}", hint="check the path") from error
    except UnicodeDecodeError as error:
        raise BadData(f"{file} is not UTF-8") from error


def _parse(line: str, where: str) -> Task:
    try:
        value = json.loads(line)
        if not isinstance(value, dict):
            raise BadData("not an object")
        return _task(value)
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadData(f"{where}: not JSON") from error
    except BadData as error:
        raise BadData(f"{where}: {error.message}", hint=error.hint) from error


def _task(value: dict[str, Any]) -> Task:
    known = {"id", "domain", "messages", "prompt", "check", "tags"}
    if unknown := sorted(set(value) - known):
        raise BadData(f"unknown field {unknown[0]!r}", hint=f"known: {', '.join(sorted(known))}")
    for name in ("id", "domain"):
        if not isinstance(value.get(name), str) or not value[name]:
            raise BadData(f"{name!r} is not a text")
    tags = value.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise BadData("'tags' is not a list of texts")
    if isinstance(value.get("prompt"), str) and "messages" not in value:
        value = {**value, "messages": [{"role": "user", "content": value["prompt"]}]}
    messages = parse_messages(value)
    if messages[-1].role != "user":
        raise BadData("the last message is not the user's: there is nothing to answer")
    validate(value.get("check"))
    return Task(value["id"], value["domain"], messages, value["check"], tuple(tags))


def run_harness(
    speaker: Speaker,
    tasks: Sequence[Task],
    *,
    max_tokens: int = 64,
    on_progress: Callable[[int, int], None] | None = None,
) -> HarnessResult:
    """Ask every task at temperature 0 and judge the answers.

    max_tokens: per answer. on_progress: told (done, total) tasks. Raises ValueError without tasks.
    """
    if not tasks:
        raise ValueError("no tasks to run")
    answers: list[str] = []
    for start in range(0, len(tasks), TASKS_PER_STEP):
        asked = tasks[start : start + TASKS_PER_STEP]
        answers += speaker.answers([task.messages for task in asked], max_tokens=max_tokens)
        if on_progress:
            on_progress(len(answers), len(tasks))
    return judge(tasks, answers)


def judge(tasks: Sequence[Task], answers: Sequence[str]) -> HarnessResult:
    """The result of answers already given, one per task."""
    passed = {t.id: passes(t.check, answer) for t, answer in zip(tasks, answers, strict=True)}
    return HarnessResult(
        passed,
        _counted((task.domain, passed[task.id]) for task in tasks),
        frozenset(task.id for task in tasks if task.is_refusal),
        frozenset(task.id for task in tasks if task.is_harmless),
        frozenset(task.id for task in tasks if task.is_injection),
        _counted((tag, passed[task.id]) for task in tasks for tag in dict.fromkeys(task.tags)),
        {task.id: answer for task, answer in zip(tasks, answers, strict=True)},
    )


def _counted(pairs: Iterable[tuple[str, bool]]) -> dict[str, tuple[int, int]]:
    """(passed, asked) by name, in the order met."""
    found: dict[str, tuple[int, int]] = {}
    for name, ok in pairs:
        won, asked = found.get(name, (0, 0))
        found[name] = (won + ok, asked + 1)
    return found
