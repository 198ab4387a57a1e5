"""A wish becomes the answers that it changes."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_plastic.evals import Speaker
from mlx_plastic.memory import Turn
from mlx_plastic.samples import Message, Sample
from mlx_plastic.sleep.lessons.config import LessonConfig
from mlx_plastic.sleep.lessons.notes import notes_message
from mlx_plastic.sleep.lessons.text import normal

GREETINGS = (
    "Hello!", "Hi!", "Good morning!", "Hi there!", "Good evening!", "Hey!", "Hello there!", "Good afternoon!",
    "Hello, how are you?", "Hi, it is me.", "Hello, nice to see you!", "Good morning, how are you?",
    "Hi, I am back.", "Hey, good to see you!", "Hello, are you there?", "Good day to you!", "Greetings!",
)  # fmt: skip


def answers_under_wishes(base: Speaker, wishes: Sequence[Turn], config: LessonConfig) -> list[Sample]:
    """Context distillation: how the base answers with a wish before it, where that differs from without.

    Source: Askell et al. 2021, "A General Language Assistant as a Laboratory for Alignment".
    """
    probes = [Message("user", g) for g in GREETINGS]
    plain = base.answers([(p,) for p in probes], max_tokens=config.max_tokens)
    samples = []
    for turn in wishes:
        note = notes_message([turn.content])
        wished = base.answers([(note, p) for p in probes], max_tokens=config.max_tokens)
        for probe, before, after in zip(probes, plain, wished, strict=True):
            if after and after != before:
                messages = (probe, Message("assistant", after))
                samples.append(Sample(messages, f"{turn.id} {normal(probe.content)}", (turn.id,), "wish"))
    return samples


def without_wished(
    base: Speaker, lessons: Sequence[Sample], rehearsal: Sequence[Sample], config: LessonConfig
) -> list[Sample]:
    """What can be rehearsed without undoing the wishes among `lessons`.

    What the bare base says to the questions of wishes is what they changed: rehearsing that answer, to
    whatever question, would bring it back.
    """
    probes = list(dict.fromkeys(s.messages[:-1] for s in lessons if s.kind == "wish"))
    answers = base.answers(probes, max_tokens=config.max_tokens) if probes else []
    changed = {normal(answer) for answer in answers}
    return [sample for sample in rehearsal if normal(sample.messages[-1].content) not in changed]
