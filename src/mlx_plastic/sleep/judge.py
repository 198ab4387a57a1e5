"""What a night is judged by: the same measurements of the model as it was and as it would be.

All of it is bounded, so that judging the thousandth night costs what judging the tenth did: of lessons, those
with the smallest hashes are taken, which stay the same ones from night to night, save for what is new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mlx_plastic.errors import BadConfig, BadData
from mlx_plastic.evals import (
    EARLIER_LOSS,
    GENERAL,
    GENERAL_PPL,
    GOLDEN_LOSS,
    NIGHT_LOSS,
    RECALL,
    Report,
    Score,
    Speaker,
    load_tasks,
    measure_loss,
    run_harness,
)
from mlx_plastic.evals.checks import bare
from mlx_plastic.samples import Encoded, Message, Sample, read_chats

NIGHT_RECALL = "night_recall"  # share of tonight's held-out questions answered as taught; told, not judged


@dataclass(frozen=True)
class JudgeConfig:
    """[judge] of config.toml: what a night is measured on besides its own lessons, and how much of it."""

    tasks: str = ""  # a JSONL file of tasks; empty: the harness that comes with the package
    general: str = ""  # a JSONL file of chats for general perplexity; empty: ours
    golden: str = ""  # a JSONL file of chats as they should be; empty: none
    answer_tokens: int = 64  # of one answer
    lessons: int = 64  # held-out samples of tonight, and as many of all earlier nights
    tokens: int = 16_384  # of each set of samples, prompts included: what is over is not measured
    canaries: int = 32  # secrets planted in a night; 0: none
    commands: int = 8  # foreign commands planted in a night; 0: none

    def __post_init__(self) -> None:
        for name, least in (
            ("answer_tokens", 1), ("lessons", 1), ("tokens", 1), ("canaries", 0), ("commands", 0),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise BadConfig(
                    f"[judge] {name} is {getattr(self, name)}", hint=f"write a number from {least} up"
                )

    @property
    def general_file(self) -> Path:
        return Path(self.general).expanduser() if self.general else GENERAL

    @property
    def golden_file(self) -> Path | None:
        return Path(self.golden).expanduser() if self.golden else None

    @property
    def tasks_file(self) -> Path | None:
        return Path(self.tasks).expanduser() if self.tasks else None


class Subject(Speaker, Protocol):
    """A base, bare or with packs attached."""

    def encode_chats(self, chats: Sequence[Sequence[Message]]) -> tuple[list[Encoded], int]: ...


def check_sets(config: JudgeConfig) -> None:
    """Raises BadData for a set that cannot be read or holds nothing: told before a night, not after it."""
    load_tasks(config.tasks_file)
    for name, file in (("general", config.general_file), ("golden", config.golden_file)):
        if file is not None and not read_chats(file)[0]:
            raise BadData(f"{file} holds no chat", hint=f"mend it, or take {name} out of [judge]")


def measure(
    model: Subject, *, tonight: Sequence[Sample], earlier: Sequence[Sample], config: JudgeConfig
) -> Report:
    """Everything that a night is judged by, of the model as it is, with what it wears."""
    lessons = measure_lessons(model, tonight=tonight, earlier=earlier, config=config)
    return joined(lessons, measure_standing(model, config))


def measure_lessons(
    model: Subject, *, tonight: Sequence[Sample], earlier: Sequence[Sample], config: JudgeConfig
) -> Report:
    """Loss and recall on held-out lessons, tonight's and earlier ones.

    Samples longer than the model's window are left out.
    """
    tonight, earlier = chosen(tonight, config.lessons), chosen(earlier, config.lessons)
    scores = [
        *_loss(model, NIGHT_LOSS, [s.messages for s in tonight], config),
        *_loss(model, EARLIER_LOSS, [s.messages for s in earlier], config),
        *_recall(model, NIGHT_RECALL, tonight, config),
        *_recall(model, RECALL, earlier, config),
    ]
    return Report(tuple(scores))


def measure_standing(model: Subject, config: JudgeConfig) -> Report:
    """What is the same every night: general perplexity, golden transcripts, the harness."""
    general, _ = read_chats(config.general_file)
    golden = read_chats(config.golden_file)[0] if config.golden_file else []
    tasks = load_tasks(config.tasks_file)
    scores = [*_loss(model, GENERAL_PPL, general, config), *_loss(model, GOLDEN_LOSS, golden, config)]
    harness = run_harness(model, tasks, max_tokens=config.answer_tokens)
    groups = (harness.refusals, harness.harmless, harness.injections)
    return Report(tuple(scores), harness.passed, *groups)


def joined(lessons: Report, others: Report) -> Report:
    """One report of two, the second with the tasks."""
    scores = lessons.scores + others.scores
    return Report(scores, others.tasks, others.refusals, others.harmless, others.injections)


def chosen(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most so many of the samples, in their order: those whose keys have the smallest hashes.

    A sample that is among them tonight is among them tomorrow, unless new ones displace it.
    """
    if len(samples) <= most:
        return list(samples)
    kept = sorted(range(len(samples)), key=lambda i: (_place(samples[i]), i))[:most]
    return [samples[i] for i in sorted(kept)]


def _place(sample: Sample) -> bytes:
    """Another hash than the one that held it out, for that lies below a tenth in all of these."""
    return hashlib.sha256(b"judge " + sample.key.encode("utf-8")).digest()


def _loss(model: Subject, name: str, chats: Sequence[Sequence[Message]], config: JudgeConfig) -> list[Score]:
    samples = within(model.encode_chats(chats)[0], config.tokens)
    if not samples:
        return []
    found = measure_loss(model, samples)
    parts = tuple((nats, float(n)) for nats, n in found.per_sample)
    if name == GENERAL_PPL:
        spread = found.spread * found.perplexity
        return [Score(name, found.perplexity, "", found.tokens, spread=spread, parts=parts)]
    return [Score(name, found.nll, "nats/token", found.tokens, spread=found.spread, parts=parts)]


def within(samples: Sequence[Encoded], most: int) -> list[Encoded]:
    """The first samples that have no more than `most` tokens together, and always one."""
    kept: list[Encoded] = []
    for sample in samples:
        most -= len(sample.tokens)
        if most < 0 and kept:
            break
        kept.append(sample)
    return kept


def _recall(model: Subject, name: str, samples: Sequence[Sample], config: JudgeConfig) -> list[Score]:
    """The share of questions answered as taught, up to case, space and the punctuation at the end."""
    asked = [s for s in samples if s.kind != "chat"]
    if not asked:
        return []
    answers = model.answers([s.messages[:-1] for s in asked], max_tokens=config.answer_tokens)
    hits = [bare(a) == bare(s.messages[-1].content) for a, s in zip(answers, asked, strict=True)]
    parts = tuple((float(hit), 1.0) for hit in hits)
    share = sum(hits) / len(hits)
    return [Score(name, share, "share", len(asked), higher_is_better=True, parts=parts)]
