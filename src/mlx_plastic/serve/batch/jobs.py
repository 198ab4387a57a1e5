"""What is asked of the worker, and what it says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np

    from mlx_plastic.packs import Pack

Finish = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True)
class Sampling:
    """How the tokens of one answer are chosen; the same seed gives the same ones, whatever its company.

    temperature: 0 takes the likeliest. top_k: 0 for all. penalties: as OpenAI defines them (from the counts
    of tokens said so far), repetition: divides logits of tokens seen (1: none). bias: added to logits, by id.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Whether it is the likeliest token of the model's own logits."""
        changed = self.frequency_penalty or self.presence_penalty or self.repetition_penalty != 1.0
        return self.temperature == 0 and not changed and not self.bias


class Constraint(Protocol):
    """Which tokens may come next. Used by the worker's thread only."""

    def allow(self, logits: np.ndarray) -> np.ndarray:
        """The logits, -inf where a token may not come."""
        ...

    def take(self, token: int) -> bool:
        """The token was chosen. False: the answer is complete."""
        ...


@dataclass(frozen=True)
class Wanted:
    """One answer: what to read, and how to speak.

    tokens: the prompt. packs, scales: what is worn, by name. logprobs: how many alternatives are told for
    each token; None: nothing is. strip: leave out space around the answer. remember: keep what was read for a
    later request.
    """

    tokens: tuple[int, ...]
    max_tokens: int
    packs: Mapping[str, Pack] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    strip: bool = True
    remember: bool = True
    constraint: Callable[[], Constraint] | None = None


@dataclass(frozen=True)
class TokenInfo:
    """A token that was said, with its log probability and those of the likeliest instead of it."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """Text that is sure by now; may be empty where tokens are told one by one."""

    text: str
    tokens: tuple[TokenInfo, ...] = ()


@dataclass(frozen=True)
class End:
    """The last word. reused: prompt tokens that need not be read again. first_s: until the first token."""

    finish: Finish
    prompt_tokens: int = 0
    answer_tokens: int = 0
    reused: int = 0
    first_s: float = 0.0
    seconds: float = 0.0
    fault: str = ""
    hint: str = ""
    matched: str = ""  # the stop text that ended it


Said = Piece | End
Asked = Callable[[Said], None]  # called on the worker's thread; must not block


@dataclass(eq=False)
class Job:
    """A request on its way. tell: gets every Piece and, once, an End."""

    wanted: Wanted
    tell: Asked
    gone: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Nobody listens any more; from any thread. An End("cancelled") follows."""
        self.gone.set()
