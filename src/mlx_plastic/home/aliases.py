"""[aliases] of config.toml: short names for bases, packs and models, each standing for another name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from mlx_plastic.errors import BadConfig
from mlx_plastic.home.config import table
from mlx_plastic.home.place import Home

RESERVED = ("nano", "base", "plastic", "active")  # they mean something already, everywhere
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")  # no colon, plus or slash: those join names


def read_aliases(home: Home) -> dict[str, str]:
    """Name -> what it stands for in the end, through other aliases. Raises BadConfig."""
    return resolved(table(home, "aliases"), where=f"{home.config_file} [aliases]")


def resolved(given: Mapping[str, object], *, where: str) -> dict[str, str]:
    """The same for a mapping. Raises BadConfig for cycles, reserved names, and what is no name at all."""
    plain: dict[str, str] = {}
    for name, target in given.items():
        if not NAME.fullmatch(name):
            raise BadConfig(
                f"{where}: {name!r} cannot be an alias", hint="use letters, digits, _, - and . (up to 64)"
            )
        if name in RESERVED:
            raise BadConfig(f"{where}: {name!r} means something else already", hint="choose another name")
        if not isinstance(target, str) or not target.strip():
            raise BadConfig(f"{where}: {name} stands for no name", hint=f'write {name} = "org/model"')
        plain[name] = target.strip()
    return {name: _end(name, plain, where) for name in plain}


def _end(name: str, plain: Mapping[str, str], where: str) -> str:
    path = [name]
    while (following := plain[path[-1]]) in plain:
        if following in path:
            circle = " -> ".join([*path[path.index(following) :], following])
            raise BadConfig(f"{where}: aliases in a circle: {circle}", hint="let one of them name a model")
        path.append(following)
    return following


def base_of(home: Home, ref: str) -> str:
    """The base that `ref` stands for. Raises BadConfig if it is an alias and a folder here as well."""
    aliases = read_aliases(home)
    if ref not in aliases:
        return ref
    if Path(ref).is_dir():
        raise BadConfig(
            f"{ref!r} is an alias of {aliases[ref]!r}, and a folder here", hint=f"for the folder: ./{ref}"
        )
    return aliases[ref]


def pack_of(home: Home, name: str, packs: Iterable[str]) -> str:
    """The pack that `name` stands for. packs: those of the store. Raises BadConfig for a clash with one."""
    aliases = read_aliases(home)
    check_clashes(aliases, packs, where=f"{home.config_file} [aliases]")
    return aliases.get(name, name)


def check_clashes(aliases: Mapping[str, str], packs: Iterable[str], *, where: str) -> None:
    """Raises BadConfig if a pack has the name of an alias: it could not be told which is meant."""
    if both := sorted(set(aliases) & set(packs)):
        raise BadConfig(f"{where}: there is a pack {both[0]!r} as well", hint="give the alias another name")
