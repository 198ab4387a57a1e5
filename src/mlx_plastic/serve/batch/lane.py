"""Rows that are decoded in one forward pass: they join when their prompt is read, and leave when they end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlx_plastic.backend import mx
from mlx_plastic.packs.wear.mixed import Mixer, Outfit
from mlx_plastic.serve.batch.jobs import End, Finish, Job, Piece, TokenInfo
from mlx_plastic.serve.batch.pick import Picker
from mlx_plastic.serve.batch.speech import Speech


@dataclass(eq=False)
class Row:
    """A job with a place in a batch. fed: ids whose keys and values are in the cache."""

    job: Job
    outfit: Outfit
    picker: Picker
    speech: Speech
    reused: int = 0
    fed: list[int] = field(default_factory=list)
    said: int = 0
    began: float = field(default_factory=time.perf_counter)
    first_s: float = 0.0
    may_go_on: bool = True

    def hear(self, token: int, info: TokenInfo | None, ends: frozenset[int]) -> Finish | None:
        """Tell the token; how the answer ended, if it did."""
        wanted = self.job.wanted
        if not self.said:
            self.first_s = time.perf_counter() - self.began
        if token in ends:
            return "stop"
        self.said += 1
        text = self.speech.hear(token)
        if text or info:
            self.job.tell(Piece(text, (info,) if info else ()))
        if self.speech.matched or not self.may_go_on:
            return "stop"
        return "length" if self.said >= wanted.max_tokens else None

    def end(self, finish: Finish) -> None:
        if finish in ("stop", "length") and (rest := self.speech.end()):
            self.job.tell(Piece(rest))
        tokens = len(self.job.wanted.tokens)
        seconds = time.perf_counter() - self.began
        matched = self.speech.matched
        self.job.tell(End(finish, tokens, self.said, self.reused, self.first_s, seconds, matched=matched))


Ended = tuple[Row, Finish, int]  # its place in the lane


@dataclass
class Lane:
    """rows share `cache`, one entry a layer. pending: (rows,) ids that were chosen and not yet read.

    infos: of the pending ones. The cache is a batched one, unless the model has a kind that cannot be: then
    there is one row at most.
    """

    rows: list[Row]
    cache: list[Any]
    pending: mx.array
    infos: list[TokenInfo | None]

    def join(self, other: Lane) -> None:
        for mine, theirs in zip(self.cache, other.cache, strict=True):
            mine.extend(theirs)
        self.rows += other.rows
        self.infos += other.infos
        self.pending = mx.concatenate([self.pending, other.pending])

    def keep(self, places: Sequence[int]) -> None:
        """Only the rows at these places stay."""
        if len(places) == len(self.rows):
            return
        self.rows = [self.rows[i] for i in places]
        self.infos = [self.infos[i] for i in places]
        if not self.rows:
            self.cache = []
            return
        chosen = mx.array(list(places))
        for layer in self.cache:
            layer.filter(chosen)
        self.pending = self.pending[chosen]

    def taken_out(self, place: int) -> list[Any]:
        """A copy of one row's cache."""
        return [layer.extract(place) if hasattr(layer, "extract") else layer for layer in self.cache]

    @property
    def positions(self) -> int:
        """Cached positions, padding included."""
        return len(self.rows) * max((len(row.fed) for row in self.rows), default=0)


def step(model: Any, mixer: Mixer, lane: Lane, ends: frozenset[int]) -> list[Ended]:
    """Tell every row's pending token and choose the next ones; rows that ended, with their places.

    Where all rows take the likeliest token, the next are computed while these are told; a row that ends then
    has been computed once too often. The lane still holds the rows that ended.
    """
    mixer.dress([row.outfit for row in lane.rows])
    if all(row.picker.plain for row in lane.rows):
        fed = lane.pending
        following = mx.argmax(_logits(model, fed, lane.cache), axis=-1)
        mx.async_eval(following)
        ended = _told(lane, fed, ends)
        for row, token in zip(lane.rows, _ids(fed), strict=True):
            row.fed.append(token)
        lane.pending = following
        return ended
    ended = _told(lane, lane.pending, ends)
    live = [row for row in lane.rows if row not in {r for r, _, _ in ended}]
    if live:  # ended rows ride along once: a change of the batch costs more
        fed = lane.pending
        logits = _logits(model, fed, lane.cache)
        for row, token in zip(lane.rows, _ids(fed), strict=True):
            row.fed.append(token)
        lane.pending, lane.infos = choose(lane.rows, logits, live)
    return ended


def choose(
    rows: Sequence[Row], logits: mx.array, live: Sequence[Row]
) -> tuple[mx.array, list[TokenInfo | None]]:
    """The next token of each row in `live`, by its own picker; of the others any."""
    likeliest = mx.argmax(logits, axis=-1)
    if all(row.picker.plain for row in rows):
        return likeliest, [None] * len(rows)
    table = np.array(logits.astype(mx.float32))
    found, infos = _ids(likeliest), list[TokenInfo | None]()
    for i, row in enumerate(rows):
        info = None
        if row in live and not row.picker.plain:
            found[i], info, row.may_go_on = row.picker.pick(table[i])
        infos.append(info)
    return mx.array(found), infos


def _told(lane: Lane, tokens: mx.array, ends: frozenset[int]) -> list[Ended]:
    ended: list[Ended] = []
    for place, (row, token) in enumerate(zip(lane.rows, _ids(tokens), strict=True)):
        if row.job.gone.is_set():
            ended.append((row, "cancelled", place))
        elif (finish := row.hear(token, lane.infos[place], ends)) is not None:
            ended.append((row, finish, place))
    return ended


def _logits(model: Any, tokens: mx.array, cache: list[Any]) -> mx.array:
    logits: mx.array = model(tokens[:, None], cache=cache)[:, -1]
    return logits


def _ids(tokens: mx.array) -> list[int]:
    found: Any = tokens.tolist()
    return [int(token) for token in found]
