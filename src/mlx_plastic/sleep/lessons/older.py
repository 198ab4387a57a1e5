"""Earlier lessons, rehearsed."""

from __future__ import annotations

import random
from collections.abc import Sequence

from mlx_plastic.samples import Sample
from mlx_plastic.sleep.lessons.text import normal


def without_conflicts(lessons: Sequence[Sample], rehearsal: Sequence[Sample]) -> list[Sample]:
    """What can be rehearsed beside tonight's lessons: each question once, and none that a lesson answers.

    So a new wish replaces the old one, and a wish how to be greeted is not undone by the base's greeting.
    """
    taken = {normal(sample.messages[-2].content) for sample in lessons}
    kept = []
    for sample in rehearsal:
        question = normal(sample.messages[-2].content)
        if question not in taken or len(sample.messages) > 2:  # behind a context it is another question
            kept.append(sample)
            taken |= {question} if sample.kind != "rehearsal" else set()
    return kept


def older_lessons(earlier: Sequence[Sample], per_lesson: int, *, seed: int) -> list[Sample]:
    """Up to `per_lesson` samples of each kind of each turn learned before, drawn anew every night."""
    by_lesson: dict[tuple[tuple[str, ...], str], list[Sample]] = {}
    for sample in earlier:
        by_lesson.setdefault((sample.turns, sample.kind), []).append(sample)
    draw = random.Random(seed)
    return [s for group in by_lesson.values() for s in draw.sample(group, min(per_lesson, len(group)))]
