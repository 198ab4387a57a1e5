"""Batched decoding: many prompts at once, each answered as if it were alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mlx_plastic.backend import mx, side_by_side

ROWS = 64  # prompts decoded together: on 2 cores 16 rows gave a quarter, 128 no more
POSITIONS = 32_768  # cached positions of a batch, prompts and answers: bounds its memory
SHORT = 16  # padding tokens in a row that are not worth a batch of its own
CHUNK = 512  # prompt tokens per row in one pass: bounds the attention matrix

Picker = Callable[[mx.array, Sequence[int]], mx.array]  # logits (b, vocab), rows' numbers -> ids (b,)


def picker(temperature: float, seed: int) -> Picker:
    """How the next token is chosen: the likeliest at 0, else drawn from softmax(logits / temperature).

    What a row gets depends on `seed` and the row's number only, not on its company in the batch.
    """
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}, not >= 0")
    return _draw(temperature, seed) if temperature else _likeliest


def _likeliest(logits: mx.array, rows: Sequence[int]) -> mx.array:
    return mx.argmax(logits, axis=-1)


def _draw(temperature: float, seed: int) -> Picker:
    streams: dict[int, random.Random] = {}

    def pick(logits: mx.array, rows: Sequence[int]) -> mx.array:
        points = [streams.setdefault(row, random.Random(f"{seed}/{row}")).random() for row in rows]
        p = mx.softmax(logits.astype(mx.float32) / temperature, axis=-1)
        below = mx.cumsum(p, axis=-1) < mx.array(points)[:, None]
        return mx.minimum(below.sum(axis=-1), logits.shape[-1] - 1)  # a float32 sum may end below 1

    return pick


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    pick: Picker,
    goes_on: Callable[[int, int], bool],
) -> None:
    """Decode every prompt, telling each token as `goes_on(row, token)` until that row's answer is False.

    prompts: token ids, at least one each. max_tokens: per row, at least 1.
    """
    if max_tokens < 1 or not all(prompts):
        raise ValueError("every prompt needs a token, and max_tokens must be at least 1")

    def decoding(rows: list[int]) -> Iterator[list[Any]]:
        cache = _new_cache(model, len(rows))
        if cache is not None:
            yield from _decode(model, prompts, rows, cache, max_tokens, pick, goes_on)
            return
        for row in rows:  # a kind of cache that cannot be batched
            yield from _decode(model, prompts, [row], _new_cache(model, 1) or [], max_tokens, pick, goes_on)

    side_by_side([decoding(rows) for rows in _batches([len(p) for p in prompts], max_tokens)])


def _batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Rows of about the same length together, longest first, so that at most half of a batch is padding."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        longest = lengths[batch[0]] if batch else 0
        full = len(batch) == ROWS or (len(batch) + 1) * (longest + max_tokens) > POSITIONS
        if batch and (full or longest > 2 * lengths[row] + SHORT):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _new_cache(model: Any, rows: int) -> list[Any] | None:
    """One cache per layer for `rows` sequences, or None if this model's caches cannot be batched."""
    from mlx_lm.models.cache import make_prompt_cache

    single = make_prompt_cache(model)
    if rows == 1:
        return list(single)
    if not all(hasattr(layer, "merge") for layer in single):
        return None
    return [layers[0].merge(list(layers)) for layers in zip(*_copies(model, single, rows), strict=True)]


def _copies(model: Any, first: Any, rows: int) -> Iterator[Any]:
    from mlx_lm.models.cache import make_prompt_cache

    yield first
    for _ in range(rows - 1):
        yield make_prompt_cache(model)


def _decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    rows: list[int],
    cache: list[Any],
    max_tokens: int,
    pick: Picker,
    goes_on: Callable[[int, int], bool],
) -> Iterator[list[Any]]:
    """Yields what is to be computed next: the cache piece by piece, then each token."""
    yield from _prefill(model, [prompts[row][:-1] for row in rows], cache)
    token = mx.array([prompts[row][-1] for row in rows])
    live = list(range(len(rows)))  # positions in the batch whose answers go on
    token = pick(_next_logits(model, token, cache), rows)
    yield [token]
    for step in range(1, max_tokens + 1):
        following = pick(_next_logits(model, token, cache), rows) if step < max_tokens else token
        yield [following]  # computed while we look at the token before it
        found: Any = token.tolist()
        still = [i for i in live if goes_on(rows[i], found[i])]
        if not still:
            return
        token, live = following, still
        if len(still) <= len(rows) // 2:  # the ended ones no longer ride along
            token, rows, live = _keep(token, rows, cache, still)


def _keep(
    token: mx.array, rows: list[int], cache: list[Any], live: list[int]
) -> tuple[mx.array, list[int], list[int]]:
    chosen = mx.array(live)
    for layer in cache:
        layer.filter(chosen)
    return token[chosen], [rows[i] for i in live], list(range(len(live)))


def _next_logits(model: Any, token: mx.array, cache: list[Any]) -> mx.array:
    logits: mx.array = model(token[:, None], cache=cache)[:, -1]
    return logits


def _prefill(model: Any, prompts: Sequence[Sequence[int]], cache: list[Any]) -> Iterator[list[Any]]:
    """Fill the cache. Shorter rows are padded on the right, which the caches then move to the left."""
    lengths = [len(p) for p in prompts]
    longest = max(lengths)
    padding = [longest - n for n in lengths]
    if any(padding):
        for layer in cache:
            layer.prepare(lengths=lengths, right_padding=padding)
    tokens = mx.array([[*p, *[0] * pad] for p, pad in zip(prompts, padding, strict=True)])
    for start in range(0, longest, CHUNK):
        model(tokens[:, start : start + CHUNK], cache=cache)  # its logits are never computed
        yield [layer.state for layer in cache]
    if any(padding):
        for layer in cache:
            layer.finalize()


def until(text: str, stops: Sequence[str]) -> str:
    cuts = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(cuts)] if cuts else text


def trimmed(pieces: Iterator[str], stops: Sequence[str]) -> Iterator[str]:
    """The pieces without space around the whole, up to the first stop text; says nothing too early."""
    text, said = "", 0
    for piece in pieces:
        text += piece
        cut = until(text, stops)
        stopped = len(cut) < len(text)
        sure = (cut if stopped else settled(text, stops)).strip()
        if len(sure) > said:
            yield sure[said:]
            said = len(sure)
        if stopped:
            return
    if rest := text.strip()[said:]:
        yield rest


def settled(text: str, stops: Sequence[str]) -> str:
    """The text without an ending that may turn out to be the beginning of a stop."""
    doubt = [n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
    return text[: len(text) - max(doubt, default=0)]
