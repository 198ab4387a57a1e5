"""How surprised a model is by given tokens: negative log likelihoods in nats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mlx_plastic.backend import mx, side_by_side
from mlx_plastic.lowrank.quick import nlls
from mlx_plastic.samples import Encoded

BATCH_TOKENS = 4096  # per forward pass
LOGITS_BYTES = 64_000_000  # per piece

Half = Callable[[mx.array], mx.array]
Measure = Callable[[mx.array, mx.array], mx.array]  # logits (n, vocab), ids (n,) -> (n,)


def halves(model: Any) -> tuple[Half, Half] | None:
    """trunk: tokens (b, n) -> hidden states (b, n, d), and head: hidden states -> logits; or None.

    Most models are head(trunk(tokens)), and then the head need only see the positions that count.
    A few scale or cap their logits: so it is tried on three tokens, with whatever packs are attached.
    """
    text = getattr(model, "language_model", model)
    trunk = getattr(text, "model", None)
    head = getattr(text, "lm_head", None) or getattr(getattr(trunk, "embed_tokens", None), "as_linear", None)
    if trunk is None or head is None:
        return None
    probe = mx.array([[0, 1, 2]])
    try:
        same = bool(mx.allclose(head(trunk(probe)), model(probe), rtol=1e-5, atol=1e-5).item())
    except (TypeError, ValueError, AttributeError):  # put together in another way
        return None
    return (trunk, head) if same else None


def score(model: Any, batch: Sequence[Encoded]) -> list[float]:
    """The summed negative log likelihood of each sample's targets, in nats, from float32 logits."""
    return [nats for (nats,) in tally(model, batch, nlls)]


def hits(logits: mx.array, ids: mx.array) -> mx.array:
    """(n,) float32: 1 where the likeliest token is that of `ids`, else 0. logits: (n, vocab); ids: (n,)."""
    return (mx.argmax(logits, axis=-1) == ids).astype(mx.float32)


def tally(model: Any, batch: Sequence[Encoded], *measures: Measure) -> list[list[float]]:
    """Of each sample, what each measure says of its targets, summed over them; one pass for all measures."""
    sums = [[0.0] * len(measures) for _ in batch]
    trunk, head = halves(model) or (model, None)
    budget = BATCH_TOKENS if head else BATCH_TOKENS // 4  # without halves every position has logits

    def scoring(rows: list[int], width: int) -> Iterator[list[mx.array]]:
        samples = [batch[row] for row in rows]
        for part, values in _pieces(samples, width, trunk, head, measures):
            yield [values]
            found: Any = values.tolist()
            for m, numbers in enumerate(found):
                for i, number in zip(part, numbers, strict=True):
                    sums[rows[i]][m] += number

    passes = _passes([len(sample.tokens) for sample in batch], budget)
    side_by_side(scoring(rows, width) for rows, width in passes)
    return sums


def _passes(lengths: Sequence[int], budget: int) -> Iterator[tuple[list[int], int]]:
    """Rows of about the same length, and the width that they are padded to; `budget` tokens a pass."""
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if rows and (len(rows) + 1) * _width(lengths[rows[0]]) > budget:
            yield rows, _width(lengths[rows[0]])
            rows = []
        rows.append(row)
    if rows:
        yield rows, _width(lengths[rows[0]])


def _width(length: int) -> int:
    step = 32 if length <= 256 else 128  # few widths: MLX compiles and keeps some kernels per shape
    return max(step, -(-length // step) * step)


def _pieces(
    samples: Sequence[Encoded], width: int, trunk: Half, head: Half | None, measures: Sequence[Measure]
) -> Iterator[tuple[list[int], mx.array]]:
    """Which sample each of the next targets belongs to, and (measures, targets) values, yet to be computed.

    Padding stands on the right, where a causal model does not look.
    """
    tokens = mx.array([[*s.tokens, *[0] * (width - len(s.tokens))] for s in samples])
    places = [(i, j) for i, s in enumerate(samples) for j, counts in enumerate(s.targets) if counts]
    hidden = trunk(tokens)
    flat = hidden.reshape(-1, hidden.shape[-1])
    vocab = (head(flat[:1]) if head else flat).shape[-1]
    piece = max(1, LOGITS_BYTES // (4 * vocab))
    for start in range(0, len(places), piece):
        part = places[start : start + piece]
        before = flat[mx.array([i * width + j - 1 for i, j in part])]
        ids = mx.array([samples[i].tokens[j] for i, j in part])
        logits = head(before) if head else before
        yield [i for i, _ in part], mx.stack([measure(logits, ids) for measure in measures])
