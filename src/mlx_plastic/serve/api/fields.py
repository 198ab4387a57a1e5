"""Read a request's fields with suspicion: kinds, bounds, and nothing that is not understood."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from mlx_plastic.serve.api.errors import ApiError, bad

MOST_DEPTH = 64  # of nested lists and objects


def parse_body(data: bytes) -> dict[str, Any]:
    """The JSON object in a request's body. Raises ApiError, which never quotes it."""

    def refuse(name: str) -> NoReturn:
        raise bad(f"{name} is no JSON number")

    try:
        value = json.loads(data.decode("utf-8"), parse_constant=refuse)
    except UnicodeDecodeError:
        raise bad("the body is not UTF-8") from None
    except RecursionError:
        raise bad("the body is nested too deeply") from None
    except ValueError as error:
        place = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise bad(f"the body is not JSON{place}") from None
    if not isinstance(value, dict):
        raise bad("the body is not a JSON object")
    if _depth(value) > MOST_DEPTH:
        raise bad("the body is nested too deeply")
    return value


def _depth(value: Any) -> int:
    deepest, todo = 0, [(value, 1)]
    while todo:
        one, depth = todo.pop()
        deepest = max(deepest, depth)
        if depth > MOST_DEPTH:
            return depth
        inner: Iterable[Any] = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        todo += [(i, depth + 1) for i in inner if isinstance(i, dict | list)]
    return deepest


class Fields:
    """An object's fields, each taken once; null means absent. where: its place in the request."""

    def __init__(self, given: Mapping[str, Any], where: str = "") -> None:
        self._given = given
        self._taken: set[str] = set()
        self._where = where

    def take(self, name: str) -> Any:
        """The value as it is; None if it is absent or null."""
        self._taken.add(name)
        return self._given.get(name)

    def place(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    def number(self, name: str, default: float, low: float, high: float) -> float:
        value = self.take(name)
        if value is None:
            return default
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not fits or not low <= value <= high:
            raise bad(f"{self.place(name)} must be a number from {low:g} to {high:g}", self.place(name))
        return float(value)

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise bad(f"{self.place(name)} must be a whole number from {low} to {high}", self.place(name))
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise bad(f"{self.place(name)} must be true or false", self.place(name))
        return value

    def text(self, name: str, default: str = "", *, most: int = 4096) -> str:
        value = self.take(name)
        return default if value is None else text_of(value, self.place(name), most)

    def choice(self, name: str, default: str, known: Sequence[str]) -> str:
        value = self.take(name)
        if value is None:
            return default
        if value not in known:
            raise bad(f"{self.place(name)} must be one of {', '.join(known)}", self.place(name))
        return str(value)

    def listed(self, name: str, *, most: int) -> list[Any]:
        value = self.take(name)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > most:
            raise bad(f"{self.place(name)} must be a list of at most {most}", self.place(name))
        return value

    def object(self, name: str) -> dict[str, Any]:
        value = self.take(name)
        return {} if value is None else object_of(value, self.place(name))

    def ignore(self, *names: str) -> None:
        """Fields that change nothing here, whatever they hold: they are for the provider's own books."""
        self._taken.update(names)

    def only(self, name: str, *allowed: Any) -> None:
        """A parameter that has no other value here than these (or none)."""
        value = self.take(name)
        if value is not None and not any(value == a and type(value) is type(a) for a in allowed):
            raise bad(f"{self.place(name)} is not supported here", self.place(name), "unsupported_parameter")

    def end(self) -> None:
        """Raises ApiError if a field was not taken: better than to be asked for something and not do it."""
        left = sorted(k for k, v in self._given.items() if k not in self._taken and v is not None)
        if left:
            raise self._unknown(left[0])

    def _unknown(self, name: str) -> ApiError:
        near = difflib.get_close_matches(name, self._taken, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        place = self.place(name[:64])
        return bad(f"unsupported parameter {place!r}{meant}", place, "unsupported_parameter")


def text_of(value: Any, place: str, most: int) -> str:
    if not isinstance(value, str):
        raise bad(f"{place} must be a text", place)
    if len(value) > most:
        raise bad(f"{place} is longer than {most} characters", place)
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise bad(f"{place} is not valid Unicode", place)
    return value


def object_of(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad(f"{place} must be an object", place)
    return value
