"""Which base a home uses when a command names none."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_plastic.base.checkpoint import NANO


@dataclass(frozen=True)
class BaseConfig:
    """[base] of config.toml."""

    ref: str = NANO  # the built-in one, a folder or a hub id
