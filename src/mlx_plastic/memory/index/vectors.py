"""Vectors as the file keeps them: an eighth of their bytes, at a loss that no ranking shows."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mlx_plastic.memory.embed import Vectors
from mlx_plastic.memory.index.corpus import Floats, Ints
from mlx_plastic.memory.index.terms import STOP_WORDS, words

CACHE_BYTES = 256 * 2**20  # of token vectors, in RAM
READ_AT_ONCE = 500  # chunks; SQLite takes that many parameters everywhere


def telling(text: str, vectors: Vectors) -> Vectors:
    """Without the tokens of small words and marks, which nothing is looked for by: half of all."""
    starts, ends = vectors.spans[:, 0], vectors.spans[:, 1]
    kept = np.zeros(len(vectors.tokens), np.bool_)
    for word, start, end in words(text):
        if word not in STOP_WORDS:
            kept |= (starts < end) & (ends > start)
    return Vectors(vectors.tokens[kept], vectors.spans[kept], vectors.pooled) if kept.any() else vectors


def keep(db: sqlite3.Connection, chunk: int, embedder: str, vectors: Vectors) -> None:
    """Write a chunk's vectors in place of any other embedder's. Inside a transaction."""
    if not db.execute("SELECT 1 FROM chunks WHERE id = ?", [chunk]).fetchone():
        return  # it was taken out since it was read
    rows, scales = packed(vectors)
    pooled = vectors.pooled.astype(np.float16).tobytes()
    db.execute(
        "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", (chunk, embedder, pooled, len(scales) // 2)
    )
    db.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?)", (chunk, rows, scales))


def packed(vectors: Vectors) -> tuple[bytes, bytes]:
    """(int8 rows, float16 scales): rows[i] * scales[i] is the vector of the i-th token."""
    rows = vectors.tokens if len(vectors.tokens) else vectors.pooled[None, :]
    scales = np.maximum(np.abs(rows).max(axis=1) / np.float32(127), np.float32(1e-6)).astype(np.float16)
    tokens = np.rint(rows / scales.astype(np.float32)[:, None]).clip(-127, 127).astype(np.int8)
    return tokens.tobytes(), scales.tobytes()


class TokenVectors:
    """The token vectors of chunks, read when they are first needed; those read first go first."""

    def __init__(self, db: sqlite3.Connection, dims: int) -> None:
        self._db = db
        self._dims = dims
        self._kept: OrderedDict[int, tuple[bytes, bytes]] = OrderedDict()
        self._bytes = 0

    def __call__(self, chunks: Ints) -> tuple[npt.NDArray[np.int8], Floats, Ints]:
        """(t, dims) int8 rows, what to multiply each with (t,), and where each chunk's begin."""
        wanted = chunks.tolist()
        self._read([chunk for chunk in wanted if chunk not in self._kept])
        found = [self._kept[chunk] for chunk in wanted]
        rows = np.frombuffer(b"".join(tokens for tokens, _ in found), np.int8).reshape(-1, self._dims)
        scales = np.frombuffer(b"".join(s for _, s in found), np.float16).astype(np.float32)
        starts = np.cumsum([0, *(len(s) // 2 for _, s in found[:-1])])
        while self._bytes > CACHE_BYTES:
            _, (tokens, scale) = self._kept.popitem(last=False)
            self._bytes -= len(tokens) + len(scale)
        return rows, scales, starts

    def _read(self, chunks: Sequence[int]) -> None:
        for start in range(0, len(chunks), READ_AT_ONCE):
            part = chunks[start : start + READ_AT_ONCE]
            marks = ", ".join("?" * len(part))
            for chunk, tokens, scales in self._db.execute(
                f"SELECT chunk, vectors, scales FROM tokens WHERE chunk IN ({marks})", part
            ):
                self._kept[chunk] = tokens, scales
                self._bytes += len(tokens) + len(scales)
