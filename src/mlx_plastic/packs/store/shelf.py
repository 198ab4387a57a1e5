"""The folder that holds the packs: what lies in it, how one leaves it, and what a crash left behind."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from mlx_plastic.packs.format.manifest import is_name


def folders(shelf: Path) -> list[str]:
    """The name of every folder on the shelf, sorted, also of those that are no pack."""
    if not shelf.is_dir():
        return []
    return sorted(p.name for p in shelf.iterdir() if p.is_dir() and not p.name.startswith("."))


def own(shelf: Path) -> list[str]:
    """The folders that may be deleted: named as packs are, and no links to something elsewhere."""
    return [name for name in folders(shelf) if is_name(name) and not (shelf / name).is_symlink()]


def age_days(folder: Path) -> float:
    """Since when the folder is what it is, whatever the pack in it says of itself."""
    return max(0.0, (time.time() - folder.stat().st_mtime) / 86_400)


def size(folder: Path) -> int:
    """Bytes of the files in the folder."""
    return sum(file.lstat().st_size for file in folder.iterdir())


def set_aside(folder: Path) -> Path:
    """Take a folder off the shelf by one rename, under a name that `sweep` deletes; returns where it is."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    os.replace(folder, aside)
    return aside


def sweep(shelf: Path) -> None:
    """Delete what was set aside or half written. Nobody may be writing meanwhile."""
    for leftover in shelf.glob(".*.part"):
        delete(leftover)


def delete(path: Path) -> None:
    """A file, a link or a folder; what cannot be deleted now is swept later."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
