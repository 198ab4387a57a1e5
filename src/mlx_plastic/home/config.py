"""config.toml: sections that fill frozen dataclasses, and errors that name the nearest."""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from mlx_plastic.errors import BadConfig
from mlx_plastic.home.place import Home

T = TypeVar("T")

# every section that some room reads; `plastic config` knows the dataclass of each, a test keeps both the same
SECTIONS = (
    "aliases",
    "base",
    "batch",
    "budget",
    "chat",
    "compress",
    "consent",
    "gate",
    "judge",
    "lessons",
    "night",
    "privacy",
    "retrieval",
    "router",
    "serve",
    "teacher",
    "train",
)


def settings(home: Home | None, section: str, kind: type[T]) -> T:
    """[section] of config.toml as the frozen dataclass `kind`; absent keys keep their defaults.

    home: None is a private session, which has no settings of its own.
    Raises BadConfig for broken TOML, an unknown section or key (the nearest known one is named) or a value
    of another type than the default's.
    """
    if home is None:
        return kind()
    return from_mapping(kind, table(home, section), where=f"{home.config_file} [{section}]")


def table(home: Home, section: str) -> dict[str, Any]:
    """[section] of config.toml as it is written there; {} if it is not. Raises BadConfig."""
    given: dict[str, Any] = read_config(home).get(section, {})
    return given


def read_config(home: Home) -> dict[str, dict[str, Any]]:
    """All of config.toml by section. Raises BadConfig for what is no TOML, no table, or not known."""
    found = read_toml(home.config_file)
    check_sections(found, where=str(home.config_file))
    return found


def check_sections(found: Mapping[str, Any], *, where: str) -> None:
    """Raises BadConfig for an unknown section, naming the nearest, and for a known one that is no table."""
    for name, value in found.items():
        if name not in SECTIONS:
            if not isinstance(value, dict):
                raise BadConfig(f"{where}: {name!r} is in no section", hint="write it below its [section]")
            raise BadConfig(f"{where}: unknown section {name!r}", hint=nearest(name, SECTIONS))
        if not isinstance(value, dict):
            raise BadConfig(f"{where}: {name} must be a table", hint=f"write [{name}]")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the nearest of what is known, or all of it."""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"


def from_mapping(kind: type[T], given: Mapping[str, Any], *, where: str) -> T:
    """A frozen dataclass from a mapping of its fields, with the errors of `settings`."""
    hints = get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key, value in given.items():
        if key not in known:
            raise BadConfig(f"{where}: unknown key {key!r}", hint=nearest(key, known))
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


def check_bounds(section: str, values: object, bounds: Mapping[str, tuple[float, float]]) -> None:
    """Raises BadConfig that names every number of the dataclass outside its [least, most].

    NaN is outside of all, and so is what no float holds: inf, and whole numbers as large.
    """
    faults = []
    for name, (least, most) in bounds.items():
        value = getattr(values, name)
        if value > sys.float_info.max:
            faults.append(f"{name} is too large")
        elif not least <= value <= most:
            bound = f"{least:g} or more" if most == math.inf else f"between {least:g} and {most:g}"
            told = f"{value:g}" if isinstance(value, float) else value
            faults.append(f"{name} is {told}, not {bound}")
    if faults:
        raise BadConfig(f"[{section}]: {'; '.join(faults)}", hint="write numbers within these bounds")


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file; {} if there is none. Raises BadConfig."""
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
