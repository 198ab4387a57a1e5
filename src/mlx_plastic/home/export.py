"""A whole home in one file: memory, packs, nights, settings; no caches. Made while others chat."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mlx_plastic import __version__
from mlx_plastic.errors import BadArchive, Busy, NoRoom, PlasticError, Taken
from mlx_plastic.home.contents import carried, links
from mlx_plastic.home.files import sync, sync_folder
from mlx_plastic.home.locks import SEEN_S, locked
from mlx_plastic.home.place import Home
from mlx_plastic.home.tape import CHUNK, Writer, safe_name

FORMAT = "mlx-plastic home"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
HINT = "wait for it to end, then export again"
WAIT_S = 10.0
HALF = ".exporting"  # ends the name of a file that is being written; it is locked as long
NO_ROOM_TO_OPEN = "SQLITE_IOERR_SHMSIZE"  # opening takes a file of 32 kB, which a full disk has no room for
MOST_FILE = 8 * 2**30 - 1  # bytes; of a plain tar's header

Tick = Callable[[float, float, str], None]


@dataclass(frozen=True)
class Exported:
    """links: that were left out, since what they lead to lies elsewhere."""

    file: str
    files: int
    content_bytes: int
    size_bytes: int
    links: tuple[str, ...]


def export(home: Home, out: Path, *, tick: Tick | None = None) -> Exported:
    """Write the home to `out`: the same home gives the same bytes. No night and no change of packs meanwhile.

    SQLite files are copied by SQLite itself, so a chat may go on: into the cache, or beside `out` where the
    home's disk is too full for that. Raises Taken if there is something at `out`, Busy while a night runs,
    OSError for a full disk; then nothing is at `out`. What a killed export left, hidden files beside `out` or
    in the cache, the next one deletes; those in the cache a forget, too.
    """
    if out.exists() or out.is_symlink():
        raise Taken(f"{out} is there already", hint="choose another file; nothing is overwritten")
    if not out.parent.is_dir():
        raise PlasticError(f"there is no folder {out.parent}", hint="make it first")
    with (
        locked(home, "night", hint=HINT, wait_s=SEEN_S),
        locked(home, "packs", hint=HINT, wait_s=WAIT_S),
        locked(home, "config", hint=HINT, wait_s=WAIT_S),
        _beside(out) as file,
    ):
        listed = _write(home, file, _roomy(home, out.parent), tick or (lambda *_: None))
    sizes = [entry["bytes"] for entry in listed.values()]
    return Exported(str(out), len(listed), sum(sizes), out.stat().st_size, tuple(links(home)))


@contextlib.contextmanager
def _beside(out: Path) -> Iterator[IO[bytes]]:
    """A file that becomes `out` when all is written; readable by its owner only."""
    with _half(out.parent, out.name) as (file, name):
        yield file
        file.flush()
        sync(file.fileno())
        if out.exists():
            raise Taken(f"{out} is there already", hint="choose another file")
        os.replace(name, out)
    sync_folder(out.parent)


@contextlib.contextmanager
def _half(folder: Path, name: str) -> Iterator[tuple[IO[bytes], Path]]:
    """A hidden file, locked as long as it is written, and gone afterwards."""
    _sweep(folder)
    handle, half = tempfile.mkstemp(dir=folder, prefix=f".{name}.", suffix=HALF)
    try:
        with os.fdopen(handle, "r+b") as file:
            with contextlib.suppress(OSError):  # a file system without locks: then nobody deletes it
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file, Path(half)
    finally:
        _delete(Path(half))


def _delete(half: Path) -> None:
    """The file, and what SQLite has put beside it."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        Path(f"{half}{suffix}").unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Delete the half files of exports that were killed: the lock on such a file went with its process."""
    for left in folder.glob(f".*{HALF}"):
        with contextlib.suppress(OSError), open(left, "rb") as file:  # locked, or gone: it is somebody's
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _delete(left)


def sweep(home: Home) -> None:
    """Delete the copies of databases that a killed export left."""
    _sweep(home.cache)


def _roomy(home: Home, other: Path) -> Path:
    """Where copies of databases are made: in the cache, or in `other` if the disk is too full for that."""
    sweep(home)
    largest = max((path.stat().st_size for path in carried(home) if path.suffix == ".sqlite"), default=0)
    if shutil.disk_usage(home.root).free <= 2 * largest:  # what is in its write-ahead log comes to it
        return other
    home.cache.mkdir(parents=True, exist_ok=True)
    return home.cache


def _write(home: Home, file: IO[bytes], copies: Path, tick: Tick) -> dict[str, Any]:
    writer, listed = Writer(file), dict[str, Any]()
    paths = list(carried(home))
    total = sum(path.stat().st_size for path in paths)
    done = 0
    for path in paths:
        name = path.relative_to(home.root).as_posix()
        if not safe_name(name):
            raise BadArchive(f"{name!r} cannot be exported: the name is odd or too long", hint="rename it")
        if path.stat().st_size > MOST_FILE:
            raise BadArchive(f"{name} is larger than the 8 GiB that a tar holds", hint="move it elsewhere")
        with _opened(path, copies) as source:
            listed[name] = _copy(writer, name, source)
        done += listed[name]["bytes"]
        tick(done, total, f"{done / 1e6:.0f} MB")
    value = {"format": FORMAT, "format_version": FORMAT_VERSION, "plastic": __version__, "files": listed}
    text = (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode("utf-8")
    writer.begin(MANIFEST, len(text))
    writer.write(text)
    writer.close()
    return listed


@contextlib.contextmanager
def _opened(path: Path, copies: Path) -> Iterator[IO[bytes]]:
    """The file, or of a database a copy as of one moment."""
    if path.suffix != ".sqlite":
        with open(path, "rb") as file:
            yield file
        return
    with _half(copies, path.name) as (file, copy):
        try:
            _backup(path, copy)
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            hint = (
                f"free space at {copies}, as much as it takes"
                if full
                else "see whether it is damaged: plastic memory stats"
            )
            raise BadArchive(f"{path} cannot be copied: {error}", hint=hint) from error
        yield file


def _backup(path: Path, copy: Path) -> None:
    """The database as of one moment, in one file with nothing beside it."""
    try:
        with (
            contextlib.closing(sqlite3.connect(path)) as source,
            contextlib.closing(sqlite3.connect(copy)) as to,
        ):
            source.backup(to)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname != NO_ROOM_TO_OPEN:  # else nobody has it open
            raise
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
    with contextlib.closing(sqlite3.connect(copy)) as to:
        to.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()  # nobody else has it: no such file is needed
        to.execute("PRAGMA journal_mode = DELETE").fetchone()


def _copy(writer: Writer, name: str, source: IO[bytes]) -> dict[str, Any]:
    """As many bytes as the file has now: what is appended meanwhile is not in it."""
    size = left = os.fstat(source.fileno()).st_size
    digest = hashlib.sha256()
    writer.begin(name, size)
    while left:
        if not (data := source.read(min(CHUNK, left))):
            raise Busy(f"{name} became shorter while it was read", hint="export again")
        digest.update(data)
        writer.write(data)
        left -= len(data)
    return {"sha256": digest.hexdigest(), "bytes": size}


def room_for(folder: Path, size_bytes: int) -> None:
    """Raises NoRoom if that many bytes do not fit on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if free < size_bytes:
        raise NoRoom(
            f"{size_bytes / 1e6:.0f} MB are needed at {folder}, and {free / 1e6:.0f} MB are free",
            hint="free some space, or choose another home with --home DIR",
        )
