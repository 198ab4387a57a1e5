"""A view that is made when it is first asked for, then kept: functools.cached_property without its lock.

The lock of Python 3.11's costs more than most of these views do. Two threads may both make a view: both make
the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")


class once(Generic[Made]):
    def __init__(self, make: Callable[[Any], Made]) -> None:
        self._make, self._name = make, make.__name__
        self.__doc__ = make.__doc__

    def __get__(self, owner: Any, kind: Any = None) -> Made:
        made = owner.__dict__[self._name] = self._make(owner)  # found there before this is, from now on
        return made
