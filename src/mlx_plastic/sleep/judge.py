"""What a night is judged by: the same measurements of the model as it was and as it would be."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib import resources
from typing import Any, Protocol

from mlx_plastic.evals import (
    EARLIER_LOSS,
    GENERAL_PPL,
    NIGHT_LOSS,
    Report,
    Score,
    load_tasks,
    measure_loss,
    run_harness,
)
from mlx_plastic.samples import ChatTokenizer, Encoded, Message, Sample, encode, parse_messages

NIGHT_RECALL = "night_recall"  # share of tonight's held-out questions answered as taught; told, not judged


class Subject(Protocol):
    """A base, bare or with packs attached."""

    @property
    def tokenizer(self) -> Any: ...

    def answers(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]: ...

    def nll(self, batch: Sequence[Encoded]) -> list[tuple[float, int]]: ...


def general_samples() -> list[Sample]:
    """The conversations that general perplexity is measured on; they come with the package."""
    text = resources.files("mlx_plastic.evals").joinpath("general.jsonl").read_text("utf-8")
    chats = [parse_messages(json.loads(line)) for line in text.splitlines()]
    return [Sample(chat, f"general {i}", (), "general") for i, chat in enumerate(chats)]


def encoded(samples: Sequence[Sample], tokenizer: ChatTokenizer) -> list[Encoded]:
    """The samples as tokens, whole; one without anything to predict is left out."""
    whole = (encode(s, tokenizer, max_tokens=sys.maxsize) for s in samples)
    return [e for e in whole if e.supervised]


def measure(
    model: Subject,
    *,
    tonight: Sequence[Sample],
    earlier: Sequence[Sample],
    max_tokens: int,
    answer_tokens: int = 64,
) -> Report:
    """Loss on held-out lessons, tonight's and earlier ones, general perplexity, recall and the harness.

    max_tokens: longer samples are left out. The model is measured as it is, with what it wears.
    """
    scores = []
    for name, samples in ((NIGHT_LOSS, tonight), (EARLIER_LOSS, earlier), (GENERAL_PPL, general_samples())):
        data = [e for e in encoded(samples, model.tokenizer) if len(e.tokens) <= max_tokens]
        if data:
            loss = measure_loss(model, data)
            value, unit = (loss.perplexity, "") if name == GENERAL_PPL else (loss.nll, "nats/token")
            scores.append(Score(name, value, unit, loss.tokens, spread=loss.spread))
    asked = [s for s in tonight if s.kind != "chat"]
    if asked:
        answers = model.answers([s.messages[:-1] for s in asked], max_tokens=answer_tokens)
        right = sum(a == s.messages[-1].content for a, s in zip(answers, asked, strict=True))
        scores.append(Score(NIGHT_RECALL, right / len(asked), "share", len(asked), higher_is_better=True))
    harness = run_harness(model, load_tasks(), max_tokens=answer_tokens)
    return Report(tuple(scores), harness.passed, harness.refusals)
