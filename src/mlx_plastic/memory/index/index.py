"""The index: turns go in, the ones that answer a question come out. One file; the log can make it again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mlx_plastic.memory.embed import Embedder
from mlx_plastic.memory.index import store
from mlx_plastic.memory.index.dates import range_in
from mlx_plastic.memory.index.intake import take_in, take_out
from mlx_plastic.memory.index.question import parse
from mlx_plastic.memory.index.rank import Ranked, rank
from mlx_plastic.memory.index.reader import Reader
from mlx_plastic.memory.index.records import Hit, IndexStats, Item
from mlx_plastic.memory.index.spelling import respelled
from mlx_plastic.memory.index.vectors import keep, telling
from mlx_plastic.memory.index.weights import WORDS_ONLY, Weights

QUESTION = 2000  # characters that are looked for
EMBED_AT_ONCE = 128  # chunks in one transaction


class Index:
    """Chunks of turns, found by words and by meaning. Safe between threads, and between processes.

    path: None keeps it in RAM. embedder: None finds by words alone. weights: of the ranking's parts.
    Every method raises store.Damaged if the file turns out to be none of ours, MemoryFault or Busy if it
    cannot be read or written.
    """

    def __init__(
        self, path: Path | None, *, embedder: Embedder | None = None, weights: Weights | None = None
    ) -> None:
        self.path = path
        self.embedder = embedder
        self.weights = weights or (Weights() if embedder else WORDS_ONLY)
        self._lock = threading.RLock()
        self._db, self.identity = store.connect(path)  # which file is open: see `store.replace`
        self._reader = Reader(self._db, embedder)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # -- what goes in

    def add(self, items: Sequence[Item]) -> int:
        """Take turns in, each in place of an earlier text of it. How many chunks that made."""
        with self.writing():
            return sum(take_in(self._db, item) for item in items)

    def drop(self, turns: Iterable[str]) -> tuple[str, ...]:
        """Take turns out. Which others are to be added again: they said the same and were not kept for it."""
        with self.writing():
            return take_out(self._db, turns)

    def retag(self, turn: str, tags: Iterable[str]) -> None:
        """Keep the tags of a turn as they are now."""
        with self.writing():
            self._db.execute("UPDATE items SET tags = ? WHERE turn = ?", [json.dumps(sorted(tags)), turn])

    def wipe(self) -> None:
        """Rewrite the file, so that nothing of what was taken out is in any byte of it."""
        with self._lock:
            self._reader.clear()
            store.wipe(self._db, self.path)

    def empty(self) -> None:
        """Take everything out, also what was pruned, and begin with the log anew."""
        with self.writing():
            self._db.execute("DELETE FROM items")
            self._db.execute("UPDATE meta SET value = 0 WHERE key IN ('log_seq', 'audit_seq')")
            store.count(self._db, "removals")

    def prune(self, before: datetime) -> int:
        """Take out the turns said before a time that no recall has ever brought up. How many.

        They stay in the log, and come back only if the index is made anew. A turn that was said again
        later stays.
        """
        with self.writing():
            stale = self._db.execute(
                "SELECT id FROM items WHERE hits = 0 AND NOT pruned AND at < ?1 AND id NOT IN"
                " (SELECT same_as FROM items WHERE same_as IS NOT NULL AND at >= ?1)",
                [before.isoformat()],
            ).fetchall()
            self._db.executemany("DELETE FROM chunks WHERE item = ?", stale)
            self._db.executemany("UPDATE items SET pruned = 1 WHERE id = ?", stale)
            store.count(self._db, "removals")
        return len(stale)

    # -- vectors

    def embed(
        self, *, seconds: float | None = None, on_progress: Callable[[int, int], None] | None = None
    ) -> int:
        """Give vectors of the embedder in use to the chunks without, the latest first. How many still wait.

        seconds: stop soon after so long, but not before a batch is done. Vectors of another embedder are
        replaced.
        """
        began, done, below, total = time.monotonic(), 0, 2**62, self.waiting()
        while self.embedder and (batch := self._unembedded(self.embedder, below)):
            if done and seconds is not None and time.monotonic() - began > seconds:
                break
            texts = [f"{speaker}: {text}" for _, speaker, text in batch]
            vectors = [telling(*pair) for pair in zip(texts, self.embedder.embed(texts), strict=True)]
            with self.writing():
                for (chunk, _, _), found in zip(batch, vectors, strict=True):
                    keep(self._db, chunk, self.embedder.name, found)
                store.count(self._db, "embeddings")
            done, below = done + len(batch), batch[-1][0]
            if on_progress:
                on_progress(done, total)
        return self.waiting()

    def waiting(self) -> int:
        """Chunks without a vector of the embedder in use."""
        if not self.embedder:
            return 0
        sql = "SELECT (SELECT COUNT(*) FROM chunks) - (SELECT COUNT(*) FROM vectors WHERE embedder = ?)"
        return int(self.run(sql, [self.embedder.name])[0][0])

    def _unembedded(self, embedder: Embedder, below: int) -> list[tuple[Any, ...]]:
        return self.run(
            "SELECT c.id, i.speaker, c.text FROM chunks c JOIN items i ON i.id = c.item"
            " WHERE NOT EXISTS (SELECT 1 FROM vectors v WHERE v.chunk = c.id AND v.embedder = ?)"
            " AND c.id < ? ORDER BY c.id DESC LIMIT ?",
            [embedder.name, below, EMBED_AT_ONCE],
        )

    # -- what comes out

    def search(
        self,
        text: str,
        limit: int = 10,
        *,
        now: datetime | None = None,
        exclude: frozenset[str] = frozenset(),
        since: datetime | None = None,
        until: datetime | None = None,
        around: int = 0,
    ) -> list[Hit]:
        """The turns that answer best, the best first.

        now: when it is asked, which "last week" depends on. exclude: turns not to be found. since, until:
        only turns said in between. around: so many turns before and after each come along.
        """
        text = text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair, as the log has it
        if len(text) > QUESTION:  # what is asked stands before a long text or behind it
            text = f"{text[: QUESTION // 2]} {text[-QUESTION // 2 :]}"
        with self._lock, store.plainly(self.path), store.reading(self._db):  # one state, to the end
            self._reader.refresh()
            if not len(self._reader.corpus) or not text.strip():
                return []
            ranked = self._ranked(text, now or datetime.now(UTC))
            chosen = self._chosen(ranked, limit, self._items_of(exclude), since, until)
            return [self._hit(ranked, i, around) for i in chosen]

    def _ranked(self, text: str, now: datetime) -> Ranked:
        corpus = self._reader.corpus
        text = respelled(text, corpus.speakers, lambda term: len(corpus.postings(term)[0]) > 0)
        query = parse(text, corpus.speakers, self.weights, range_in(text, now))
        if self.embedder and corpus.tokens.any():
            query = replace(query, vectors=self.embedder.embed([text])[0])
        return rank(corpus, query, self.weights, self._reader.tokens)

    def _items_of(self, turns: Iterable[str]) -> set[int]:
        """The items of these turns, or those that they repeat."""
        sql = "SELECT COALESCE(same_as, id) FROM items WHERE turn = ?"
        return {item for turn in turns for (item,) in self._db.execute(sql, [turn])}

    def _chosen(
        self, ranked: Ranked, limit: int, hidden: set[int], since: datetime | None, until: datetime | None
    ) -> list[int]:
        """Indices into `ranked`: the best chunk of each item that may be found."""
        corpus, found = self._reader.corpus, list[int]()
        low = since.timestamp() if since else -np.inf
        high = until.timestamp() if until else np.inf
        for i, row in enumerate(ranked.rows):
            if (item := int(corpus.items[row])) in hidden:
                continue
            if (since or until) and not low <= corpus.at[row] <= high:
                continue
            hidden.add(item)
            found.append(i)
            if len(found) == limit:
                break
        return found

    def _hit(self, ranked: Ranked, i: int, around: int) -> Hit:
        corpus, row = self._reader.corpus, ranked.rows[i]
        number = int(corpus.items[row])
        item, _ = self._item(number)
        (text,) = self._db.execute(
            "SELECT text FROM chunks WHERE id = ?", [int(corpus.chunks[row])]
        ).fetchone()
        same = self._db.execute(
            "SELECT turn, at FROM items WHERE same_as = ? ORDER BY id", [number]
        ).fetchall()
        said = [item.at, *(datetime.fromisoformat(at) for _, at in same if at)]
        return Hit(
            *(item.turn, item.conversation, max((at for at in said if at), default=None), item.speaker, text),
            score=round(float(ranked.scores[i]), 4),
            match=round(float(ranked.match[i]), 4),
            words=round(float(ranked.words[i]), 4),
            meaning=round(float(ranked.meaning[i]), 4),
            also=tuple(turn for turn, _ in same),
            worn=item.worn,
            tags=item.tags,
            before=self._beside(item, around, "<", "DESC")[::-1],
            after=self._beside(item, around, ">", "ASC"),
        )

    def _item(self, number: int) -> tuple[Item, bool]:
        """An item, with the first chunk of its text, and whether there is any."""
        turn, talk, place, at, speaker, worn, tags, text = self._db.execute(
            "SELECT i.turn, i.conversation, i.place, i.at, i.speaker, i.worn, i.tags, c.text FROM items i"
            " LEFT JOIN chunks c ON c.item = COALESCE(i.same_as, i.id) AND c.piece = 0 WHERE i.id = ?",
            [number],
        ).fetchone()
        when = datetime.fromisoformat(at) if at else None
        item = Item(
            *(turn, talk, place, when, speaker, text or ""),
            worn=tuple(json.loads(worn)),
            tags=frozenset(json.loads(tags)),
        )
        return item, text is not None

    def _beside(self, item: Item, count: int, side: str, order: str) -> tuple[Item, ...]:
        rows = self._db.execute(
            f"SELECT id FROM items WHERE conversation = ? AND place {side} ? ORDER BY place {order} LIMIT ?",
            [item.conversation, item.place, count],
        ).fetchall()
        return tuple(found for found, has_text in (self._item(i) for (i,) in rows) if has_text)

    def bring_up(self, turns: Iterable[str]) -> None:
        """These turns were of use in a talk, which keeps them from being pruned."""
        now = datetime.now(UTC).isoformat()
        with self.writing():
            self._db.executemany(
                "UPDATE items SET hits = hits + 1, last_hit = ? WHERE turn = ?", [(now, t) for t in turns]
            )

    def stats(self) -> IndexStats:
        names = self.run("SELECT embedder FROM vectors GROUP BY embedder ORDER BY COUNT(*) DESC LIMIT 1")
        (counts,) = self.run(
            "SELECT (SELECT COUNT(*) FROM items WHERE NOT pruned), (SELECT COUNT(*) FROM chunks),"
            " (SELECT COUNT(*) FROM items WHERE NOT pruned AND id NOT IN (SELECT item FROM chunks)),"
            " (SELECT COUNT(*) FROM items WHERE pruned), (SELECT COUNT(*) FROM vectors)"
        )
        items, chunks, repeats, pruned, embedded = counts
        return IndexStats(
            *(items, chunks, repeats, pruned, embedded),
            waiting=self.waiting(),
            embedder=names[0][0] if names else "",
            size_bytes=sum(file.stat().st_size for file in self.files()),
        )

    def files(self) -> list[Path]:
        return store.files(self.path)

    # -- for this room

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction: all of it or nothing."""
        with self._lock, store.plainly(self.path):
            if self._db.in_transaction:  # a caller of ours has begun it
                yield
                return
            with store.transaction(self._db):
                yield

    def run(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._lock, store.plainly(self.path):
            return self._db.execute(sql, values).fetchall()

    def number(self, key: str) -> int:
        """A counter or bookmark of the file."""
        return int(self.run("SELECT value FROM meta WHERE key = ?", [key])[0][0])

    def set_number(self, key: str, value: int) -> None:
        with self.writing():
            self._db.execute("UPDATE meta SET value = ? WHERE key = ?", [value, key])
