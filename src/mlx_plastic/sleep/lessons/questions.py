"""Questions that the model itself writes about a note, answered as if it had just been told."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlx_plastic.evals import Speaker
from mlx_plastic.memory import Turn
from mlx_plastic.samples import Message, Sample
from mlx_plastic.sleep.lessons.config import LessonConfig
from mlx_plastic.sleep.lessons.text import is_supported, normal

PAIR = re.compile(r"^\s*Q:\s*(?P<question>.+?)\s*$\n\s*A:\s*(?P<answer>.+?)\s*$", re.MULTILINE)
QUESTIONS = (
    "Write {count} questions that this note answers, each with its answer, on lines with Q: and A:\n{note}"
)


def question_prompt(note: str, count: int) -> str:
    """What a model is asked so that it turns a note into questions and answers on Q: and A: lines."""
    return QUESTIONS.format(count=count, note=note)


def questions_about(base: Speaker, notes: Sequence[Turn], config: LessonConfig) -> list[Sample]:
    """Questions and answers that the model itself makes of each note, each checked against the note.

    The wording is sampled; the answer is the one that the model gives when the note has just been said. It
    must say something of the note that the question does not already say, name nothing else, and differ from
    what the bare base answers: where the note changes nothing, there is nothing to learn.
    """
    asked = _written(base, notes, config)
    bare = base.answers([(Message("user", question),) for _, question in asked], max_tokens=config.max_tokens)
    replies = base.answers([(Message("user", t.content),) for t in notes], max_tokens=config.max_tokens)
    said = {
        t.id: (Message("user", t.content), Message("assistant", reply))
        for t, reply in zip(notes, replies, strict=True)
    }
    contexts = [(*said[turn.id], Message("user", question)) for turn, question in asked]
    answers = base.answers(contexts, max_tokens=config.max_tokens)
    samples = []
    for (turn, question), before, answer in zip(asked, bare, answers, strict=True):
        if answer != before and is_supported(question, answer, turn.content):
            messages = (Message("user", question), Message("assistant", answer))
            samples.append(Sample(messages, f"{turn.id} {normal(question)}", (turn.id,), "qa"))
    return samples


def _written(base: Speaker, notes: Sequence[Turn], config: LessonConfig) -> list[tuple[Turn, str]]:
    """(note, question) pairs whose written answer is supported by the note; each wording once."""
    found: dict[tuple[str, str], tuple[Turn, str]] = {}
    asked = [turn for _ in range(config.rounds) for turn in notes]
    prompts = [(Message("user", question_prompt(t.content, config.questions)),) for t in asked]
    texts = base.answers(
        prompts, max_tokens=config.max_tokens, temperature=config.temperature, seed=config.seed
    )
    for turn, text in zip(asked, texts, strict=True):
        for match in PAIR.finditer(text):
            question = match["question"]
            if is_supported(question, match["answer"], turn.content):
                found.setdefault((turn.id, normal(question)), (turn, question))
    return list(found.values())
