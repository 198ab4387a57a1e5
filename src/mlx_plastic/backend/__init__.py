"""The only door to MLX: `from mlx_plastic.backend import mx, nn, optim`.

Importing it first puts a fast BLAS in MLX's way (see blas.py); `BLAS` tells what was found.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from mlx_plastic.backend.blas import load_fast_blas

BLAS = load_fast_blas()  # before the first import of MLX: its calls are bound then

import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402
import mlx.optimizers as optim  # noqa: E402
from mlx.utils import tree_flatten, tree_unflatten  # noqa: E402

from mlx_plastic.backend.distributed import World, world  # noqa: E402
from mlx_plastic.backend.hardware import (  # noqa: E402
    available_memory_bytes,
    device,
    is_slow_low_precision,
    peak_memory_mb,
    reset_peak_memory,
)
from mlx_plastic.backend.streams import let_streams_overlap, make_streams, run_side_by_side  # noqa: E402

let_streams_overlap()


def streams() -> list[Any]:
    """Where parts of a batch are computed side by side (see streams.py)."""
    return make_streams(BLAS)


def side_by_side(tasks: Iterable[Iterator[list[Any]]]) -> None:
    """Run tasks that each yield what is to be computed next, one on each stream."""
    run_side_by_side(tasks, streams())


__all__ = [
    "BLAS",
    "World",
    "available_memory_bytes",
    "device",
    "is_slow_low_precision",
    "mx",
    "nn",
    "optim",
    "peak_memory_mb",
    "reset_peak_memory",
    "side_by_side",
    "streams",
    "tree_flatten",
    "tree_unflatten",
    "world",
]
