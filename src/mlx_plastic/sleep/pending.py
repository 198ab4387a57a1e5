"""A forget that is not finished: what is still to be rebuilt, in a file that outlives a crash. Ids only."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_plastic.errors import BadData
from mlx_plastic.home import Home, write_json

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Pending:
    """turns: forgotten. packs: that held them, to be set apart. base: the fingerprint that they learned on.

    nights: passed ones that are to be learned again, in their order. done: what became of each so far: the
    tag of the night that took its place; empty if too little was left, or if the gate refused.
    """

    turns: tuple[str, ...]
    packs: tuple[str, ...] = ()
    nights: tuple[str, ...] = ()
    base: str = ""
    purge: bool = False
    done: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> tuple[str, ...]:
        return tuple(tag for tag in self.nights if tag not in self.done)

    def after(self, tag: str, outcome: str) -> Pending:
        return dataclasses.replace(self, done=self.done | {tag: outcome})


def file(home: Home) -> Path:
    return home.root / "forgetting.json"


def pending(home: Home) -> Pending | None:
    """The forget that is not finished. Raises BadData for a file that cannot be read: it is never dropped."""
    path = file(home)
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
        if value.pop("format_version") != FORMAT_VERSION:
            raise ValueError("another format")
        lists = {key: tuple(value[key]) for key in ("turns", "packs", "nights")}
        return Pending(**value | lists)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadData(
            f"{path} cannot be read: {type(error).__name__}",
            hint="move it away, and forget the same turns again: that finds their packs anew",
        ) from error


def keep(home: Home, found: Pending) -> None:
    write_json(file(home), {"format_version": FORMAT_VERSION, **dataclasses.asdict(found)})


def finish(home: Home) -> None:
    file(home).unlink(missing_ok=True)
