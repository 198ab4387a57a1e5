"""What clients send, as conversations in the log: every turn once, whoever repeats what was said before.

A client sends the whole talk with every question. Which conversation it goes on with is told by what was said
in it so far, so it needs no id, and a retry or a second try at an answer does not make a second turn.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from mlx_plastic.serve.api.housekeeping import is_housekeeping

if TYPE_CHECKING:
    from mlx_plastic.memory import Memory, Turn

MOST_TALKS = 4096  # whose whereabouts are kept in memory
AGAIN_S = 600.0  # within which the same words are the same question asked again
SINCE = timedelta(days=7)  # talks that are recognized after a restart


@dataclass(frozen=True)
class Entry:
    """A question in the log. asked, told: digests of the talk up to it, without and with answers."""

    conversation: str
    turn: str
    asked: bytes
    told: bytes
    at: float


class Diary:
    """One for a Memory. Safe to share between threads."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._questions: OrderedDict[bytes, Entry] = OrderedDict()  # by `asked` and by `told`
        self._read = False

    def ask(self, messages: Sequence[dict[str, Any]], tags: Iterable[str], *, retry: bool) -> Entry | None:
        """Log the question that ends these messages; None if it is nothing that a person said.

        When this returns it is on the disk. Raises MemoryFault if it cannot be.
        """
        talk = [m for m in messages if m["role"] in ("user", "assistant") and m["content"].strip()]
        places = [i for i, m in enumerate(talk) if m["role"] == "user"]
        if not places or is_housekeeping(messages):
            return None
        last = places[-1]
        asked, told = digests(talk[: last + 1])
        after = [m["role"] for m in messages[_last_user(messages) + 1 :]]
        with self._lock:
            self._recognize()
            known = self._questions.get(told) or self._questions.get(asked)
            if known and (after or self._again(known, retry)):
                return known if after else self._asked_again(known, talk[last]["content"], tags)
            return self._new(talk[: last + 1], asked, told, tags)

    def answer(
        self, entry: Entry, text: str, *, worn: Sequence[str], tags: Iterable[str], interrupted: bool
    ) -> Turn | None:
        """Log what was answered; None if nothing was."""
        if not text.strip():
            return None
        return self._memory.remember(
            entry.conversation, "assistant", text.strip(), worn=worn, tags=tags, interrupted=interrupted
        )

    def turns(self, entry: Entry) -> list[str]:
        """Ids of the conversation's turns: what is shown to the base anyway."""
        return [turn.id for turn in self._memory.turns(conversation=entry.conversation)]

    def _again(self, known: Entry, retry: bool) -> bool:
        return (retry or time.monotonic() - known.at <= AGAIN_S) and self._is_last(known)

    def _is_last(self, known: Entry) -> bool:
        """Whether it is still the last question of its conversation."""
        return [t.id for t in self._memory.last_exchange(known.conversation)[:1]] == [known.turn]

    def _asked_again(self, known: Entry, text: str, tags: Iterable[str]) -> Entry:
        """Without an answer so far the question stands; else both are taken back and it is asked anew."""
        turns = self._memory.turns(conversation=known.conversation)
        if turns[-1].id == known.turn:
            return known
        self._memory.undo(known.conversation)
        return self._logged(known.conversation, text, known.asked, known.told, tags)

    def _new(self, talk: Sequence[dict[str, Any]], asked: bytes, told: bytes, tags: Iterable[str]) -> Entry:
        before = self._before(talk[:-1])
        conversation = before.conversation if before else self._memory.new_conversation()
        return self._logged(conversation, talk[-1]["content"], asked, told, tags)

    def _before(self, earlier: Sequence[dict[str, Any]]) -> Entry | None:
        """The question before, if it is still the last of its conversation: else the talk has branched."""
        places = [i for i, m in enumerate(earlier) if m["role"] == "user"]
        if not places:
            return None
        asked, told = digests(earlier[: places[-1] + 1])
        known = self._questions.get(told) or self._questions.get(asked)
        return known if known and self._is_last(known) else None

    def _logged(self, conversation: str, text: str, asked: bytes, told: bytes, tags: Iterable[str]) -> Entry:
        turn = self._memory.remember(conversation, "user", text, tags=tags)
        return self._keep(Entry(conversation, turn.id, asked, told, time.monotonic()))

    def _keep(self, entry: Entry) -> Entry:
        for key in (entry.asked, entry.told):
            self._questions[key] = entry
            self._questions.move_to_end(key)
        while len(self._questions) > 2 * MOST_TALKS:
            self._questions.popitem(last=False)
        return entry

    def _recognize(self) -> None:
        """What the log holds of the last days, so that a talk goes on where it was after a restart."""
        if self._read:
            return
        self._read = True
        by_conversation: dict[str, list[Turn]] = {}
        for turn in self._memory.turns(datetime.now(UTC) - SINCE):
            by_conversation.setdefault(turn.conversation, []).append(turn)
        long_ago = time.monotonic() - 2 * AGAIN_S
        for conversation, turns in by_conversation.items():
            talk = [t.message.as_dict() for t in turns if t.role != "system"]
            for i, turn in enumerate(t for t in turns if t.role != "system"):
                if turn.role == "user":
                    self._keep(Entry(conversation, turn.id, *digests(talk[: i + 1]), long_ago))


def digests(talk: Sequence[dict[str, Any]]) -> tuple[bytes, bytes]:
    """Of a talk that ends with a question: of what the person said alone, and of everything.

    Front ends change answers (they leave out thoughts, or cut what was stopped), so the first is looked up
    where the second is unknown.
    """
    return _digest([m for m in talk if m["role"] == "user"]), _digest(talk, b"all")


def _digest(talk: Sequence[dict[str, Any]], key: bytes = b"user") -> bytes:
    digest = hashlib.blake2b(key=key, digest_size=16)
    for message in talk:
        text = message["content"].strip().encode("utf-8")
        digest.update(f"{message['role']} {len(text)} ".encode())
        digest.update(text)
    return digest.digest()


def _last_user(messages: Sequence[dict[str, Any]]) -> int:
    return max(i for i, m in enumerate(messages) if m["role"] == "user")
