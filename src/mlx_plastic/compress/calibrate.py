"""What an error in each matrix costs, in nats per token, told from a few texts.

To second order KL(base || changed) = 1/2 E[(d log p / d y . E x)^2], y = W x being the layer's outputs and
the tokens that p is asked about drawn from the base itself. Split into what comes in and what goes out
(Martens & Grosse 2015, arXiv:1503.05671) it is 1/2 sum_o r_o (E H E^T)_oo, with r_o the mean squared
gradient of output o and H the mean of x x^T, each token weighted by the size of its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlx_plastic.backend import mx
from mlx_plastic.base.sharding import grouped
from mlx_plastic.compress.taps import Tap, storable
from mlx_plastic.lowrank.layers import is_stack, wrapped
from mlx_plastic.lowrank.quick import quick_activations, summed_nll
from mlx_plastic.lowrank.svd import Array
from mlx_plastic.samples import Encoded

CHUNK_BYTES = 1 << 30  # of sums at once; a model with more runs the texts several times
EVEN = 256  # tokens that would ask for every output alike
UNSEEN = 0.5  # of a token that the texts lack: so many times it counts as seen

Tick = Callable[[int, int, str], None]  # done, total, detail


@dataclass(frozen=True)
class Term:
    """One way in which a matrix acts.

    h: (in, in) float32; r: (out,) float32, so that h weighs what r does not.
    """

    h: Array
    r: Array


@dataclass(frozen=True)
class Curvature:
    """What errors E (out, in) of a matrix cost, in nats per token.

    1/2 sum over terms and rows of r_o (E H E^T)_oo.
    """

    terms: tuple[Term, ...]

    def nats(self, e: Array, rows: Array | None = None) -> float:
        """rows: which ones `e` has; the sum is then scaled up to all of them."""
        total = 0.0
        for term in self.terms:
            r = term.r if rows is None else term.r[rows]
            found = np.einsum("oi,oi->o", e @ term.h, e).astype(np.float64)
            part = float(found @ r)
            total += part if rows is None else part * len(term.r) / len(rows)
        return 0.5 * total

    @property
    def metric(self) -> Array:
        """(in, in): one H for all rows, for rounding."""
        return np.asarray(sum(float(term.r.mean()) * term.h.astype(np.float64) for term in self.terms))


Curvatures = tuple[Curvature, ...]  # one for a plain matrix, one an expert for a stack


@dataclass
class _Sum:
    """x x^T weighted by squared gradients, and these, summed over the tokens of one matrix."""

    h: Array
    r: Array
    weight: float = 0.0
    squares: float = 0.0  # of the weights
    seen: int = 0

    def add(self, x: Array, g: Array) -> None:
        """x: (n, in), g: (n, out)."""
        size = np.sum(g * g, axis=1)
        self.h += (x * size[:, None]).T @ x
        self.r += np.sum(g * g, axis=0)
        self.weight += float(size.sum())
        self.squares += float(np.square(size, dtype=np.float64).sum())
        self.seen += len(x)

    def term(self, tokens: int) -> Term:
        """With r / weight summing to one, h the mean over all tokens.

        Outputs that few tokens asked for would seem free: r is drawn to its mean as if EVEN tokens more had
        asked for all alike.
        """
        even = np.full_like(self.r, 1 / len(self.r))
        share = self.r / self.weight if self.weight else even
        trust = self.seen / (self.seen + EVEN)
        share = trust * share + (1 - trust) * even
        even_tokens = self.weight**2 / self.squares if self.squares else 0.0
        return Term(shrunk(self.h / tokens, even_tokens).astype(np.float32), share.astype(np.float32))


def shrunk(h: Array, tokens: float) -> Array:
    """A covariance (in, in) from few tokens with its off-diagonal drawn to zero, as far as it is chance.

    tokens: of equal weight. The share is the variance of the off-diagonal entries, h_ii h_jj / n of each if
    inputs are Gaussian, over their squares (Schaefer & Strimmer 2005). Without it rounding fits the texts.
    """
    diagonal = np.diag(h)
    off = float(np.sum(np.square(h, dtype=np.float64)) - np.sum(np.square(diagonal, dtype=np.float64)))
    chance = float(np.sum(diagonal, dtype=np.float64) ** 2 - np.sum(np.square(diagonal, dtype=np.float64)))
    share = min(1.0, chance / (max(tokens, 1.0) * off)) if off > 0 else 0.0
    found: Array = (1 - share) * h
    np.fill_diagonal(found, diagonal)
    return found


@dataclass
class _Seen:
    """The sums of one layer.

    of the experts of a stack, of an embedding as it is looked up, of it as a head.
    """

    shape: tuple[int, ...]  # (E, out, in)
    linear: list[_Sum] = field(default_factory=list)
    lookup: Array | None = None  # (in, in) sum of g g^T
    counts: Array | None = None  # (out,) how often each row was looked up

    def curvatures(self, tokens: int) -> Curvatures:
        if self.lookup is None or self.counts is None:
            return tuple(Curvature((s.term(tokens),)) for s in self.linear)
        likely = (self.counts + UNSEEN) / (self.counts.sum() + UNSEEN * len(self.counts))
        terms = [Term((self.lookup / tokens).astype(np.float32), likely.astype(np.float32))]
        return (Curvature((*terms, *(s.term(tokens) for s in self.linear))),)


def calibrated(
    model: Any,
    paths: Sequence[str],
    texts: Sequence[Encoded],
    *,
    seed: int = 0,
    chunk_bytes: int = CHUNK_BYTES,
    tick: Tick | None = None,
) -> Iterator[tuple[str, Curvatures]]:
    """Each path with the curvatures of its matrix, in the order of `paths`, a few in memory at a time.

    A layer that never ran is left out. Afterwards the model has the modules it had. Raises ValueError without
    a text of two tokens.
    """
    texts = [text for text in texts if len(text.tokens) > 1]
    if not texts:
        raise ValueError("no text to calibrate on")
    layers: dict[str, Any] = storable(model)
    chunks = list(grouped(paths, [_sum_bytes(layers[path].weight) for path in paths], chunk_bytes))
    tokens = sum(len(text.tokens) - 1 for text in texts)
    for number, chunk in enumerate(chunks):
        seen: dict[str, _Seen] = {}
        with quick_activations(), wrapped(model, {path: Tap(layers[path]) for path in chunk}) as taps:
            for i, text in enumerate(texts):
                if tick:
                    tick(number * len(texts) + i, len(chunks) * len(texts), "calibrating")
                _add(model, taps, text, seed + i, seen)
        yield from ((path, seen[path].curvatures(tokens)) for path in chunk if path in seen)


def _sum_bytes(weight: mx.array) -> int:
    *stack, _, width = weight.shape
    return int(4 * math.prod(stack) * width**2)


def _add(model: Any, taps: Mapping[str, Tap], text: Encoded, seed: int, seen: dict[str, _Seen]) -> None:
    """One text, forward and back."""
    records = {path: tap.record for path, tap in taps.items()}
    tokens = mx.array(text.tokens[:-1])[None]
    logits = model(tokens)[0].astype(mx.float32)
    targets = mx.random.categorical(logits, key=mx.random.key(seed))
    shapes = {path: list(record.shapes) for path, record in records.items()}
    mx.eval(targets)

    def loss(probes: list[mx.array]) -> tuple[mx.array, list[list[mx.array]]]:
        rest = iter(probes)
        for path, record in records.items():
            record.forget()
            record.probes = [next(rest) for _ in shapes[path]]
        nll = summed_nll(model(tokens)[0], targets)
        return nll, [[x for _, x, _ in record.seen] for record in records.values()]

    zeros = [mx.zeros(shape, dtype) for found in shapes.values() for shape, dtype in found]
    (_, inputs), slopes = mx.value_and_grad(loss)(zeros)
    mx.eval(inputs, slopes)
    at = 0
    for (path, record), xs in zip(records.items(), inputs, strict=True):
        for (kind, _, experts), x in zip(record.seen, xs, strict=True):
            _sum(path, taps[path], kind, x, slopes[at], experts, seen)
            at += 1
        record.forget()


def _sum(
    path: str, tap: Tap, kind: str, x: mx.array, g: mx.array, experts: mx.array | None, seen: dict[str, _Seen]
) -> None:
    weight = tap.layer.weight
    *stack, out, width = weight.shape
    one = seen.setdefault(path, _Seen((math.prod(stack), out, width)))
    is_lookup = kind == "in" and not mx.issubdtype(x.dtype, mx.floating)
    slope = np.array(g.reshape(-1, width if is_lookup else out).astype(mx.float32))
    if is_lookup:
        ids = np.array(x).reshape(-1)
        one.lookup = (one.lookup if one.lookup is not None else 0) + slope.T @ slope
        one.counts = (one.counts if one.counts is not None else 0) + np.bincount(ids, minlength=out)
        return
    if not one.linear:
        one.linear = [_fresh(out, width) for _ in range(max(1, math.prod(stack) if stack else 1))]
    if experts is None or not is_stack(tap.layer):
        one.linear[0].add(np.array(x.reshape(-1, width).astype(mx.float32)), slope)
        return
    chosen = np.array(experts).reshape(-1)
    given = mx.broadcast_to(x, (*experts.shape, *x.shape[experts.ndim :]))
    rows = np.array(given.reshape(-1, width).astype(mx.float32))
    for e in np.unique(chosen):
        one.linear[int(e)].add(rows[chosen == e], slope[chosen == e])


def _fresh(out: int, width: int) -> _Sum:
    return _Sum(np.zeros((width, width), np.float32), np.zeros(out, np.float32))
