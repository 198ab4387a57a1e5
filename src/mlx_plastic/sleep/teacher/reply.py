"""What comes back from a teacher, and in which ways it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mlx_plastic.errors import PlasticError


class TeacherFailed(PlasticError):
    """A teacher did not answer, or not with anything that can be used.

    To do: check `url`, `model` and the key in [teacher] of config.toml, and whether its server runs. Without
    a teacher the base writes its questions itself.
    """

    code = "PLASTIC-N001"


class Passing(TeacherFailed):
    """A failure that may be over soon. after_s: what the other side asked to wait; 0 if it did not say."""

    def __init__(self, message: str, *, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


@dataclass(frozen=True)
class Reply:
    """An answer, and the tokens it was counted at; 0 where the other side counts none."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0


class Line(Protocol):
    """A way to ask one question. Raises Passing or TeacherFailed."""

    def ask(self, prompt: str) -> Reply: ...
