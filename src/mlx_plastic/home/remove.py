"""Taking a home off the disk: only what is ours in it, told before it goes."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from mlx_plastic.errors import Busy, PlasticError
from mlx_plastic.home.contents import REMADE, Entry, entries
from mlx_plastic.home.locks import locked
from mlx_plastic.home.place import Home

HINT = "end it first: plastic chat, plastic serve, or a night"
WAIT_S = 2.0


@dataclass(frozen=True)
class Removal:
    """go: what is deleted. stay: the person's, if it is kept. foreign: not ours, never touched."""

    go: tuple[Entry, ...]
    stay: tuple[Entry, ...]
    foreign: tuple[Entry, ...]

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.go)


def plan(home: Home, *, keep_data: bool) -> Removal:
    """What would go. Raises PlasticError for a folder that holds more than a home: names may deceive."""
    person = Path.home().resolve()
    if home.root == person or home.root in person.parents or home.root.joinpath(".git").exists():
        raise PlasticError(
            f"{home.root} is no folder of ours alone", hint="delete by hand what plastic has put there"
        )
    found = entries(home)
    ours = [entry for entry in found if entry.what]
    foreign = tuple(entry for entry in found if not entry.what)
    if not keep_data:
        return Removal(tuple(ours), (), foreign)
    go = tuple(e for e in ours if e.name in REMADE or e.name.startswith("."))
    return Removal(go, tuple(e for e in ours if e not in go), foreign)


def remove(home: Home, planned: Removal) -> None:
    """Delete what was planned; the home itself goes if nothing is left in it. May be repeated after a crash.

    Links are deleted, never what they lead to. Raises Busy if another process uses the home.
    """
    with (
        locked(home, "night", hint=HINT, wait_s=WAIT_S),
        locked(home, "packs", hint=HINT, wait_s=WAIT_S),
        locked(home, "config", hint=HINT, wait_s=WAIT_S),
    ):
        if any(entry.name == "memory" for entry in planned.go):
            _require_unused(home.memory_db)
        for entry in planned.go:
            if entry.name != "locks":
                delete(home.root / entry.name)
    delete(home.root / "locks")
    with contextlib.suppress(OSError):
        home.root.rmdir()  # if it is empty


def delete(path: Path) -> None:
    """A file, a link or a folder with all below it. Raises OSError for what cannot be deleted."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


def _require_unused(database: Path) -> None:
    """Raises Busy if another process has the log open: only then may its journal not be given up."""
    if not database.is_file() or database.is_symlink():
        return
    with contextlib.closing(sqlite3.connect(database, timeout=WAIT_S)) as db:
        try:
            db.execute("PRAGMA journal_mode = DELETE").fetchone()
        except sqlite3.OperationalError as error:
            raise Busy(f"another process has {database} open", hint=HINT) from error
        except sqlite3.DatabaseError:  # damaged or foreign: nobody can be using it
            return
