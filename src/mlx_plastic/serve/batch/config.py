"""How much is decoded at once, and what is kept for the next request."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlx_plastic.home.config import check_bounds

BOUNDS = {
    "rows": (1, math.inf),
    "queue": (0, math.inf),
    "chunk_tokens": (1, math.inf),
    "prefix_mb": (0, math.inf),
    "prefixes": (0, math.inf),
    "memory_share": (0, 1),
    "idle_s": (0, 1e9),  # a thread can wait so long
}


@dataclass(frozen=True)
class BatchConfig:
    """[batch] of config.toml."""

    rows: int = 16  # requests decoded together; more wait
    queue: int = 64  # requests that may wait; more are refused
    chunk_tokens: int = 512  # of a prompt that are read between two steps of the others
    prefix_mb: int = 512  # of read conversations, kept so that the next turn reads only what is new
    prefixes: int = 32  # conversations of which that is kept
    memory_share: float = 0.5  # of the free memory that what running requests have read may take
    idle_s: float = 0.0  # without a request, after which the base leaves memory; 0: never

    def __post_init__(self) -> None:
        """Raises BadConfig for a number that makes no sense."""
        check_bounds("batch", self, BOUNDS)
