"""Read prompts: several short ones together, a long one piece by piece between the steps of others."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_plastic.backend import mx
from mlx_plastic.packs.wear.mixed import Mixer
from mlx_plastic.serve.batch.lane import Lane, Row, choose

SHORT = 16  # padding tokens in a row that are not worth a pass of their own


@dataclass
class Unread:
    """A row, the cache of what it was found to have read before, and what is left: at least one token."""

    row: Row
    cache: list[Any]
    rest: list[int]


def grouped(unread: Sequence[Unread], *, most: int, chunk: int) -> Iterator[list[Unread]]:
    """What is read together: of about one length, so that at most half of it is padding; long ones alone."""
    group: list[Unread] = []
    for one in sorted(unread, key=lambda u: -len(u.rest)):
        longest = len(group[0].rest) if group else 0
        if group and (len(group) == most or longest > chunk or longest > 2 * len(one.rest) + SHORT):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def fill(
    model: Any, mixer: Mixer, group: Sequence[Unread], *, chunk: int, batched: bool
) -> Generator[None, None, Lane]:
    """Yields after each chunk; returns the lane with every row's first token chosen.

    The model is dressed before each chunk: in between it may have worn something else.
    """
    rows = [one.row for one in group]
    outfits = [row.outfit for row in rows]
    caches = zip(*(one.cache for one in group), strict=True)
    cache = [layers[0].merge(list(layers)) for layers in caches] if batched else group[0].cache
    lengths = [len(one.rest) - 1 for one in group]
    longest = max(lengths)
    padding = [longest - n for n in lengths]
    if any(padding):
        for layer in cache:
            layer.prepare(lengths=lengths, right_padding=padding)
    tokens = mx.array([[*one.rest[:-1], *[0] * pad] for one, pad in zip(group, padding, strict=True)])
    for start in range(0, longest, chunk):
        mixer.dress(outfits)
        model(tokens[:, start : start + chunk], cache=cache)  # its logits are never computed
        mixer.rest()
        mx.eval([layer.state for layer in cache])
        yield
    if any(padding):
        for layer in cache:
            layer.finalize()
    mixer.dress(outfits)
    last = mx.array([one.rest[-1] for one in group])
    logits = model(last[:, None], cache=cache)[:, -1]
    mixer.rest()
    for row in rows:
        row.fed = list(row.job.wanted.tokens)
    pending, infos = choose(rows, logits, rows)
    mx.async_eval(pending)
    return Lane(rows, cache, pending, infos)
