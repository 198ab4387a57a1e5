"""Every section of config.toml with its dataclass: what can be set, to what, and where a value comes from."""

from __future__ import annotations

import dataclasses
import importlib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mlx_plastic.errors import BadConfig, PlasticError
from mlx_plastic.home import HOME_VARIABLE, Home, from_mapping
from mlx_plastic.home.aliases import resolved
from mlx_plastic.home.config import nearest, read_config

Origin = Literal["default", "config.toml", "environment", "option"]

# section: (module, dataclass); [aliases] has none, its keys are the person's own
CLASSES = {
    "base": ("mlx_plastic.base.config", "BaseConfig"),
    "batch": ("mlx_plastic.serve.batch.config", "BatchConfig"),
    "budget": ("mlx_plastic.sleep.config", "BudgetConfig"),
    "chat": ("mlx_plastic.serve.engine", "ChatConfig"),
    "compress": ("mlx_plastic.compress.judge", "Bounds"),
    "consent": ("mlx_plastic.home.consent", "ConsentConfig"),
    "gate": ("mlx_plastic.evals.policy", "Policy"),
    "judge": ("mlx_plastic.sleep.judge", "JudgeConfig"),
    "lessons": ("mlx_plastic.sleep.lessons.config", "LessonConfig"),
    "night": ("mlx_plastic.sleep.config", "NightConfig"),
    "privacy": ("mlx_plastic.memory.privacy.policies", "PrivacyConfig"),
    "retrieval": ("mlx_plastic.memory.recall", "RetrievalConfig"),
    "router": ("mlx_plastic.memory.router.decision", "RouterConfig"),
    "serve": ("mlx_plastic.serve.api.config", "ServeConfig"),
    "teacher": ("mlx_plastic.sleep.teacher.config", "TeacherConfig"),
    "train": ("mlx_plastic.packs.train.config", "TrainConfig"),
}
ALIASES = "aliases"
# variables that change what a command does, and what holds without them
VARIABLES = {HOME_VARIABLE: "", "MLX_PLASTIC_BLAS": "auto", "MLX_PLASTIC_KERNEL": "", "HF_HUB_OFFLINE": "0"}


@dataclass(frozen=True)
class Setting:
    """One value and where it comes from. section: "" for what no section holds."""

    section: str
    key: str
    value: Any
    origin: Origin
    default: Any


def class_of(section: str) -> type[Any]:
    """The dataclass of a section. Raises BadConfig that names the nearest."""
    if section not in CLASSES:
        raise BadConfig(f"there is no section {section!r}", hint=nearest(section, [*CLASSES, ALIASES]))
    module, name = CLASSES[section]
    found: type[Any] = getattr(importlib.import_module(module), name)
    return found


def around(home: Home, option: str | None) -> list[Setting]:
    """What is set beside config.toml: the home and what the environment says. option: that of --home."""
    origin: Origin = "option" if option else "environment" if os.environ.get(HOME_VARIABLE) else "default"
    found = [Setting("", "home", str(home.root), origin, None)]
    for name, default in VARIABLES.items():
        given = os.environ.get(name)
        if name != HOME_VARIABLE:
            value = given if given else default
            found.append(Setting("", name, value, "environment" if given else "default", default))
    return found


def read_all(home: Home, section: str | None = None) -> list[Setting]:
    """Every setting, or those of one section, as a command would read it. Raises BadConfig."""
    written = read_config(home)
    if section is not None and section != ALIASES:
        class_of(section)
    found = []
    for name in CLASSES if section is None else [section]:
        if name == ALIASES:
            continue
        found += _of_section(home, name, written.get(name, {}))
    if section in (None, ALIASES):
        given = written.get(ALIASES, {})
        resolved(given, where=f"{home.config_file} [{ALIASES}]")
        found += [Setting(ALIASES, key, value, "config.toml", None) for key, value in given.items()]
    return found


def _of_section(home: Home, name: str, written: Mapping[str, Any]) -> list[Setting]:
    kind = class_of(name)
    defaults = kind()
    values = valid(name, written, where=f"{home.config_file} [{name}]")
    found = []
    for field in dataclasses.fields(kind):
        origin: Origin = "config.toml" if field.name in written else "default"
        value, default = getattr(values, field.name), getattr(defaults, field.name)
        found.append(Setting(name, field.name, value, origin, default))
    return found


def valid(section: str, written: Mapping[str, Any], *, where: str) -> Any:
    """The section's dataclass from what is written. Raises BadConfig for what a command would refuse."""
    if section == ALIASES:
        return resolved(written, where=where)
    made = from_mapping(class_of(section), written, where=where)
    if section == "budget":
        made.check()
    elif section in ("train", "night"):
        _check_training(section, made)
    return made


def _check_training(section: str, made: Any) -> None:
    """As training itself does; in [night] a rank or rate of 0 is chosen to suit the base."""
    try:
        chosen = {"rank": made.rank or 1, "learning_rate": made.learning_rate or 1.0}
        dataclasses.replace(made, **(chosen if section == "night" else {})).check()
    except PlasticError as error:
        raise BadConfig(f"[{section}]: {error.message}", hint="write a value within that bound") from error


def path_of(name: str) -> tuple[str, ...]:
    """section.key, or section.key.kind where the key holds a table. Raises BadConfig naming the nearest."""
    section, _, key = name.partition(".")
    if not key:
        raise BadConfig(f"{name!r} names no setting", hint="write section.key, such as night.epochs")
    if section == ALIASES:
        return section, key
    fields = {field.name for field in dataclasses.fields(class_of(section))}
    first, _, rest = key.partition(".")
    if first not in fields:
        raise BadConfig(f"[{section}] has no key {first!r}", hint=nearest(first, fields))
    holds_table = get_origin(get_type_hints(class_of(section))[first]) is dict
    if bool(rest) != holds_table:
        way = f"{section}.{first}.KIND" if holds_table else f"{section}.{first}"
        raise BadConfig(f"{name!r} names no setting", hint=f"write {way}")
    return (section, first, rest) if rest else (section, first)


def parse(path: tuple[str, ...], text: str) -> Any:
    """A value from the command line, of the type that its field has. Raises BadConfig."""
    wanted = str if path[0] == ALIASES else get_type_hints(class_of(path[0]))[path[1]]
    if get_origin(wanted) is dict:
        wanted = get_args(wanted)[1]
    texts = wanted is str or get_origin(wanted) is Literal
    if texts and not (len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"):
        return text
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise BadConfig(
            f"{'.'.join(path)}: {text!r} is no {_called(wanted)}", hint=f"write {_example(wanted)}"
        ) from error
    return float(value) if wanted is float and type(value) is int else value


def _called(wanted: Any) -> str:
    names = {bool: "truth value", int: "whole number", float: "number", str: "text", NoneType: "value"}
    return names.get(wanted, "list of texts" if get_origin(wanted) is list else "value")


def _example(wanted: Any) -> str:
    examples = {bool: "true or false", int: "one such as 8", float: "one such as 0.5"}
    return examples.get(wanted, '["Ada Lovelace", "Ada"]')


def changed(home: Home, changes: Mapping[tuple[str, ...], Any | None]) -> None:
    """Raises BadConfig if the file with these changes (None: taken out) would be refused by a command."""
    written = read_config(home)
    for path, value in changes.items():
        inner = written
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        if value is None:
            inner.pop(path[-1], None)
        else:
            inner[path[-1]] = value
    for section in {path[0] for path in changes}:
        valid(section, written.get(section, {}), where=f"[{section}]")


def config_text(home: Home) -> str:
    """config.toml as it stands; "" if there is none."""
    path: Path = home.config_file
    return path.read_bytes().decode("utf-8") if path.exists() else ""
