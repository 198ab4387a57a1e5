"""What a search reads, in RAM: postings, places and pooled vectors of all chunks, as arrays.

A row is a chunk. Rows are numbered as they came; a *position* is a row's number among all when they are
sorted by conversation and place, so that neighbours have neighbouring positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mlx_plastic.memory.index.terms import Ids, term_id

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

K1, B = 0.9, 0.4  # BM25's two: how soon repetition stops to count, how much length does
MOST_SEGMENTS = 8

QUESTION, TIME = 1, 2  # bits of a row's marks: it ends with a question; it says when something was


@dataclass(frozen=True)
class Row:
    """A chunk as it is read from the file."""

    chunk: int
    item: int
    conversation: str
    place: int
    piece: int
    at: float  # seconds since 1970; NaN: not known
    marks: int
    speaker: str
    terms: Ids


@dataclass(frozen=True)
class Segment:
    """Postings of a range of rows: terms (t,) sorted, and for each its rows and how often it stands there."""

    terms: Ids
    starts: Ints
    rows: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]

    def of(self, term: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        i = int(np.searchsorted(self.terms, np.uint32(term)))
        if i == len(self.terms) or self.terms[i] != term:
            return self.rows[:0], self.counts[:0]
        here = slice(self.starts[i], self.starts[i + 1])
        return self.rows[here], self.counts[here]


def segment(terms: Sequence[Ids], first_row: int) -> Segment:
    """The postings of rows first_row, first_row + 1, ..."""
    rows = np.repeat(np.arange(len(terms), dtype=np.uint64), [len(t) for t in terms])
    flat = np.concatenate([*terms, np.zeros(0, np.uint32)]).astype(np.uint64)
    keys, counts = np.unique(flat << np.uint64(32) | rows, return_counts=True)
    return _segment(keys, counts.astype(np.int32), first_row)


def _segment(keys: npt.NDArray[np.uint64], counts: npt.NDArray[np.int32], first_row: int) -> Segment:
    """keys: term << 32 | row, sorted."""
    terms, starts = np.unique((keys >> np.uint64(32)).astype(np.uint32), return_index=True)
    rows = (keys & np.uint64(2**32 - 1)).astype(np.int32) + np.int32(first_row)
    return Segment(terms, np.append(starts, len(keys)).astype(np.int64), rows, counts)


def merged(segments: Sequence[Segment]) -> Segment:
    parts = [np.repeat(s.terms, np.diff(s.starts)).astype(np.uint64) << np.uint64(32) for s in segments]
    keys = np.concatenate([p | s.rows.astype(np.uint64) for p, s in zip(parts, segments, strict=True)])
    order = np.argsort(keys, kind="stable")
    return _segment(keys[order], np.concatenate([s.counts for s in segments])[order], 0)


@dataclass
class Corpus:
    """All chunks. Grown by `add`, thrown away when something is taken out of the index."""

    dims: int
    chunks: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    items: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    conversations: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # codes
    places: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    pieces: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    at: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0, np.float64))
    marks: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    said_by: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # codes
    lengths: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # terms
    tokens: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # rows of vectors; 0: not embedded
    pooled: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    segments: list[Segment] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)  # of conversations
    speakers: dict[str, int] = field(default_factory=dict)  # and theirs

    def __len__(self) -> int:
        return len(self.chunks)

    def add(self, rows: Sequence[Row]) -> None:
        """Rows more, in the order of their chunks' ids, without vectors yet."""
        if not rows:
            return
        codes = [self.codes.setdefault(r.conversation, len(self.codes)) for r in rows]
        said_by = [self.speakers.setdefault(r.speaker, len(self.speakers)) for r in rows]
        self.segments.append(segment([r.terms for r in rows], len(self)))
        if len(self.segments) > MOST_SEGMENTS:
            self.segments = [merged(self.segments)]
        self.chunks = np.append(self.chunks, [r.chunk for r in rows])
        self.items = np.append(self.items, [r.item for r in rows])
        self.conversations = np.append(self.conversations, codes)
        self.places = np.append(self.places, [r.place for r in rows])
        self.pieces = np.append(self.pieces, [r.piece for r in rows])
        self.at = np.append(self.at, np.array([r.at for r in rows], np.float64))
        self.marks = np.append(self.marks, [r.marks for r in rows])
        self.said_by = np.append(self.said_by, said_by)
        self.lengths = np.append(self.lengths, [len(r.terms) for r in rows])
        self.tokens = np.append(self.tokens, np.zeros(len(rows), np.int64))
        blank = np.zeros((len(rows), self.dims), np.float32)
        self.pooled = np.concatenate([self.pooled, blank]) if self.pooled.size else blank
        self.__dict__.pop("order", None)
        self.__dict__.pop("position", None)

    def set_vectors(self, chunks: Ints, pooled: Floats, tokens: Ints) -> None:
        """The vectors of some chunks have come. tokens: how many each has."""
        rows = np.searchsorted(self.chunks, chunks)
        self.pooled[rows] = pooled
        self.tokens[rows] = tokens

    @cached_property
    def order(self) -> Ints:
        """(n,) the rows by conversation, place and piece: order[position] = row."""
        return np.lexsort((self.pieces, self.places, self.conversations))

    @cached_property
    def position(self) -> Ints:
        """(n,) position[row]."""
        found = np.empty(len(self), np.int64)
        found[self.order] = np.arange(len(self))
        return found

    def postings(self, term: str) -> tuple[Ints, Floats]:
        """The positions where a term stands, and how often it does."""
        found = [s.of(term_id(term)) for s in self.segments]
        rows = np.concatenate([rows for rows, _ in found]) if found else np.zeros(0, np.int64)
        counts = np.concatenate([c for _, c in found]) if found else np.zeros(0)
        return self.position[rows], counts.astype(np.float32)


def idf(documents: int, having: int) -> float:
    """How much a term tells that `having` of so many documents hold, in nats. Source: BM25 as in Lucene."""
    return float(np.log1p((documents - having + 0.5) / (having + 0.5)))


def bm25(counts: Floats, lengths: Floats, mean_length: float) -> Floats:
    """A term's weight in each document, before its idf. Source: Robertson & Zaragoza 2009."""
    norm: Floats = np.float32(K1 * (1 - B)) + np.float32(K1 * B / max(mean_length, 1e-9)) * lengths
    weights: Floats = counts * np.float32(K1 + 1) / (counts + norm)
    return weights
