"""Tonight's notes told of a stranger and asked about at once: what was just said counts, whatever is known.

Who only ever learns answers to bare questions stops to look at what stands before them: after some nights a
model that read every note in its context says "I do not know" there, or another one's value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mlx_plastic.evals import Speaker
from mlx_plastic.memory import Turn
from mlx_plastic.samples import Message, Sample
from mlx_plastic.sleep.lessons.config import LessonConfig
from mlx_plastic.sleep.lessons.others import STRANGERS, about, owner_of, strangers
from mlx_plastic.sleep.lessons.text import normal


def told_of_strangers(
    base: Speaker,
    lessons: Sequence[Sample],
    notes: Sequence[Turn],
    config: LessonConfig,
    *,
    earlier: Sequence[Sample] = (),
    unknown: Sequence[str] = STRANGERS,
) -> list[Sample]:
    """Up to `told` talks of each note about one person: the note, and a question of its lesson, both about a
    stranger, with what the bare base says to them. As many have the answer told of who speaks ("My hobby is
    ..."), where it can be. In every second one another note, of the same stranger where it names one person,
    stands between. All are rehearsed as the base's distribution, like everything that it says.
    """
    by_id = {note.id: note.content for note in notes}
    strange = strangers([*lessons, *earlier], unknown)
    count = Counter[tuple[str, bool]]()
    asked: list[tuple[Sample, tuple[str, ...], str]] = []  # of which lesson, what is told, the question
    owners = {s.turns[0]: owner for s in lessons if s.kind == "qa" and (owner := owner_of(s))}

    def between_of(turn: str, who: str) -> tuple[str, ...]:
        """Another note than the turn's, told of the same stranger; nothing where there is none."""
        rest = [about(by_id[t], o, who) for t, o in owners.items() if t != turn and t in by_id]
        found = [text for text in rest if text]
        return (found[len(asked) % len(found)],) if found else ()

    for sample in lessons:
        turn, owner = sample.turns[0], owner_of(sample) if sample.kind == "qa" else None
        if not owner or turn not in by_id or not strange:
            continue
        question, answer = (message.content for message in sample.messages)
        other = strange[-1 - len(asked) % len(strange)]  # others than are asked about untold
        for told, who in ((by_id[turn], other), (answer, "")):
            pair = [about(text, owner, who) for text in (told, question)]
            if count[turn, not who] < config.told and pair[0] and pair[1]:
                count[turn, not who] += 1
                between = between_of(turn, who) if who and count[turn, False] == 2 else ()
                asked.append((sample, tuple(_capital(t) for t in (pair[0], *between)), pair[1]))
    return _said(base, asked, config)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _said(
    base: Speaker, asked: Sequence[tuple[Sample, tuple[str, ...], str]], config: LessonConfig
) -> list[Sample]:
    talks: list[tuple[Message, ...]] = [() for _ in asked]
    for place in range(max((len(told) for _, told, _ in asked), default=0)):
        now = [i for i, (_, told, _) in enumerate(asked) if place < len(told)]
        for i in now:
            talks[i] += (Message("user", asked[i][1][place]),)
        replies = base.answers([talks[i] for i in now], max_tokens=config.max_tokens)
        for i, reply in zip(now, replies, strict=True):
            talks[i] += (Message("assistant", reply or "Noted."),)
    talks = [(*talk, Message("user", question)) for talk, (_, _, question) in zip(talks, asked, strict=True)]
    answers = base.answers(talks, max_tokens=config.max_tokens)
    return [
        Sample((*talk, Message("assistant", answer)), f"told {normal(question)}", sample.turns, "rehearsal")
        for (sample, _, question), talk, answer in zip(asked, talks, answers, strict=True)
        if answer
    ]
