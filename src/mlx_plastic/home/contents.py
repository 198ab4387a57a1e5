"""What lies in a home: what is the person's, what is made anew, and how large it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlx_plastic.home.place import Home

# what every room writes directly into a home; a test finds any that is missing here
DATA = {
    "config.toml": "settings",
    "demo.html": "the picture of a demo",
    "digest.md": "what the last nights brought",
    "forgetting.json": "a forget that is not finished",
    "keys.json": "hashes of the server's keys",
    "logs": "measurements and histories",
    "memory": "what was said",
    "nights": "samples and verdicts of nights",
    "packs": "packs",
    "runs": "surveys",
    "schedule.json": "when the last scheduled night ended",
}
REMADE = {
    "adapters": "the pack worn, in mlx-lm's format",
    "cache": "what can be computed again",
    "locks": "locks between processes",
}
PART = ".part"  # half written, or set aside to be deleted
JOURNALS = (".sqlite-wal", ".sqlite-shm", ".sqlite-journal")


@dataclass(frozen=True)
class Entry:
    """Something directly in a home. what: in a few words; "" if it is not ours."""

    name: str
    what: str
    files: int
    size_bytes: int
    is_link: bool = False


def entries(home: Home) -> list[Entry]:
    """All that lies in the home, ours or not, sorted by name."""
    if not home.root.is_dir():
        return []
    return [_entry(path) for path in sorted(home.root.iterdir())]


def _entry(path: Path) -> Entry:
    what = (DATA | REMADE).get(path.name) or ("half written" if is_part(path.name) else "")
    found = [path] if path.is_symlink() or not path.is_dir() else list(walk(path))
    return Entry(path.name, what, len(found), sum(size_of(file) for file in found), path.is_symlink())


def is_part(name: str) -> bool:
    """Whether it is a file of ours that was being written: `.<ours>.<process>.<thread>.part`."""
    whole = (DATA | REMADE).keys()
    return name.endswith(PART) and any(name.startswith(f".{one}.") for one in whole)


def size_of(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # gone meanwhile
        return 0


def walk(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is no folder, links themselves too, which are not followed."""
    for root, folders, files in os.walk(folder):
        for name in (*files, *(f for f in folders if os.path.islink(os.path.join(root, f)))):
            yield Path(root, name)


def carried(home: Home) -> Iterator[Path]:
    """The files that are the person's, sorted, without links, journals and what is half written."""
    found = []
    for name in DATA:
        path = home.root / name
        found += [path] if path.is_file() and not path.is_symlink() else list(walk(path))
    for path in sorted(found, key=lambda p: p.relative_to(home.root).as_posix()):
        parts = path.relative_to(home.root).parts
        left_out = any(part.endswith(PART) for part in parts) or path.name.endswith(JOURNALS)
        if not left_out and path.is_file() and not path.is_symlink():
            yield path


def links(home: Home) -> list[str]:
    """Links among what is the person's: what they lead to is not in the home."""
    found = [p for name in DATA for p in ([home.root / name], walk(home.root / name))]
    return sorted({p.relative_to(home.root).as_posix() for some in found for p in some if p.is_symlink()})
