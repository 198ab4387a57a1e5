"""The immutable base: find it, name it by its bytes, load it, ask it. Nothing here can write to it."""

from mlx_plastic.base.checkpoint import NANO, TensorInfo, check, fingerprint, read_header, resolve, shards
from mlx_plastic.base.config import BaseConfig
from mlx_plastic.base.model import Base, load_base
from mlx_plastic.base.roles import role_of, targets
from mlx_plastic.base.score import halves

__all__ = [
    "NANO",
    "Base",
    "BaseConfig",
    "TensorInfo",
    "check",
    "fingerprint",
    "halves",
    "load_base",
    "read_header",
    "resolve",
    "role_of",
    "shards",
    "targets",
]
