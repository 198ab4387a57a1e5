"""What the log is made of: turns, and what is said about many of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeVar

from mlx_plastic.samples import Message, Role

Origin = Literal["chat", "import"]


@dataclass(frozen=True)
class Turn:
    """One utterance as it was logged.

    id: sorts by time. worn: names of the packs on the base when it was said. interrupted: the answer
    was stopped before its end. undone: the person took it back; kept, but nothing uses it.
    """

    id: str
    conversation: str
    role: Role
    content: str
    created_at: datetime
    origin: Origin = "chat"
    worn: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()
    interrupted: bool = False
    undone: bool = False

    @property
    def message(self) -> Message:
        return Message(self.role, self.content)


@dataclass(frozen=True)
class Exchange:
    """A conversation as far as it may be learned from.

    turns: in order, without what was undone or tagged (a tag covers the question and its answer).
    new: ids of those turns that no passed night has learned from.
    """

    conversation: str
    origin: Origin
    turns: tuple[Turn, ...]
    new: frozenset[str]


@dataclass(frozen=True)
class Conversation:
    """A line of the table of contents. turns: without undone ones. opening: its first user turn's text."""

    id: str
    origin: Origin
    created_at: datetime
    last_at: datetime | None
    turns: int
    opening: str


@dataclass(frozen=True)
class Forgotten:
    """What a forget did. nights: those that learned from the turns; their packs still hold them."""

    turns: tuple[str, ...]
    conversations: int
    nights: tuple[str, ...]


@dataclass(frozen=True)
class Stats:
    """Counts over the log; undone turns only in `undone`. waiting: user turns no passed night learned."""

    conversations: int
    turns: int
    by_role: dict[str, int]
    by_origin: dict[str, int]
    by_tag: dict[str, int]
    undone: int
    interrupted: int
    forgotten: int
    waiting: int
    oldest: datetime | None
    newest: datetime | None
    size_bytes: int


@dataclass(frozen=True)
class AuditRecord:
    """Something was done to the log: never with text."""

    at: datetime
    action: str
    kind: str
    turn: str
    count: int


@dataclass(frozen=True)
class Redaction:
    """So many finds of a kind were masked in a turn, or had it dropped, on its way to a destination.

    destination: storage, index or training. by: who found them. Outlives the turn, and never holds text.
    """

    at: datetime
    destination: str
    kind: str
    action: str
    turn: str
    count: int
    by: str = "detectors"


Said = TypeVar("Said", Turn, Message)


def exchanges(turns: Sequence[Said]) -> list[list[Said]]:
    """Turns cut into questions with their answers: a cut before every user turn, and around system ones."""
    groups: list[list[Said]] = []
    for turn in turns:
        if not groups or turn.role != "assistant" or groups[-1][0].role == "system":
            groups.append([])
        groups[-1].append(turn)
    return groups


def iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")  # one width: texts sort as times do


def parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text)
