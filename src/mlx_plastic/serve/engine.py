"""One turn: log it, wear what is to be worn, answer within the window, log the answer."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mlx_plastic.errors import PlasticError
from mlx_plastic.home.config import check_bounds
from mlx_plastic.memory import Memory
from mlx_plastic.memory.records import exchanges
from mlx_plastic.packs import Store
from mlx_plastic.samples import Message

if TYPE_CHECKING:
    from mlx_plastic.base import Base
    from mlx_plastic.memory import Turn
    from mlx_plastic.memory.index import Hit
    from mlx_plastic.serve.notes import Notes

log = logging.getLogger(__name__)

BOUNDS = {
    "max_tokens": (1, math.inf),
    "temperature": (0, math.inf),
    "window_tokens": (1, math.inf),
    "notes": (0, math.inf),
    "least_match": (0, 1),
}

Count = Callable[[Sequence[Message]], int]  # tokens of a conversation as the base will see it


@dataclass(frozen=True)
class ChatConfig:
    """[chat] of config.toml."""

    max_tokens: int = 256  # of one answer
    temperature: float = 0.0  # 0: always the likeliest word
    window_tokens: int = 8192  # of the conversation that is shown to the base, if it can see as much
    rag: bool = False  # look up what was said before, and show it to the base beside a question
    notes: int = 4  # turns that are looked up
    least_match: float = 0.4  # of the question that such a turn has to meet, in [0, 1]

    def __post_init__(self) -> None:
        """Raises BadConfig for a number that makes no sense."""
        check_bounds("chat", self, BOUNDS)


@dataclass(frozen=True)
class Why:
    """What went into the last answer, in ids, names and numbers; never text.

    worn: packs on the base. chosen: by this session rather than by the store. question, answer: ids of
    the turns; answer is "" while nothing was said. dropped: old exchanges that no longer fitted the window.
    merged: messages joined to their neighbour because the same side spoke twice. recalled: turns of earlier
    talk that were quoted beside the question.
    """

    base: str
    fingerprint: str
    worn: tuple[str, ...]
    chosen: bool
    question: str
    answer: str = ""
    messages: int = 0
    dropped: int = 0
    merged: int = 0
    prompt_tokens: int = 0
    window_tokens: int = 0
    max_tokens: int = 0
    temperature: float = 0.0
    seed: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    recalled: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """The part of a conversation that fits. room: tokens left for the answer; the rest as in Why."""

    messages: tuple[Message, ...]
    tokens: int
    room: int
    dropped: int
    merged: int


@dataclass
class Engine:
    """A base, the packs on it and the memory of what it said; one reply at a time.

    choice: packs for this session; None wears what the store says, looked up at every turn, so that a night
    that passes meanwhile is worn from the next turn on.
    """

    base: Base
    memory: Memory
    store: Store
    window_tokens: int = ChatConfig.window_tokens
    choice: tuple[str, ...] | None = None
    worn: tuple[str, ...] = ()
    notes: Notes | None = None  # None: nothing is looked up
    recalled: tuple[Hit, ...] = ()  # for the last answer
    _why: Why | None = field(default=None, repr=False)

    def why(self) -> Why | None:
        """About the last answer; None before the first."""
        return self._why

    def wear(self, choice: tuple[str, ...] | None) -> tuple[str, ...]:
        """Wear these packs in this session only; () is the bare base, None follows the store again.

        Returns what is worn now. Raises what `sync` raises, and then the earlier choice stands.
        """
        earlier, self.choice = self.choice, choice
        try:
            return self.sync()
        except PlasticError:
            self.choice = earlier
            raise

    def sync(self) -> tuple[str, ...]:
        """Put on the base what is to be worn now, and return it. Cheap when nothing changed.

        What it changes is measured and logged once per set, and packs that change nothing are refused.
        Raises PackNotFound, BadPack or BaseMismatch; the base is not asked with anything else instead.
        """
        wanted = self.store.active() if self.choice is None else self.choice
        if wanted != self.worn:
            from mlx_plastic.packs.wear.attach import attach
            from mlx_plastic.packs.wear.probe import proved

            packs = {name: self.store.read(name) for name in wanted}
            if packs:
                proved(self.base, packs)
            attach(self.base.model, packs, fingerprint=self.base.fingerprint)  # takes off what it wore
            self.worn = wanted
        return self.worn

    def reply(
        self,
        conversation: str,
        text: str,
        *,
        max_tokens: int = ChatConfig.max_tokens,
        temperature: float = ChatConfig.temperature,
        seed: int = 0,
    ) -> Iterator[str]:
        """The answer, in pieces as they come.

        The question is in the log when this returns, before the first piece is computed. The answer is
        logged when it ends, or is closed, or breaks: what was said so far, then marked as interrupted.
        Raises PlasticError if the question alone does not fit the window, and what `sync` raises.
        """
        question = self.memory.remember(conversation, "user", text)
        worn = self.sync()
        turns = self.memory.turns(conversation=conversation)
        said = [t.message for t in turns]
        if question.content != text:  # the log has it masked; it is answered as it was asked
            said[-1] = Message("user", text.encode("utf-8", "replace").decode("utf-8"))
        window = min(self.window_tokens, self.base.window)
        prompt = fit(said, self._count, window_tokens=window, max_tokens=max_tokens)
        if self.notes:
            prompt = self._noted(self.notes, prompt, turns, said, window_tokens=window, max_tokens=max_tokens)
        self._why = Why(
            *(self.base.ref, self.base.fingerprint, worn, self.choice is not None, question.id),
            messages=len(prompt.messages),
            dropped=prompt.dropped,
            merged=prompt.merged,
            prompt_tokens=prompt.tokens,
            window_tokens=window,
            max_tokens=prompt.room,
            temperature=temperature,
            seed=seed,
            recalled=tuple(hit.turn for hit in self.recalled),
        )
        return self._speak(self._why, conversation, prompt)

    def _noted(
        self,
        notes: Notes,
        prompt: Prompt,
        turns: Sequence[Turn],
        said: Sequence[Message],
        *,
        window_tokens: int,
        max_tokens: int,
    ) -> Prompt:
        """The prompt with what was said before quoted beside the question; as it was if that has no room."""
        from mlx_plastic.serve.notes import SHARE, with_notes

        talk = exchanges([turn for turn in turns if turn.role != "system"])
        shown = [turn.id for group in talk[prompt.dropped :] for turn in group]
        hits = notes.about(said[-1].content, shown)
        noted, self.recalled = with_notes(said, hits, self._count, window_tokens // SHARE)
        try:
            return fit(noted, self._count, window_tokens=window_tokens, max_tokens=max_tokens)
        except PlasticError:  # a question that all but fills the window
            self.recalled = ()
            return prompt

    def _speak(self, why: Why, conversation: str, prompt: Prompt) -> Iterator[str]:
        start, pieces = time.perf_counter(), list[str]()
        pieces_of = self.base.stream(
            prompt.messages, max_tokens=prompt.room, temperature=why.temperature, seed=why.seed
        )
        whole = False
        try:
            for piece in pieces_of:
                pieces.append(piece)
                yield piece
            whole = True
        finally:  # also when closed early, or stopped by Ctrl-C
            why = replace(why, seconds=time.perf_counter() - start, interrupted=not whole)
            self._why = self._logged(why, conversation, "".join(pieces))

    def _logged(self, why: Why, conversation: str, answer: str) -> Why:
        tokens = len(self.base.tokenizer.encode(answer, add_special_tokens=False)) if answer else 0
        log.info(
            "answered with %d tokens in %.2f s to a prompt of %d tokens (%d old exchanges left out)%s",
            *(
                tokens,
                why.seconds,
                why.prompt_tokens,
                why.dropped,
                ", interrupted" if why.interrupted else "",
            ),
        )
        if not answer.strip():  # nothing was said: nothing to remember
            return replace(why, answer_tokens=tokens)
        turn = self.memory.remember(
            conversation, "assistant", answer.strip(), worn=why.worn, interrupted=why.interrupted
        )
        return replace(why, answer_tokens=tokens, answer=turn.id)

    def _count(self, messages: Sequence[Message]) -> int:
        return len(self.base.prompt(messages))


def fit(said: Sequence[Message], count: Count, *, window_tokens: int, max_tokens: int) -> Prompt:
    """As much of the end of a conversation as fits beside an answer; system messages always.

    An exchange, a question with its answers, is kept or dropped whole. The answer gets up to max_tokens,
    but when the window is small no more than half of it is set aside for that.
    Raises PlasticError if the system messages and the last question alone are too long.
    """
    limit = window_tokens - min(max_tokens, window_tokens // 2)
    system = [m for m in said if m.role == "system"]
    groups = exchanges([m for m in said if m.role != "system"])

    def since(start: int) -> list[Message]:
        return _merged([*system, *(m for group in groups[start:] for m in group)])

    # a message is a token at least, so most of a very long conversation need not be counted
    low = max(0, len(groups) - limit)
    high = len(groups) - 1
    if (tokens := count(since(high))) > limit:
        raise PlasticError(
            f"the last message is too long: with it the prompt has {tokens} tokens, and {limit} fit",
            hint="say it in parts, or lower --max-tokens",
        )
    while low < high:  # the smallest start that fits
        middle = (low + high) // 2
        if (longer := count(since(middle))) <= limit:
            high, tokens = middle, longer
        else:
            low = middle + 1
    messages = since(high)
    whole = len(system) + sum(map(len, groups[high:]))
    return Prompt(
        tuple(messages), tokens, min(max_tokens, window_tokens - tokens), high, whole - len(messages)
    )


def _merged(messages: Sequence[Message]) -> list[Message]:
    """One message where the same side speaks twice in a row (an answer was stopped at once, say).

    Many chat templates refuse anything but turns.
    """
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1].role == message.role:
            merged[-1] = Message(message.role, f"{merged[-1].content}\n{message.content}")
        else:
            merged.append(message)
    return merged
