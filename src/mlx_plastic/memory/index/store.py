"""The SQLite file under the index: what can be found, in one place that two processes may share.

Everything in it can be made again from the log, so a damaged or foreign one is replaced rather than mended.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from mlx_plastic.errors import Busy, MemoryFault
from mlx_plastic.memory.database import AGAIN, LOOK, files, transaction

__all__ = [
    "Damaged",
    "connect",
    "count",
    "files",
    "identity",
    "plainly",
    "reading",
    "replace",
    "transaction",
    "wipe",
]

APPLICATION_ID = 0x706C6978  # "plix", in the file's header
FORMAT_VERSION = 1
BUSY_S = 30.0  # how long a writer waits for another one
PAGE_BYTES = 16384  # a chunk's vectors lie on one page: half the reads of SQLite's 4096

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    turn TEXT NOT NULL UNIQUE,
    conversation TEXT NOT NULL,
    place INTEGER NOT NULL,
    at TEXT,  -- ISO 8601
    speaker TEXT NOT NULL,
    worn TEXT NOT NULL,  -- JSON list
    tags TEXT NOT NULL,  -- JSON list
    same_as INTEGER REFERENCES items (id),  -- what says the same; then it has no chunks
    pruned INTEGER NOT NULL DEFAULT 0,  -- taken out, not to come back by itself
    hits INTEGER NOT NULL DEFAULT 0,
    last_hit TEXT
);
CREATE INDEX items_in ON items (conversation, place);
CREATE INDEX items_same ON items (same_as) WHERE same_as IS NOT NULL;
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again: a reader asks for what is newer than it knows
    item INTEGER NOT NULL REFERENCES items (id) ON DELETE CASCADE,
    piece INTEGER NOT NULL,
    text TEXT NOT NULL,
    terms BLOB NOT NULL,  -- uint32 hashes in order, those of date and speaker first
    marks INTEGER NOT NULL  -- bits: see corpus.QUESTION, corpus.TIME
);
CREATE INDEX chunks_of ON chunks (item);
CREATE TABLE bands (  -- MinHash keys, to meet what says the same
    key INTEGER NOT NULL,
    chunk INTEGER NOT NULL REFERENCES chunks (id) ON DELETE CASCADE,
    PRIMARY KEY (key, chunk)
) WITHOUT ROWID;
CREATE INDEX bands_of ON bands (chunk);
CREATE TABLE vectors (  -- of chunks as wholes
    chunk INTEGER PRIMARY KEY REFERENCES chunks (id) ON DELETE CASCADE,
    embedder TEXT NOT NULL,
    pooled BLOB NOT NULL,  -- float16
    tokens INTEGER NOT NULL  -- how many
);
CREATE INDEX vectors_of ON vectors (embedder, chunk);
CREATE TABLE tokens (  -- apart from these, which are all read at the start
    chunk INTEGER PRIMARY KEY REFERENCES vectors (chunk) ON DELETE CASCADE,
    vectors BLOB NOT NULL,  -- int8, a row a token
    scales BLOB NOT NULL  -- float16, what each row is to be multiplied with
);
INSERT INTO meta VALUES ('origin', 0), ('removals', 0), ('embeddings', 0), ('log_seq', 0), ('audit_seq', 0);
"""


Identity = tuple[int, int] | None  # device and inode


class Damaged(Exception):
    """The file is no index that this version can read. Caught in this room: the index is made anew."""


def connect(path: Path | None) -> tuple[sqlite3.Connection, Identity]:
    """A connection to the index at `path`, made if need be, and which file it is; None: in RAM.

    Raises Damaged for a file that cannot be used, MemoryFault or Busy if the disk or another process
    are in the way.
    """
    with plainly(path):
        if path is not None and not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _alone(path):
                if not path.exists():  # another process may have been first
                    _make(path)
        known = identity(path)  # before it is opened: replaced in between, it counts as replaced
        db = _open(path)
        try:
            if path is None:
                _fill(db)
            _check(db)
        except BaseException:
            db.close()
            raise
        return db, known


def identity(path: Path | None) -> Identity:
    """Which file lies at `path`: another one, once a process has made the index anew."""
    if path is None:
        return None
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def replace(path: Path, known: Identity) -> None:
    """Make the index at `path` anew, unless another process did so since it was `known`."""
    with plainly(path), _alone(path):
        if identity(path) == known:
            _make(path)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While no other process makes or replaces this file."""
    with FileLock(path.with_name(f".{path.name}.lock"), mode=0o600).acquire(poll_interval=0.005):
        yield


def _make(path: Path) -> None:
    """An empty index at `path`, whole from the first moment that another process can see it.

    Two processes that turn one new file to WAL at once may both hold what the other waits for; SQLite then
    refuses one of them at once, whatever its timeout is. So that is done where nobody sees the file.
    """
    beside = path.with_name(f".{path.name}.part")
    _remove(beside)
    os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))  # private from its first moment
    with contextlib.closing(_open(beside)) as db:
        _fill(db)
    _remove(path)  # a journal that outlived its file would be read into the new one
    beside.rename(path)


def _open(path: Path | None) -> sqlite3.Connection:
    # check_same_thread: Index holds a lock around every use
    db = sqlite3.connect(path or ":memory:", timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        for pragma in (
            f"page_size = {PAGE_BYTES}",  # before the first table
            "synchronous = NORMAL",  # a power cut may lose the last moments; they come again from the log
            "foreign_keys = ON",
            "secure_delete = ON",
            "temp_store = MEMORY",
            "cache_size = -32768",  # 32 MiB
        ):
            db.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        db.close()
        raise
    return db


def _fill(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    with transaction(db):
        for statement in filter(str.strip, SCHEMA.split(";\n")):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {FORMAT_VERSION}")


def _check(db: sqlite3.Connection) -> None:
    if _number(db, "application_id") != APPLICATION_ID:
        raise Damaged("it holds something else, or nothing")
    if (version := _number(db, "user_version")) != FORMAT_VERSION:
        raise Damaged(f"it has format {version}, and this version makes {FORMAT_VERSION}")


def _number(db: sqlite3.Connection, pragma: str) -> int:
    return int(db.execute(f"PRAGMA {pragma}").fetchone()[0])


def count(db: sqlite3.Connection, key: str, by: int = 1) -> None:
    """Move one of the file's counters, by which readers see that something changed."""
    db.execute("UPDATE meta SET value = value + ? WHERE key = ?", [by, key])


@contextlib.contextmanager
def reading(db: sqlite3.Connection) -> Iterator[None]:
    """Several looks at one and the same state of the file."""
    if db.in_transaction:
        yield
        return
    db.execute("BEGIN")
    try:
        yield
    finally:
        if db.in_transaction:  # SQLite itself ends it where the disk fails, and that is the error to tell
            db.execute("ROLLBACK")


@contextlib.contextmanager
def plainly(path: Path | None) -> Iterator[None]:
    """SQLite's errors as ours, and as Damaged where the file itself is at fault."""
    where = f"the index {path}" if path else "the index"
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or _is_stale(error, code):
            raise Damaged(str(error)) from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Busy(
                f"another process has been writing to {where} for over {BUSY_S:.0f} s",
                hint="wait for it, or end it; nothing was written",
            ) from error
        if code == sqlite3.SQLITE_FULL:
            raise MemoryFault(
                f"no space left for {where}; nothing was written", hint="free some disk space"
            ) from error
        raise MemoryFault(f"cannot use {where}: {error}", hint=LOOK) from error
    except OSError as error:
        raise MemoryFault(f"cannot use {where}: {error.strerror}", hint=LOOK) from error


def _is_stale(error: sqlite3.Error, code: int) -> bool:
    """A table or a column is missing: the file is not what its header says."""
    return code == sqlite3.SQLITE_ERROR and str(error).startswith(("no such", "table "))


def _remove(path: Path) -> None:
    """Take a file away, with what SQLite keeps beside it."""
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def wipe(db: sqlite3.Connection, path: Path | None) -> None:
    """Leave no deleted byte: rewrite the file without gaps, then empty its journal.

    Raises Busy if another process keeps old pages in use, MemoryFault if there is no space for it; what was
    deleted stays deleted.
    """
    with plainly(path):
        try:
            db.execute("VACUUM")
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                raise
            raise MemoryFault(
                f"it is deleted, but the index {path} could not be rewritten without its bytes",
                hint=f"free as much disk space as it takes; {AGAIN}",
            ) from error
        if db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise Busy(
                f"it is deleted, but another process still uses old pages of the index {path}",
                hint=f"end the programs that use this home; {AGAIN}",
            )
