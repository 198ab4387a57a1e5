"""Options that several commands share, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mlx_plastic.cli.output import note

if TYPE_CHECKING:
    from mlx_plastic.base import Base
    from mlx_plastic.home import Home

F = TypeVar("F", bound=Callable[..., Any])
N = TypeVar("N", int, float)


def base_option(function: F) -> F:
    """The option --base of a command, passed to it as `base: str | None`."""
    return click.option(
        "--base", metavar="REF", help="The base: nano, a folder or a hub id; else as configured."
    )(function)


def verbose_option(function: F) -> F:
    """The option --verbose of a command, for who writes it there: as `plastic -v` ahead of the command."""

    def louder(_: click.Context, __: click.Parameter, given: bool) -> None:
        import logging  # 10 ms that --help need not pay

        found = logging.getLogger("mlx_plastic")
        if given and found.level > logging.INFO:
            found.setLevel(logging.INFO)

    return click.option(
        *("--verbose", "-v"), is_flag=True, expose_value=False, callback=louder,
        help="Say more on stderr, each request to a teacher too.",
    )(function)  # fmt: skip


class Number(click.FloatRange):
    """A number within bounds: click's, which lets "nan" and "inf" pass, without these."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is no number", param, ctx)
        return found


class Listed(click.ParamType[list[N]]):
    """Numbers with commas between them, each at least `least` (or above it, if `above`)."""

    def __init__(self, kind: type[N], *, least: float, above: bool = False) -> None:
        self.kind: type[N] = kind
        self.least = least
        self.above = above
        self.name = "N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[N]:
        if isinstance(value, list):
            return value
        try:
            found = [self.kind(part) for part in str(value).split(",")]
        except ValueError:
            found = []
        if not found or not all(self.least < n < float("inf") or n == self.least for n in found):
            self._refuse(value, param, ctx)
        if self.above and self.least in found:
            self._refuse(value, param, ctx)
        return found

    def _refuse(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> None:
        what = "whole numbers" if self.kind is int else "numbers"
        bound = f"{'above' if self.above else 'from'} {self.least:g}{'' if self.above else ' up'}"
        self.fail(f"{value!r} is not a list of {what} {bound}, with commas between them", param, ctx)


def base_ref(home: Home, ref: str | None) -> str:
    """The base that was named, or the configured one; an alias is what it stands for."""
    from mlx_plastic.base import BaseConfig
    from mlx_plastic.home import settings
    from mlx_plastic.home.aliases import base_of

    return base_of(home, ref or settings(home, "base", BaseConfig).ref)


def pack_name(home: Home, name: str) -> str:
    """The pack that was named, or what an alias stands for; a folder's path stays."""
    from mlx_plastic.home.aliases import pack_of
    from mlx_plastic.packs import Store

    return pack_of(home, name, Store(home).names())


def open_base(home: Home, ref: str | None) -> Base:
    """The base `ref`, or the configured one, in memory; what was done at load is noted on stderr."""
    from mlx_plastic.base import load_base

    base = load_base(base_ref(home, ref), cache=home.cache)
    if base.note:
        note(base.note)
    return base
