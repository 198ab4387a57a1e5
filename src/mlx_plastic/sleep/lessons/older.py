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

REPEATS = 6  # of one wording in one night, at most
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
    taught: Sequence[Taught], forgotten: Sequence[float], night: int, most: int, config: LessonConfig
) -> list[Sample]:
    """`most` samples, dealt out in turns: the weakest lessons first, then the most overdue ones.

    forgotten: nats/token of each lesson's probe under the pack worn now; a weak one, and a wish,
    gets `weak_wordings` in each turn. Where all wordings are fewer than `most`, each is there up to REPEATS
    times, or so many times more often.
    """
    draw = random.Random(config.seed + night)
    order = sorted(
        range(len(taught)),
        key=lambda i: (-forgotten[i] if forgotten[i] > WEAK else 0.0, -taught[i].overdue(night)),
    )
    share = {i: config.weak_wordings if _heavy(taught[i], forgotten[i]) else 1 for i in order}
    hands: dict[int, list[Sample]] = {}
    for i in order:
        samples = taught[i].samples
        hands[i] = [s for _ in range(REPEATS * share[i]) for s in draw.sample(samples, len(samples))]
    found: list[Sample] = []
    while any(hands.values()) and len(found) < most:
        for i in order:
            found += hands[i][: share[i]]
            del hands[i][: share[i]]
    return found[:most]


def _heavy(lesson: Taught, forgotten: float) -> bool:
    """A wish too: it has to hold for greetings that were never learned, against what the base says."""
    return forgotten > WEAK or lesson.samples[0].kind == "wish"


def without_conflicts(lessons: Sequence[Sample], rehearsal: Sequence[Sample]) -> list[Sample]:
    """What can be rehearsed beside tonight's lessons: none that a lesson answers, and of several that answer
    one question differently the first.

    So a new wish replaces the old one, and a wish how to be greeted is not undone by the base's greeting.
    """
    taken: dict[str, str | None] = {normal(sample.messages[-2].content): None for sample in lessons}
    kept = []
    for sample in rehearsal:
        question, answer = (normal(message.content) for message in sample.messages[-2:])
        free = taken.get(question, answer) == answer and (sample.kind != "rehearsal" or question not in taken)
        if free or len(sample.messages) > 2:  # behind a context it is another question
            kept.append(sample)
            if sample.kind != "rehearsal":
                taken[question] = answer
    return kept
