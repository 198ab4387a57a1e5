"""A turn on its way into the index: cut, marked, and kept once if it was said before."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime

import numpy as np

from mlx_plastic.memory.index import store
from mlx_plastic.memory.index.chunks import asks, bands, pieces, same_text
from mlx_plastic.memory.index.corpus import QUESTION, TIME
from mlx_plastic.memory.index.records import Item
from mlx_plastic.memory.index.terms import Ids, term_ids

MOST_LIKE = 20  # earlier chunks that are compared with a new one

_SAYS_WHEN = re.compile(
    r"\b(yesterday|today|tonight|tomorrow|last|next|ago|since|recently|weeks?|weekends?|months?|years?|days?"
    r"|mornings?|evenings?|nights?|(mon|tues|wednes|thurs|fri|satur|sun)day|january|february|march|april|may"
    r"|june|july|august|september|october|november|december|summer|winter|spring|autumn|fall|\d{4})\b",
    re.IGNORECASE,
)

Piece = tuple[str, Ids, list[int]]  # a chunk's text, its own terms, and the keys by which its like is met


def take_in(db: sqlite3.Connection, item: Item) -> int:
    """Put a turn in, in place of an earlier text of it; how many chunks that made. Inside a transaction."""
    if db.execute("SELECT pruned FROM items WHERE turn = ?", [item.turn]).fetchone() == (1,):
        return 0
    take_out(db, [item.turn])
    texts = [item.text[start:end] for start, end in pieces(item.text)]
    found = [(text, ids := term_ids(text), bands(ids)) for text in texts]
    same_as, replaced = _said_before(db, item.speaker, found)
    (number,) = db.execute(
        "INSERT INTO items (turn, conversation, place, at, speaker, worn, tags, same_as)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (
            *(item.turn, item.conversation, item.place, item.at and item.at.isoformat(), item.speaker),
            *(json.dumps(item.worn), json.dumps(sorted(item.tags)), same_as),
        ),
    ).fetchone()
    if same_as is not None:
        return 0
    before = term_ids(f"{_date(item.at)} {item.speaker}")
    for place, piece in enumerate(found):
        _insert(db, number, place, piece, before)
    for old in replaced:
        _give_way(db, old, number)
    return len(found)


def take_out(db: sqlite3.Connection, turns: Iterable[str]) -> tuple[str, ...]:
    """Take turns out; the turns that said the same, and are to be put in again now. Inside a transaction."""
    orphans: set[str] = set()
    for turn in dict.fromkeys(turns):
        row = db.execute("SELECT id FROM items WHERE turn = ?", [turn]).fetchone()
        if row is not None:
            orphans.update(t for (t,) in db.execute("SELECT turn FROM items WHERE same_as = ?", row))
            db.execute("DELETE FROM items WHERE id = ?1 OR same_as = ?1", row)
            store.count(db, "removals")
    return tuple(sorted(orphans))


def _insert(db: sqlite3.Connection, item: int, place: int, piece: Piece, before: Ids) -> None:
    text, ids, keys = piece
    marks = (QUESTION if asks(text) else 0) | (TIME if _SAYS_WHEN.search(text) else 0)
    terms = np.concatenate([before, ids]).astype("<u4").tobytes()
    (chunk,) = db.execute(
        "INSERT INTO chunks (item, piece, text, terms, marks) VALUES (?, ?, ?, ?, ?) RETURNING id",
        (item, place, text, terms, marks),
    ).fetchone()
    db.executemany("INSERT OR IGNORE INTO bands VALUES (?, ?)", [(key, chunk) for key in keys])


def _give_way(db: sqlite3.Connection, old: int, new: int) -> None:
    """The old item stays known, but is found where the new one is."""
    db.execute("DELETE FROM chunks WHERE item = ?", [old])
    db.execute("UPDATE items SET same_as = ?1 WHERE id = ?2 OR same_as = ?2", [new, old])
    store.count(db, "removals")


def _said_before(
    db: sqlite3.Connection, speaker: str, texts: Sequence[Piece]
) -> tuple[int | None, list[int]]:
    """The item of the same speaker that says all of this already, or those that say it a little otherwise.

    What is said again word by word is found where it was said first; of two that differ a little the
    later one takes the place, as it may be a correction.
    """
    replaced = []
    matches = [_like(db, speaker, text, keys) for text, _, keys in texts]
    for item in sorted(set.intersection(*matches)):
        old = db.execute("SELECT text FROM chunks WHERE item = ? ORDER BY piece", [item]).fetchall()
        if len(old) != len(texts):
            continue
        if all(_bare(text) == _bare(known) for (text, *_), (known,) in zip(texts, old, strict=True)):
            return item, []
        replaced.append(item)
    return None, replaced


def _like(db: sqlite3.Connection, speaker: str, text: str, keys: Sequence[int]) -> set[int]:
    rows = db.execute(
        "SELECT DISTINCT c.item, c.text FROM bands b JOIN chunks c ON c.id = b.chunk"
        " JOIN items i ON i.id = c.item"
        f" WHERE b.key IN ({', '.join('?' * len(keys))}) AND i.speaker = ? LIMIT {MOST_LIKE}",
        [*keys, speaker],
    ).fetchall()
    return {item for item, known in rows if same_text(text, known)}


def _date(at: datetime | None) -> str:
    """As one would write it in a question: 8 May 2023."""
    return f"{at.day} {at:%B} {at.year}" if at else ""


def _bare(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
