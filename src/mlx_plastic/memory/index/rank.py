"""The order of what was found: words and meaning together, neighbours' evidence, session, kind and time.

All of it is arrays in, arrays out: no file, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from mlx_plastic.memory.index.corpus import QUESTION, TIME, Corpus, Floats, Ints, bm25, idf
from mlx_plastic.memory.index.question import Query
from mlx_plastic.memory.index.terms import STOP_WORDS, terms_of, words
from mlx_plastic.memory.index.weights import Weights

# Rows of token vectors with each row's weight, and where each chunk's begin: see `Index`.
Tokens = Callable[[Ints], tuple[npt.NDArray[np.int8], Floats, Ints]]

ROWS_READ = 8_000  # chunks that a question is compared with closely: what bounds its time
TOKENS_READ = 20_000  # token vectors of those
BLOCK = 2_048  # of them at a time, so that their floats stay in the cache
LIKELIEST = 2_000  # chunks that are considered for it
SAMPLE = 256  # chunks that tell what an average match is, where not all are compared


@dataclass(frozen=True)
class Ranked:
    """Chunks by falling score. rows: of the corpus. words, meaning: parts of the score. match: see Hit."""

    rows: Ints
    scores: Floats
    words: Floats
    meaning: Floats
    match: Floats


def rank(corpus: Corpus, query: Query, weights: Weights, tokens: Tokens | None) -> Ranked:
    """Every chunk, or where there are very many the likeliest, by how well they answer."""
    search = _Search(corpus, query, weights, tokens if query.vectors else None)
    return search.run()


@dataclass
class _Search:
    """One search. Arrays run over positions, so that neighbours stand side by side."""

    corpus: Corpus
    query: Query
    weights: Weights
    tokens: Tokens | None
    _columns: list[tuple[Ints, Floats]] = field(default_factory=list)  # each term's positions and weights
    _shares: Floats = field(
        default_factory=lambda: np.zeros(1, np.float32)
    )  # what each tells of the question

    def run(self) -> Ranked:
        corpus, weights = self.corpus, self.weights
        words, session = self._words()
        spread = _spread(words)
        whole = self._whole()
        scope = self._scope(words / spread, whole)
        conversations = corpus.conversations[corpus.order[scope]]
        near = _neighbours(scope, conversations, weights.neighbour)
        gathered = self._gathered(scope)
        by_words = _covered(gathered, near).sum(axis=1) / spread
        by_meaning, match = by_words, (gathered > 0) @ self._shares
        if self.tokens is not None:
            by_meaning, match = self._meaning(scope, near, by_words, match)
        score = weights.words * by_words + weights.meaning * by_meaning
        if whole is not None:
            score = score + weights.whole * whole[scope]
        score = score + weights.session * session[scope] + self._priors(scope)
        best = np.argsort(-score, kind="stable")
        rows = corpus.order[scope[best]]
        found = Ranked(rows, score[best], by_words[best], by_meaning[best], match[best])
        return found if self.tokens else replace(found, meaning=np.zeros_like(found.meaning))

    def _words(self) -> tuple[Floats, Floats]:
        """BM25 of each chunk, and of its conversation in standard deviations."""
        corpus, n = self.corpus, len(self.corpus)
        codes = corpus.conversations[corpus.order]
        lengths = corpus.lengths[corpus.order].astype(np.float32)
        long = np.bincount(codes, lengths, len(corpus.codes)).astype(np.float32)
        chunks, talks = np.zeros(n, np.float32), np.zeros(len(corpus.codes), np.float32)
        told, every = list[float](), 0.0
        for term, weight in self.query.terms.items():
            at, counts = corpus.postings(term)
            worth = idf(n, len(at))
            every += worth
            if not len(at):
                continue
            told.append(worth)
            value = np.float32(weight * worth) * bm25(counts, lengths[at], float(lengths.mean()))
            chunks[at] += value
            self._columns.append((at, value))
            in_talk = np.bincount(codes[at], counts, len(talks)).astype(np.float32)
            talks += idf(len(talks), int(np.count_nonzero(in_talk))) * bm25(in_talk, long, float(long.mean()))
        if told:
            self._shares = np.array(told, np.float32) / np.float32(every)
        each = talks[codes]
        return chunks, (each - each.mean()) / _spread(each)

    def _whole(self) -> Floats | None:
        """The likeness of the texts as wholes, in standard deviations; average where it is not known."""
        if self.query.vectors is None or self.tokens is None:
            return None
        known = self.corpus.tokens > 0
        likeness = self.corpus.pooled @ self.query.vectors.pooled
        if known.any():
            likeness = (likeness - likeness[known].mean()) / _spread(likeness[known])
        found: Floats = np.where(known, likeness, np.float32(0))[self.corpus.order]
        return found

    def _scope(self, words: Floats, whole: Floats | None) -> Ints:
        """The positions to be looked at closely, sorted: all, or as many as there is time for."""
        counts = self.corpus.tokens[self.corpus.order]
        if len(self.corpus) <= ROWS_READ and counts.sum() <= TOKENS_READ:
            return np.arange(len(self.corpus))
        rough = words if whole is None else words + whole
        codes = self.corpus.conversations[self.corpus.order]
        rough = _smoothed(rough, codes)
        reach = len(self.weights.neighbour)
        likely = np.argpartition(-rough, min(len(rough) - 1, LIKELIEST))[:LIKELIEST]
        likely = likely[np.argsort(-rough[likely], kind="stable")]
        around = (likely[:, None] + np.arange(-reach, reach + 1)).clip(0, len(rough) - 1).ravel()
        places, first = np.unique(around, return_index=True)
        places = places[np.argsort(first)][:ROWS_READ]  # each with its neighbours, the likeliest first
        return np.sort(places[np.cumsum(counts[places]) <= TOKENS_READ])

    def _gathered(self, scope: Ints) -> Floats:
        """(len(scope), terms) each term's BM25."""
        found = np.zeros((len(scope), max(1, len(self._columns))), np.float32)
        dense = np.zeros(len(self.corpus), np.float32)
        for i, (at, value) in enumerate(self._columns):
            dense[at] = value
            found[:, i] = dense[scope]
            dense[at] = 0
        return found

    def _meaning(self, scope: Ints, near: _Near, by_words: Floats, match: Floats) -> tuple[Floats, Floats]:
        """Late interaction (MaxSim): how well each word of the question is met, weighed by how much it tells.

        Chunks that are not embedded yet count by their words. Second: how much is met, in absolute terms.
        Source: Khattab & Zaharia 2020 (ColBERT).
        """
        corpus = self.corpus
        asked, worth = self._asked()
        known = corpus.tokens[corpus.order[scope]] > 0
        if not known.any():
            return by_words, match
        matches = np.zeros((len(scope), len(asked)), np.float32)
        matches[known] = self._matches(scope[known], asked)
        if len(scope) == len(corpus):
            usual = matches[known]
        else:
            embedded = np.flatnonzero(corpus.tokens[corpus.order] > 0)
            usual = self._matches(embedded[:: max(1, len(embedded) // SAMPLE)], asked)
        match = np.where(known, (matches @ worth).clip(0) / worth.sum(), match)
        centre = usual.mean(axis=0)
        matches[known] -= centre
        spread = _spread((usual - centre) @ worth)
        found = _covered(matches, near) @ worth / spread
        return np.where(known, found, by_words), match

    def _asked(self) -> tuple[Floats, Floats]:
        """The vectors of the question's telling tokens, and the idf of the words they stand in."""
        vectors = self.query.vectors
        assert vectors is not None
        worth = np.zeros(len(vectors.tokens), np.float32)
        every = np.zeros(len(vectors.tokens), np.float32)
        for word, start, end in words(self.query.text):
            inside = (vectors.spans[:, 0] < end) & (vectors.spans[:, 1] > start)
            rarity = max(idf(len(self.corpus), self._having(term)) for term in terms_of(word))
            every[inside] = rarity
            if word not in STOP_WORDS:
                worth[inside] = rarity
        worth = worth if worth.any() else every if every.any() else np.ones_like(worth)
        return vectors.tokens[worth > 0], worth[worth > 0]

    def _having(self, term: str) -> int:
        return len(self.corpus.postings(term)[0])

    def _matches(self, positions: Ints, asked: Floats) -> Floats:
        """(len(positions), len(asked)) the best cosine that a token of the chunk has with each asked one."""
        assert self.tokens is not None
        rows, scales, starts = self.tokens(self.corpus.chunks[self.corpus.order[positions]])
        cosines = np.empty((len(rows), len(asked)), np.float32)
        for block in (slice(start, start + BLOCK) for start in range(0, len(rows), BLOCK)):
            np.matmul(rows[block].astype(np.float32), asked.T, out=cosines[block])
        cosines *= scales[:, None]
        best: Floats = np.maximum.reduceat(cosines, starts, axis=0)
        return best

    def _priors(self, scope: Ints) -> Floats:
        """What speaks for or against a chunk whatever its words."""
        rows, weights = self.corpus.order[scope], self.weights
        marks = self.corpus.marks[rows]
        found = np.where(marks & QUESTION, np.float32(-weights.question), np.float32(0))
        if self.query.speaker:
            by = self.corpus.speakers[self.query.speaker]
            found += np.where(self.corpus.said_by[rows] == by, np.float32(weights.speaker), np.float32(0))
        if self.query.asks_when:
            found += np.where(marks & TIME, np.float32(weights.when), np.float32(0))
        if self.query.during is not None:
            at, (start, end) = self.corpus.at[rows], self.query.during
            found += np.where((at >= start) & (at < end), np.float32(weights.dated), np.float32(0))
        length = _among_alike(np.log1p(self.corpus.lengths[rows]), self.corpus.said_by[rows])
        found += np.float32(weights.length) * length
        return found


@dataclass(frozen=True)
class _Near:
    """For each distance: which places of the scope have a neighbour there, which it is, and its weight."""

    pairs: tuple[tuple[Ints, Ints, np.float32], ...]


def _neighbours(scope: Ints, conversations: Ints, weights: Sequence[float]) -> _Near:
    pairs = []
    for distance, weight in enumerate(weights, start=1):
        for step in (-distance, distance):
            other = np.searchsorted(scope, scope + step).clip(0, len(scope) - 1)
            there = (scope[other] == scope + step) & (conversations[other] == conversations)
            pairs.append((np.flatnonzero(there), other[there], np.float32(weight)))
    return _Near(tuple(pairs))


def _covered(matches: Floats, near: _Near) -> Floats:
    """Each word's match where it is met best: here, or less its weight in a turn close by.

    An answer often leaves out what its question said. Unlike adding up neighbours' scores, this does not
    count a word twice, nor lift a turn beside a good one that brings nothing itself.
    """
    best = matches.copy()
    for here, there, weight in near.pairs:
        best[here] = np.maximum(best[here], weight * matches[there])
    return best


def _among_alike(values: Floats, groups: Ints) -> Floats:
    """How far each value lies from the mean of its group, in standard deviations of these distances."""
    sizes = np.bincount(groups)
    off = values - (np.bincount(groups, values) / np.maximum(sizes, 1))[groups]
    near: Floats = off.astype(np.float32)
    found: Floats = near / _spread(near)
    return found


def _smoothed(scores: Floats, conversations: Ints) -> Floats:
    """A rough share in neighbours' scores, to choose what is looked at closely."""
    found = scores.copy()
    for distance, weight in ((1, 0.4), (2, 0.2)):
        same = conversations[distance:] == conversations[:-distance]
        found[:-distance] += np.where(same, np.float32(weight) * scores[distance:], np.float32(0))
        found[distance:] += np.where(same, np.float32(weight) * scores[:-distance], np.float32(0))
    return found


def _spread(values: Floats) -> np.float32:
    """The standard deviation, as if the farthest value came once more: among few, it may be near nothing."""
    if not len(values):
        return np.float32(1)
    off = values - values.mean()
    found = np.float32(np.sqrt((np.dot(off, off) + np.square(values).max()) / (len(values) + 1)))
    return found if found > 1e-9 else np.float32(1)
