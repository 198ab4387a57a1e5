"""How often each sample is learned, so that what has few wordings is learned as well as the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mlx_plastic.samples import Sample
from mlx_plastic.sleep.lessons.config import LessonConfig


def balanced(samples: Sequence[Sample], config: LessonConfig) -> list[Sample]:
    """The samples, some several times: of a note with few wordings until it has half of those wanted, of a
    wish `wish_repeats` times. Imported talks once each."""
    have = Counter(s.turns for s in samples if s.kind == "qa")
    found: list[Sample] = []
    for sample in samples:
        times = 1
        if sample.kind == "wish":
            times = config.wish_repeats
        elif sample.kind == "qa":
            times = max(1, round(config.wanted / 2 / have[sample.turns]))
        found += [sample] * times
    return found
