"""[lessons] of config.toml."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlx_plastic.errors import BadConfig

LEAST = {"questions": 1, "rounds": 1, "wanted": 1, "max_tokens": 1, "longest_note": 1, "wish_repeats": 1}


@dataclass(frozen=True)
class LessonConfig:
    """How a day becomes samples, and how many are rehearsed beside it: all of it bounded per night."""

    questions: int = 4  # asked for at once, about one note
    rounds: int = 8  # times a note is asked about at most, while it has fewer wordings than wanted
    wanted: int = 16  # wordings of each note
    statements: int = 0  # open questions about everybody told of, answered with all that was told
    talks: int = 0  # talks of two questions for every note
    temperature: float = 1.0  # of the wordings; the answers are the likeliest ones
    max_tokens: int = 192  # of what the model writes
    longest_note: int = 600  # characters; a longer turn is no note
    wish_repeats: int = 5  # times a wish's samples are learned for once of the others
    strangers: int = 4  # wordings of each lesson that are also asked about a stranger
    mixed_up: int = 1  # and about somebody else of tonight, where that was not told
    told: int = 4  # wordings of each note that are asked right after it was told of a stranger
    older: int = 192  # samples of earlier lessons in an epoch, others in each
    older_each: float = 1.6  # or so many for each lesson, if that is more
    older_most: int = 288  # and never more, however many lessons there are
    weak_wordings: int = 3  # of a lesson that is nearly forgotten, for each of another
    older_strangers: int = 24  # questions of earlier lessons that are asked about strangers
    older_others: int = 24  # of what was asked about others beside earlier lessons
    measured: int = 256  # earlier lessons whose loss decides which are rehearsed
    rivals: int = 4  # earlier lessons that each note is held against, to see whether it replaces them
    general: int = 288  # general prompts that are rehearsed in every epoch
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises BadConfig for a number that makes no sense."""
        for name, value in vars(self).items():
            if name != "seed" and not LEAST.get(name, 0) <= value < math.inf:
                raise BadConfig(
                    f"[lessons] {name} is {value}", hint=f"write a number from {LEAST.get(name, 0)} up"
                )

    def budget(self, lessons: int) -> float:
        """Samples of so many earlier lessons that an epoch rehearses."""
        return min(max(self.older, self.older_each * lessons), max(self.older, self.older_most))
