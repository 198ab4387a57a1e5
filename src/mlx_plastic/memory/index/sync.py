"""The index brought in step with the log: new turns in, and out what was undone, tagged or forgotten.

The log numbers its turns and its audit records; the index remembers how far it has read both, in the same
transaction as what it took from them. So it loses nothing when it is killed, and takes nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from mlx_plastic.memory.index.index import Index
from mlx_plastic.memory.index.records import Item
from mlx_plastic.memory.records import Turn, exchanges
from mlx_plastic.memory.tags import NO_RAG, PRIVATE

if TYPE_CHECKING:
    from mlx_plastic.memory.log import Memory

BATCH = 256  # turns in one transaction, and
BATCH_CHARS = 200_000  # characters, if it is more than one turn: another process waits for no more than that
PAUSE_S = 0.005  # between two of them, in which another process may begin one
UNFOUND = frozenset({NO_RAG, PRIVATE})

Admit = Callable[[Sequence[str]], list[str | None]]  # texts of one conversation -> as they may be found


def follow(
    memory: Memory, index: Index, admit: Admit, on_progress: Callable[[int, int], None] | None = None
) -> bool:
    """Read on in the log from where the index stands. Whether a turn was forgotten that was still in it."""
    forgotten = False
    total = unread(memory, index)
    done, begun = 0, False
    while not _in_step(memory, index):
        if begun:
            time.sleep(PAUSE_S)
        begun = True
        with index.writing():
            changed, gone = _changed(memory, index)
            new = _new(memory, index)
            forgotten = forgotten or any(_holds(index, turn) for turn in gone)
            touched = [*changed, *index.drop(gone), *new]
            for conversation in _conversations(memory, touched):
                _settle(memory, index, admit, conversation, set(touched))
        done += len(new)
        if on_progress:
            on_progress(done, max(done, total))
    return forgotten


def _in_step(memory: Memory, index: Index) -> bool:
    (last,) = memory.run("SELECT (SELECT MAX(seq) FROM turns), (SELECT MAX(seq) FROM audit)")
    read = (index.number("log_seq"), index.number("audit_seq"))
    return all(here >= (there or 0) for here, there in zip(read, last, strict=True))


def unread(memory: Memory, index: Index) -> int:
    """Turns of the log that the index has not read yet."""
    return int(memory.run("SELECT COUNT(*) FROM turns WHERE seq > ?", [index.number("log_seq")])[0][0])


def _new(memory: Memory, index: Index) -> list[str]:
    """Turns that the index has not read yet; it has now."""
    rows = _batch(
        memory.run(
            "SELECT length(content), seq, id FROM turns WHERE seq > ? ORDER BY seq LIMIT ?",
            [index.number("log_seq"), BATCH],
        )
    )
    if rows:
        index.set_number("log_seq", rows[-1][0])
    return [turn for _, turn in rows]


def _batch(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    """Rows up to BATCH_CHARS together, which each begins with its length; at least one if there is any."""
    sizes = accumulate(size for size, *_ in rows)
    return [
        row
        for i, ((_, *row), size) in enumerate(zip(rows, sizes, strict=True))
        if not i or size <= BATCH_CHARS
    ]


def _changed(memory: Memory, index: Index) -> tuple[list[str], list[str]]:
    """Turns to which something was done since, and turns that were forgotten."""
    rows = _batch(
        memory.run(
            "SELECT COALESCE((SELECT length(content) FROM turns WHERE id = turn), 0), seq, turn, action"
            " FROM audit WHERE seq > ? ORDER BY seq LIMIT ?",
            [index.number("audit_seq"), BATCH],
        )
    )
    if rows:
        index.set_number("audit_seq", rows[-1][0])
    gone = [turn for _, turn, action in rows if turn and action == "forget"]
    return [turn for _, turn, _ in rows if turn and turn not in gone], gone


def _holds(index: Index, turn: str) -> bool:
    return bool(index.run("SELECT 1 FROM items WHERE turn = ?", [turn]))


def _conversations(memory: Memory, turns: Iterable[str]) -> list[str]:
    found: dict[str, None] = {}
    for turn in turns:
        for (conversation,) in memory.run("SELECT conversation FROM turns WHERE id = ?", [turn]):
            found[conversation] = None
    return list(found)


def _settle(memory: Memory, index: Index, admit: Admit, conversation: str, touched: set[str]) -> None:
    """Put in or take out the touched turns of a conversation, and with each the rest of its exchange.

    A tag on a question keeps its answer out as well, which may repeat what the question said.
    """
    turns = _spoken(memory, conversation, touched)
    standing = [(place, turn) for place, turn in turns if not turn.undone]
    groups = exchanges([turn for _, turn in standing])
    wanted = {t.id for group in groups for t in group if not any(m.tags & UNFOUND for m in group)}
    wanted = {t.id for _, t in standing if t.id in wanted and t.role != "system"}
    concerned = {t.id for group in groups if any(t.id in touched for t in group) for t in group}
    concerned |= {t.id for _, t in turns if t.id in touched}
    again = list(index.drop(sorted(concerned - wanted)))
    chosen = [(place, t) for place, t in standing if t.id in concerned & wanted]
    texts = admit([turn.content for _, turn in chosen]) if chosen else []
    for (place, turn), text in zip(chosen, texts, strict=True):
        if text is None or not text.strip():
            again += index.drop([turn.id])
        elif not _holds(index, turn.id):
            index.add([_item(place, turn, text)])
        else:
            index.retag(turn.id, turn.tags)
    for other in _conversations(memory, again):
        _settle(memory, index, admit, other, set(again))


def _spoken(memory: Memory, conversation: str, touched: set[str]) -> list[tuple[int, Turn]]:
    """The turns of a conversation from the first exchange on that is touched, each with its place."""
    marks = ", ".join("?" * len(touched))
    (first,) = memory.run(
        f"SELECT MIN(seq) FROM turns WHERE conversation = ? AND id IN ({marks})", [conversation, *touched]
    )[0]
    (start,) = memory.run(
        "SELECT MAX(seq) FROM turns WHERE conversation = ? AND seq <= ? AND role = 'user' AND NOT undone",
        [conversation, first],
    )[0]
    begin = min(first, start if start is not None else first)
    return memory.placed("conversation = :talk AND seq >= :begin", {"talk": conversation, "begin": begin})


def _item(place: int, turn: Turn, text: str) -> Item:
    return Item(
        *(turn.id, turn.conversation, place, turn.created_at, turn.role, text), worn=turn.worn, tags=turn.tags
    )
