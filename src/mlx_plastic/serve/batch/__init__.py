"""Many requests decoded together, each with its own packs, sampling and end."""

from mlx_plastic.serve.batch.config import BatchConfig
from mlx_plastic.serve.batch.jobs import Asked, End, Job, Piece, Said, Sampling, TokenInfo, Wanted
from mlx_plastic.serve.batch.worker import Worker

__all__ = [
    "Asked",
    "BatchConfig",
    "End",
    "Job",
    "Piece",
    "Said",
    "Sampling",
    "TokenInfo",
    "Wanted",
    "Worker",
]
