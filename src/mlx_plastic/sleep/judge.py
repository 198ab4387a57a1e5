"""What a night is judged by: the same measurements of the model as it was and as it would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mlx_plastic.evals import (
    EARLIER_LOSS,
    GENERAL,
    GENERAL_PPL,
    NIGHT_LOSS,
    Report,
    Score,
    Speaker,
    load_tasks,
    measure_loss,
    run_harness,
)
from mlx_plastic.samples import Encoded, Message, Sample, read_chats

NIGHT_RECALL = "night_recall"  # share of tonight's held-out questions answered as taught; told, not judged


@dataclass(frozen=True)
class JudgeConfig:
    """[judge] of config.toml: what a night is measured on besides its own lessons."""

    tasks: str = ""  # a JSONL file of tasks; empty: the harness that comes with the package
    general: str = ""  # a JSONL file of chats for general perplexity; empty: ours
    answer_tokens: int = 64  # of one answer


class Subject(Speaker, Protocol):
    """A base, bare or with packs attached."""

    def encode_chats(self, chats: Sequence[Sequence[Message]]) -> tuple[list[Encoded], int]: ...


def measure(
    model: Subject, *, tonight: Sequence[Sample], earlier: Sequence[Sample], config: JudgeConfig
) -> Report:
    """Loss on held-out lessons, tonight's and earlier ones, general perplexity, recall and the harness.

    The model is measured as it is, with what it wears; samples longer than its window are left out.
    """
    general, _ = read_chats(Path(config.general).expanduser() if config.general else GENERAL)
    scores = [
        *_loss(model, NIGHT_LOSS, [s.messages for s in tonight]),
        *_loss(model, EARLIER_LOSS, [s.messages for s in earlier]),
        *_loss(model, GENERAL_PPL, general),
        *_recall(model, [s for s in tonight if s.kind != "chat"], config.answer_tokens),
    ]
    tasks = load_tasks(Path(config.tasks).expanduser() if config.tasks else None)
    harness = run_harness(model, tasks, max_tokens=config.answer_tokens)
    return Report(tuple(scores), harness.passed, harness.refusals)


def _loss(model: Subject, name: str, chats: Sequence[Sequence[Message]]) -> list[Score]:
    samples, _ = model.encode_chats(chats)
    if not samples:
        return []
    found = measure_loss(model, samples)
    if name == GENERAL_PPL:
        return [Score(name, found.perplexity, "", found.tokens, spread=found.spread * found.perplexity)]
    return [Score(name, found.nll, "nats/token", found.tokens, spread=found.spread)]


def _recall(model: Subject, asked: Sequence[Sample], max_tokens: int) -> list[Score]:
    if not asked:
        return []
    answers = model.answers([s.messages[:-1] for s in asked], max_tokens=max_tokens)
    right = sum(a == s.messages[-1].content for a, s in zip(answers, asked, strict=True))
    return [Score(NIGHT_RECALL, right / len(asked), "share", len(asked), higher_is_better=True)]
