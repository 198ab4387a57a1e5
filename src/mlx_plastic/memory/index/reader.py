"""The file as a search sees it: read once, then only what is new."""

from __future__ import annotations

import sqlite3
from datetime import datetime

import numpy as np

from mlx_plastic.memory.embed import Embedder
from mlx_plastic.memory.index import store
from mlx_plastic.memory.index.corpus import Corpus, Row
from mlx_plastic.memory.index.vectors import TokenVectors

_ROWS = (
    "SELECT c.id, c.item, i.conversation, i.place, c.piece, i.at, c.marks, i.speaker, c.terms"
    " FROM chunks c JOIN items i ON i.id = c.item WHERE c.id > ? ORDER BY c.id"
)


class Reader:
    """What an index held when it was last looked at."""

    corpus: Corpus
    tokens: TokenVectors

    def __init__(self, db: sqlite3.Connection, embedder: Embedder | None) -> None:
        self._db = db
        self._embedder = embedder
        self.clear()

    def clear(self) -> None:
        """Keep nothing of what was read."""
        dims = self._embedder.dims if self._embedder else 0
        self.corpus = Corpus(dims)
        self.tokens = TokenVectors(self._db, dims)
        self._removals = self._embeddings = -1

    def refresh(self) -> None:
        """Read what came since, also from other processes; all of it anew if something was taken out."""
        with store.reading(self._db):
            numbers = dict(self._db.execute("SELECT key, value FROM meta").fetchall())
            if numbers["removals"] != self._removals:
                self.clear()
                self._removals = numbers["removals"]
            last = int(self.corpus.chunks[-1]) if len(self.corpus) else 0
            new = [_row(*row) for row in self._db.execute(_ROWS, [last])]
            self.corpus.add(new)
            if self._embedder and (new or numbers["embeddings"] != self._embeddings):
                self._read_vectors(self._embedder.name)
                self._embeddings = numbers["embeddings"]

    def _read_vectors(self, embedder: str) -> None:
        missing = self.corpus.chunks[self.corpus.tokens == 0]
        if not len(missing):
            return
        rows = self._db.execute(
            "SELECT chunk, pooled, tokens FROM vectors WHERE embedder = ? AND chunk BETWEEN ? AND ?",
            [embedder, int(missing[0]), int(missing[-1])],
        ).fetchall()
        wanted = np.isin(np.array([row[0] for row in rows], np.int64), missing)
        rows = [row for row, want in zip(rows, wanted, strict=True) if want]
        if rows:
            pooled = np.frombuffer(b"".join(row[1] for row in rows), np.float16).reshape(len(rows), -1)
            chunks, tokens = (np.array([row[i] for row in rows], np.int64) for i in (0, 2))
            self.corpus.set_vectors(chunks, pooled.astype(np.float32), tokens)


def _row(
    chunk: int,
    item: int,
    conversation: str,
    place: int,
    piece: int,
    at: str | None,
    marks: int,
    speaker: str,
    terms: bytes,
) -> Row:
    when = datetime.fromisoformat(at).timestamp() if at else float("nan")
    ids = np.frombuffer(terms, "<u4").astype(np.uint32)
    return Row(chunk, item, conversation, place, piece, when, marks, speaker, ids)
