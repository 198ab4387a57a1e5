"""A starter set of chats, so that a new user has something to sleep on at once."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_plastic.errors import BadData
from mlx_plastic.evals import Speaker
from mlx_plastic.memory import Turn
from mlx_plastic.memory.privacy import redact_all
from mlx_plastic.samples import Message, Sample
from mlx_plastic.sleep.lessons import LessonConfig
from mlx_plastic.sleep.lessons.questions import questions_about

if TYPE_CHECKING:
    from mlx_plastic.sleep.teacher import Teacher

MOST_LINES = 1000  # of a file of statements


def starter(count: int | None = None, *, seed: int = 0) -> list[Sample]:
    """Questions about this program and its answers, each fact in five wordings; drawn by a seed.

    count: so many of them, of every fact about as many; None: all.
    """
    text = resources.files("mlx_plastic.sleep").joinpath("starter.jsonl").read_text("utf-8")
    draw, rounds = random.Random(seed), list[list[tuple[str, str]]]()
    for line in text.splitlines():
        fact = json.loads(line)
        wordings = draw.sample(fact["questions"], len(fact["questions"]))
        rounds.append([(question, fact["answer"]) for question in wordings])
    in_turn = [pair for wording in zip(*rounds, strict=True) for pair in draw.sample(wording, len(wording))]
    chosen = in_turn if count is None else in_turn[:count]
    return [_sample(i, question, answer) for i, (question, answer) in enumerate(chosen)]


def read_statements(path: Path) -> tuple[list[Turn], int]:
    """(the lines of a text file as notes, how many were left out for what stands in them).

    One statement a line, such as "I live in Graz."; empty lines and those that begin with # are passed over.
    What may not be learned as it stands is left out. Raises BadData for a file that cannot be read, holds
    nothing, or too much.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except OSError as error:
        raise BadData(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    except UnicodeDecodeError as error:
        raise BadData(f"{path} is not UTF-8 text", hint="save it as UTF-8, one statement a line") from error
    texts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not texts:
        raise BadData(f"{path} holds no statement", hint="write one a line, such as: I live in Graz.")
    if len(texts) > MOST_LINES:
        raise BadData(f"{path} holds {len(texts)} statements", hint=f"take at most {MOST_LINES} at a time")
    kept = [
        text
        for text, done in zip(texts, redact_all(texts), strict=True)
        if done.text == text and not done.dropped
    ]
    now = datetime.now(UTC)
    notes = [Turn(f"line-{i:04d}", "synth", "user", text, now) for i, text in enumerate(kept)]
    return notes, len(texts) - len(kept)


def from_statements(
    base: Speaker, notes: Sequence[Turn], config: LessonConfig, *, teacher: Teacher | None = None
) -> list[Sample]:
    """Questions and answers about each statement, written by the base (bare) or a teacher, and checked."""
    return questions_about(base, notes, config, given=teacher.pairs(notes) if teacher else {})


def to_chats(samples: Sequence[Sample]) -> bytes:
    """JSONL as `plastic memory import` takes it: messages alone."""
    rows = ({"messages": [m.as_dict() for m in sample.messages]} for sample in samples)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8")


def _sample(number: int, question: str, answer: str) -> Sample:
    return Sample((Message("user", question), Message("assistant", answer)), f"starter {number}")
