"""What was told of somebody as a whole: the answer to an open question, made of checked answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mlx_plastic.samples import Message, Sample
from mlx_plastic.sleep.lessons.others import owner_of
from mlx_plastic.sleep.lessons.text import normal

OPEN = ("What do you know about {who}?", "Tell me about {who}.", "What have I told you about {who}?")
MOST_FACTS = 6  # in one answer


def statements(lessons: Sequence[Sample], wordings: int) -> list[Sample]:
    """For everybody told of in `lessons` up to `wordings` open questions, answered with all that was told.

    Each sentence is the commonest answer among those that one note's questions got, so it stands for itself
    and nothing in it is new. They carry all turns that they are made of.
    """
    told: dict[str, dict[tuple[str, ...], Counter[str]]] = {}
    for sample in lessons:
        if sample.kind == "qa" and (owner := owner_of(sample)) is not None:
            answers = told.setdefault(owner, {}).setdefault(sample.turns, Counter())
            answers[sample.messages[-1].content] += 1
    found = []
    for owner, notes in told.items():
        facts = list(notes.items())[:MOST_FACTS]
        answer = " ".join(dict.fromkeys(answers.most_common(1)[0][0] for _, answers in facts))
        turns = tuple(sorted({turn for ids, _ in facts for turn in ids}))
        for text in OPEN[:wordings]:
            question = text.format(who=owner or "me")
            messages = (Message("user", question), Message("assistant", answer))
            found.append(Sample(messages, f"{'+'.join(turns)} {normal(question)}", turns, "statement"))
    return found
