"""What comes into the layers of a model: rows of their inputs over samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.backend import mx, nn
from mlx_plastic.evals import thinned
from mlx_plastic.lowrank.layers import linear_layers, wrapped
from mlx_plastic.samples import Encoded

Array = NDArray[Any]

ROWS = 256  # of each layer: more than any rank asked for, and about 1 GB for a base of 7 billion
FROM_EACH = 8  # rows at least of a sample that is run


class _Tap(nn.Module):
    """A layer that keeps what it is given."""

    def __init__(self, layer: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layer = layer
        self.seen: list[mx.array] = []

    def __call__(self, x: mx.array, *rest: Any, **named: Any) -> Any:
        self.seen.append(x.reshape(-1, x.shape[-1]))
        return self.layer(x, *rest, **named)


def layer_inputs(
    model: Any, paths: Sequence[str], samples: Sequence[Encoded], *, rows: int = ROWS
) -> dict[str, Array]:
    """Module path -> (n, in) float32 inputs of the layer there, n at most `rows`, for the layers that ran.

    They are spread evenly over at most rows / 8 samples. What the model wears meanwhile acts; afterwards it
    has the very modules it had. Experts see the tokens that come to their stack, whoever they are routed to.
    Raises ValueError if there is no sample.
    """
    if not samples:
        raise ValueError("no sample to run the model on")
    samples = thinned(samples, max(1, rows // FROM_EACH))
    each = -(-rows // len(samples))
    kept: dict[str, list[Array]] = {path: [] for path in paths}
    layers = linear_layers(model)
    with wrapped(model, {path: _Tap(layers[path]) for path in paths}) as taps:
        for sample in samples:
            mx.eval(model(mx.array(sample.tokens)[None]))
            for path, tap in taps.items():
                seen, tap.seen = tap.seen, []
                if seen:
                    kept[path].append(_some(mx.concatenate(seen), each))
    return {path: np.concatenate(found)[:rows] for path, found in kept.items() if found}


def _some(rows: mx.array, most: int) -> Array:
    at = np.unique(np.linspace(0, rows.shape[0] - 1, most).astype(np.int32))
    return np.array(rows[mx.array(at)].astype(mx.float32))
