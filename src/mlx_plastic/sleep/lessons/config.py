"""[lessons] of config.toml."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LessonConfig:
    questions: int = 4  # asked for at once, about one note
    rounds: int = 5  # times each note is asked about
    temperature: float = 1.0  # of the wordings; the answers are the likeliest ones
    max_tokens: int = 192  # of what the model writes
    longest_note: int = 600  # characters; a longer turn is no note
    wish_repeats: int = 5  # times a wish's samples are learned for once of the others
    strangers: int = 4  # wordings of each lesson that are also asked about a stranger
    mixed_up: int = 1  # and about somebody else of tonight, where that was not told
    older: int = 4  # wordings of each earlier lesson that are rehearsed
    general: int = 144  # general prompts that are rehearsed
    seed: int = 0
