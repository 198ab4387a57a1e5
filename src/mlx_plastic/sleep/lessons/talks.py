"""Talks of several turns: a lesson is to be known in the middle of a conversation too."""

from __future__ import annotations

import random
from collections.abc import Sequence

from mlx_plastic.samples import Sample


def talks(lessons: Sequence[Sample], each: int, *, seed: int) -> list[Sample]:
    """`each` talks for every note: a question about it behind one about another note, answered as taught.

    None if only one note was told. They carry the turns of both.
    """
    draw = random.Random(seed)
    by_note: dict[tuple[str, ...], list[Sample]] = {}
    for sample in lessons:
        if sample.kind == "qa":
            by_note.setdefault(sample.turns, []).append(sample)
    found = []
    for turns, samples in by_note.items():
        others = [other for other in by_note if other != turns]
        for second in draw.sample(samples, min(each, len(samples))) if others else ():
            first = draw.choice(by_note[draw.choice(others)])
            both = tuple(sorted({*first.turns, *second.turns}))
            found.append(
                Sample(first.messages + second.messages, f"{first.key} / {second.key}", both, "talk")
            )
    return found
