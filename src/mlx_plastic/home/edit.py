"""One value of a TOML file set or taken out, the rest of its bytes kept: comments, order, blanks.

Lines are found by how they look, so what was made is read again, and has to differ in that one value alone;
a file that is written in another way than ours (inline tables, dotted keys) is left to its owner.
"""

from __future__ import annotations

import copy
import json
import math
import re
import tomllib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from mlx_plastic.errors import BadConfig

HEADER = re.compile(r"\s*\[")
BARE = re.compile(r"[A-Za-z0-9_-]+")


def with_value(text: str, path: Sequence[str], value: object) -> str:
    """The text with `path`, say ("night", "rank"), set to a number, text, truth or list of texts.

    Raises BadConfig if that cannot be done without touching anything else.
    """
    line = f"{_key(path[-1])} = {literal(value)}"
    lines = text.splitlines(keepends=True)
    end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    place = _table(lines, path[:-1])
    if place is None:
        gap = [] if not lines else [end] if lines[-1].endswith("\n") else [end, end]
        header = ".".join(map(_key, path[:-1]))
        made = [*lines, *gap, f"[{header}]{end}", line + end]
    elif (found := _lines_of(lines, place, path[-1])) is not None:
        first, after = found
        made = [*lines[:first], line + _comment(lines[first:after]) + end, *lines[after:]]
    else:
        at = _last_value(lines, place) + 1
        before = lines[:at]
        if not before[-1].endswith("\n"):
            before[-1] += end
        made = [*before, line + end, *lines[at:]]
    return _checked(text, "".join(made), path, value)


def without_value(text: str, path: Sequence[str]) -> str:
    """The text without `path`; its table stays. Raises BadConfig as `with_value`."""
    lines = text.splitlines(keepends=True)
    place = _table(lines, path[:-1])
    found = None if place is None else _lines_of(lines, place, path[-1])
    made = lines if found is None else [*lines[: found[0]], *lines[found[1] :]]
    return _checked(text, "".join(made), path, None)


def literal(value: object) -> str:
    """As TOML writes it. Raises ValueError for what config.toml never holds."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(literal, value))}]"
    raise ValueError(f"no TOML for {type(value).__name__}")


def _key(name: str) -> str:
    return name if BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _table(lines: Sequence[str], path: Sequence[str]) -> tuple[int, int] | None:
    """The lines of the table [path]: that of its header, and the first that is not its own."""
    wanted: dict[str, Any] = {}
    for name in reversed(path):
        wanted = {name: wanted}
    headers = [i for i, line in enumerate(lines) if HEADER.match(line) and _parsed(line) is not None]
    for i, after in pairwise([*headers, len(lines)]):
        if _parsed(lines[i]) == wanted:
            return i, after
    return None


def _lines_of(lines: Sequence[str], place: tuple[int, int], key: str) -> tuple[int, int] | None:
    """Where key = value stands in the table, which may take several lines."""
    first = place[0] + 1
    while first < place[1]:
        after = first + 1
        while after < place[1] and _parsed("".join(lines[first:after])) is None:
            after += 1
        if key in (_parsed("".join(lines[first:after])) or {}):
            return first, after
        first = after
    return None


def _last_value(lines: Sequence[str], place: tuple[int, int]) -> int:
    """The last line of the table that is neither blank nor a comment, which may belong to what follows."""
    own = [i for i in range(*place) if lines[i].strip() and not lines[i].lstrip().startswith("#")]
    return own[-1]


def _comment(lines: Sequence[str]) -> str:
    """The comment behind a value, with the blanks before it; "" if there is none."""
    if len(lines) > 1:
        return ""
    line = lines[0].rstrip()
    for found in re.finditer(r"\s*#", line):
        if _parsed(line[: found.start()]) == _parsed(line):
            return line[found.start() :]
    return ""


def _checked(old: str, new: str, path: Sequence[str], value: object) -> str:
    wanted = copy.deepcopy(tomllib.loads(old))
    inner = wanted
    for name in path[:-1]:
        inner = inner.setdefault(name, {})
    if value is None:
        inner.pop(path[-1], None)
    else:
        inner[path[-1]] = list(value) if isinstance(value, tuple) else value
    if _pruned(_parsed(new)) != _pruned(wanted):
        name = ".".join(path)
        raise BadConfig(f"the way config.toml is written, {name} cannot be set here", hint="edit it by hand")
    return new


def _pruned(value: Any) -> Any:
    """Without empty tables, which mean nothing."""
    if not isinstance(value, dict):
        return value
    inner = {key: _pruned(one) for key, one in value.items()}
    return {key: one for key, one in inner.items() if one != {}}
