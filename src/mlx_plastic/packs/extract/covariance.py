"""How the inputs of a model's linear layers spread: the mean of x x^T over the tokens of some samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_plastic.backend import mx, nn
from mlx_plastic.base.sharding import grouped
from mlx_plastic.lowrank.layers import dims, linear_layers, wrapped
from mlx_plastic.lowrank.svd import Array
from mlx_plastic.samples import Encoded

CHUNK_BYTES = 1 << 30  # of covariances at once; a model with more runs the samples several times


@dataclass
class _Sum:
    """x x^T summed over the tokens of one input. Not a module, so that it is no part of the model."""

    matrix: mx.array | None = None
    tokens: int = 0

    def add(self, x: mx.array) -> None:
        rows = x.reshape(-1, x.shape[-1]).astype(mx.float32)
        new = rows.T @ rows
        self.matrix = new if self.matrix is None else self.matrix + new
        self.tokens += rows.shape[0]

    @property
    def mean(self) -> Array:
        assert self.matrix is not None
        return np.array(self.matrix / self.tokens)


@dataclass
class _Last:
    """The input that a layer was given last, and where it is summed."""

    x: mx.array | None = None
    sum: _Sum | None = None


class _Gram(nn.Module):
    """A layer that sums x x^T of what it is given, unless the layer before it was given the same."""

    def __init__(self, layer: Any, last: _Last) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layer = layer
        self.last = last
        self.own = _Sum()
        self.sum: _Sum | None = None  # of the layer that did the work

    def __call__(self, x: mx.array) -> Any:
        if self.last.x is not x:
            self.own.add(x)
            self.last.x, self.last.sum = x, self.own
        self.sum = self.last.sum
        return self.layer(x)


def input_covariances(
    model: Any,
    paths: Sequence[str],
    pieces: Sequence[Encoded],
    *,
    chunk_bytes: int = CHUNK_BYTES,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[dict[str, Array]]:
    """Module path -> (in, in) float32 mean of x x^T, a few modules at a time, in the order of `paths`.

    Layers that are given the very same input (queries, keys and values) share one array. What the model
    wears acts; between two chunks it has the modules it had. A layer that never ran is left out.
    """
    layers = linear_layers(model)
    chunks = list(grouped(paths, [4 * dims(layers[path])[1] ** 2 for path in paths], chunk_bytes))
    total = len(chunks) * len(pieces)
    for number, chunk in enumerate(chunks):
        last = _Last()
        with wrapped(model, {path: _Gram(layers[path], last) for path in chunk}) as grams:
            for done, piece in enumerate(pieces):
                out = model(mx.array(piece.tokens)[None])
                mx.eval(out, [gram.own.matrix for gram in grams.values() if gram.own.matrix is not None])
                if on_progress:
                    on_progress(number * len(pieces) + done, total)
        sums = {id(gram.sum): gram.sum for gram in grams.values() if gram.sum}
        means = {key: found.mean for key, found in sums.items()}
        yield {path: means[id(gram.sum)] for path, gram in grams.items() if gram.sum}
