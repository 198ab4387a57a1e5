"""config.toml: sections that fill frozen dataclasses, and errors that name the nearest."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from mlx_plastic.errors import BadConfig
from mlx_plastic.home.place import Home

T = TypeVar("T")


def settings(home: Home, section: str, kind: type[T]) -> T:
    """[section] of config.toml as the frozen dataclass `kind`; absent keys keep their defaults.

    Raises BadConfig for broken TOML, an unknown key (the nearest known one is named) or a value
    of another type than the default's.
    """
    given = _read_toml(home.config_file).get(section, {})
    if not isinstance(given, dict):
        raise BadConfig(f"{home.config_file}: {section} must be a table", hint=f"write [{section}]")
    return from_mapping(kind, given, where=f"{home.config_file} [{section}]")


def from_mapping(kind: type[T], given: Mapping[str, Any], *, where: str) -> T:
    """A frozen dataclass from a mapping of its fields, with the errors of `settings`."""
    hints = get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key, value in given.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
            raise BadConfig(f"{where}: unknown key {key!r}", hint=meant)
        wanted = hints[key]
        if wanted is float and type(value) is int:
            continue
        if get_origin(wanted) is Literal and value not in get_args(wanted):
            choices = ", ".join(map(repr, get_args(wanted)))
            raise BadConfig(f"{where}: {key} is {value!r}", hint=f"use one of {choices}")
        if isinstance(wanted, type) and (type(value) is not wanted):
            raise BadConfig(
                f"{where}: {key} is {value!r}, not of type {wanted.__name__}",
                hint=f"write a {wanted.__name__}",
            )
    return kind(**given)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadConfig(f"cannot read {path}: {error.strerror}", hint="check who owns it") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(
            f"{path} is not TOML: {error}", hint="mend that line or move the file away"
        ) from error
