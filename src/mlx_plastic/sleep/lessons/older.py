"""Which earlier lessons a night rehearses: those that are nearly forgotten, then those that are due.

The number is fixed, however many lessons there are, so a night costs the same after a year. A lesson that is
still known is rehearsed at growing distances (Ebisu and its kin; Leitner 1972): 1, 2, 4, 8 ... nights.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mlx_plastic.samples import Sample
from mlx_plastic.sleep.lessons.config import LessonConfig
from mlx_plastic.sleep.lessons.text import normal

WEAK = 0.05  # nats/token: what is known by heart has a hundredth, what is forgotten has one and more


@dataclass(frozen=True)
class Taught:
    """One earlier lesson. samples: its wordings. night: which one taught it, counted from 0.

    rehearsed: in which nights it was learned again.
    """

    samples: tuple[Sample, ...]
    night: int
    rehearsed: tuple[int, ...] = ()

    def overdue(self, night: int) -> float:
        """How far the time since it was last learned is beyond its interval; 1.0 is just due."""
        last = max((self.night, *self.rehearsed))
        return (night - last) / float(2 ** len(self.rehearsed))


def candidates(taught: Sequence[Taught], night: int, most: int) -> list[Taught]:
    """The lessons to be measured before one is chosen: all, or those most overdue."""
    return sorted(taught, key=lambda lesson: -lesson.overdue(night))[:most]


def probes(taught: Sequence[Taught], night: int) -> list[Sample]:
    """A wording of each lesson, another every night: how well it is still known."""
    return [lesson.samples[night % len(lesson.samples)] for lesson in taught]


def rehearsed(
    taught: Sequence[Taught], forgotten: Sequence[float], night: int, config: LessonConfig
) -> list[Sample]:
    """Up to `older` samples: the weakest lessons first, then the most overdue ones.

    forgotten: nats/token of each lesson's probe under the pack worn now.
    """
    draw = random.Random(config.seed + night)
    order = sorted(
        range(len(taught)),
        key=lambda i: (-forgotten[i] if forgotten[i] > WEAK else 0.0, -taught[i].overdue(night)),
    )
    each = max(config.older_wordings, config.older // max(1, len(taught)))  # few lessons: in more wordings
    found: list[Sample] = []
    for i in order:
        samples = taught[i].samples
        found += draw.sample(samples, min(each, len(samples), config.older - len(found)))
    return found


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
