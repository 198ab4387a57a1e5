"""What evals needs of a model; `base.Base` has it, with packs attached or bare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mlx_plastic.samples import Encoded, Message


class Speaker(Protocol):
    """Something that can be asked, and whose surprise can be measured."""

    def answers(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]: ...

    def nll(self, batch: Sequence[Encoded]) -> list[tuple[float, int]]: ...
