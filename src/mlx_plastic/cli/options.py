"""Options that several commands share, and what they mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mlx_plastic.cli.output import note

if TYPE_CHECKING:
    from mlx_plastic.base import Base
    from mlx_plastic.home import Home

F = TypeVar("F", bound=Callable[..., Any])


def base_option(function: F) -> F:
    """The option --base of a command, passed to it as `base: str | None`."""
    return click.option(
        "--base", metavar="REF", help="The base: nano, a folder or a hub id; else as configured."
    )(function)


def open_base(home: Home, ref: str | None) -> Base:
    """The base `ref`, or the configured one, in memory; what was done at load is noted on stderr."""
    from mlx_plastic.base import BaseConfig, load_base
    from mlx_plastic.home import settings

    base = load_base(ref or settings(home, "base", BaseConfig).ref, cache=home.cache)
    if base.note:
        note(base.note)
    return base
