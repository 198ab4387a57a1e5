"""What goes into the index and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Item:
    """A turn as the index takes it in.

    place: its order among the turns of the index; larger is later, and those of one conversation that follow
    each other are neighbours. speaker: a role or a name. text: as it may be found, so already redacted.
    """

    turn: str
    conversation: str
    place: int
    at: datetime | None
    speaker: str
    text: str
    worn: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Hit:
    """A turn that was found, the best first.

    text: the chunk of it that matched. score: only good to compare with others of the same search; about 0
    for a turn no better than any, several for a sure find. match: how much of the question it meets, in
    [0, 1] and the same for all questions. also: turns that said the same. words, meaning: the parts of the
    score from the words themselves and from the embedder (0 without one).
    before, after: the turns around it, where they were asked for.
    """

    turn: str
    conversation: str
    at: datetime | None
    speaker: str
    text: str
    score: float
    match: float = 0.0
    words: float = 0.0
    meaning: float = 0.0
    also: tuple[str, ...] = ()
    worn: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()
    before: tuple[Item, ...] = field(default=(), repr=False)
    after: tuple[Item, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class IndexStats:
    """items: turns in the index. repeats: of those, said again later and found there. pruned: taken out
    because nothing asked for them. waiting: chunks without a vector of the embedder in use. unread: turns of
    the log that the next use of the index takes in."""

    items: int
    chunks: int
    repeats: int
    pruned: int
    embedded: int
    waiting: int
    embedder: str
    size_bytes: int
    unread: int = 0
