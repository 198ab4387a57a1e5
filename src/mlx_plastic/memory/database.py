"""The SQLite file under the log: a commit is on the disk, formats are numbered, faults come in words."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from mlx_plastic.errors import Busy, MemoryFault, PlasticError
from mlx_plastic.home import sync, sync_folder

APPLICATION_ID = 0x706C6173  # "plas", in the file's header
BUSY_S = 10.0  # how long a writer waits for another one
POLL_S = 0.002  # how often it looks whether it may go on
LOOK = "check the folder's owner, modes and space"
AGAIN = "then plastic memory forget --resume, or forget the same turns again"

# Migration k brings a file from format k to k + 1. Old ones are never edited: files of that format exist.
MIGRATIONS = (
    """
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY,
        origin TEXT NOT NULL CHECK (origin IN ('chat', 'import')),
        created_at TEXT NOT NULL,
        forgotten INTEGER NOT NULL DEFAULT 0  -- turns that were here once
    );
    CREATE TABLE turns (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order of saying; never reused
        id TEXT NOT NULL UNIQUE,
        conversation TEXT NOT NULL REFERENCES conversations (id),
        role TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant')),
        content TEXT NOT NULL,
        created_at TEXT NOT NULL,  -- ISO 8601, UTC
        origin TEXT NOT NULL CHECK (origin IN ('chat', 'import')),
        worn TEXT NOT NULL DEFAULT '[]',  -- JSON list: packs on the base when it was said
        interrupted INTEGER NOT NULL DEFAULT 0,
        undone INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX turns_of ON turns (conversation, seq);
    CREATE TABLE tags (
        turn TEXT NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
        tag TEXT NOT NULL,
        PRIMARY KEY (turn, tag)
    ) WITHOUT ROWID;
    CREATE TABLE learned (  -- outlives the turn: which nights to mend after a forget
        turn TEXT NOT NULL,
        night TEXT NOT NULL,
        PRIMARY KEY (turn, night)
    ) WITHOUT ROWID;
    CREATE TABLE imports (
        digest BLOB PRIMARY KEY,  -- keyed: see `secret`
        conversation TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE audit (  -- ids, kinds and counts; never text
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT NOT NULL,
        action TEXT NOT NULL,
        kind TEXT NOT NULL DEFAULT '',
        turn TEXT NOT NULL DEFAULT '',
        count INTEGER NOT NULL DEFAULT 1
    );
    CREATE TABLE secret (key BLOB NOT NULL);
    INSERT INTO secret VALUES (randomblob(32));
    """,
    """
    CREATE TABLE routes (  -- where the router sent a turn, and why; goes with the turn
        turn TEXT PRIMARY KEY REFERENCES turns (id) ON DELETE CASCADE,
        route TEXT NOT NULL CHECK (route IN ('weights', 'retrieval', 'both', 'neither')),
        score REAL NOT NULL,
        decided_by TEXT NOT NULL CHECK (decided_by IN ('router', 'rule', 'tag', 'person')),
        reasons TEXT NOT NULL,  -- JSON list of names, never text
        abstained INTEGER NOT NULL,
        at TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE labels (  -- what the person said instead
        turn TEXT PRIMARY KEY REFERENCES turns (id) ON DELETE CASCADE,
        route TEXT NOT NULL CHECK (route IN ('weights', 'retrieval', 'both', 'neither'))
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE redactions (  -- what privacy did to a turn on its way; outlives it; never text
        turn TEXT NOT NULL,
        destination TEXT NOT NULL CHECK (destination IN ('storage', 'index', 'training')),
        kind TEXT NOT NULL,
        action TEXT NOT NULL CHECK (action IN ('mask', 'drop')),
        count INTEGER NOT NULL,
        at TEXT NOT NULL,
        PRIMARY KEY (turn, destination, kind, action)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE redactions RENAME TO earlier;
    CREATE TABLE redactions (  -- as before, and who found it: the detectors, or the second reader
        turn TEXT NOT NULL,
        destination TEXT NOT NULL CHECK (destination IN ('storage', 'index', 'training')),
        kind TEXT NOT NULL,
        action TEXT NOT NULL CHECK (action IN ('mask', 'drop')),
        count INTEGER NOT NULL,
        at TEXT NOT NULL,
        found_by TEXT NOT NULL DEFAULT 'detectors',
        PRIMARY KEY (turn, destination, kind, action, found_by)
    ) WITHOUT ROWID;
    INSERT INTO redactions SELECT *, 'detectors' FROM earlier;
    DROP TABLE earlier;
    """,
)


def connect(path: Path | None) -> sqlite3.Connection:
    """A connection to the log at `path`, made or migrated if need be; None: one that lives in RAM only.

    Every commit is on the disk when it returns. Raises MemoryFault for a file that is damaged, foreign
    or of a newer format; none of them is ever replaced by an empty one.
    """
    where = "the log" if path is None else str(path)
    with plainly(where):
        if path is not None:
            _make_sure(path)
        db = _open(":memory:" if path is None else str(path))
        try:
            if path is None:
                _migrate(db, where)
            else:
                _check(db, where)
                db.execute("PRAGMA journal_mode = WAL").fetchone()
                _migrate(db, where)
                for file in files(path):
                    with contextlib.suppress(FileNotFoundError):
                        file.chmod(0o600)
        except BaseException:
            db.close()
            raise
        return db


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing; takes the write lock at once, so two writers wait instead of colliding."""
    _begin(db)
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _begin(db: sqlite3.Connection) -> None:
    """Take the write lock, within the connection's timeout.

    SQLite's own waiting soon looks every 100 ms only, and so misses the moments between the transactions of
    one that makes many: another process came in after up to 188 of them, or not at all within its timeout.
    """
    (wait_ms,) = db.execute("PRAGMA busy_timeout").fetchone()
    until = time.monotonic() + wait_ms / 1000
    db.execute("PRAGMA busy_timeout = 0").fetchall()
    try:
        while not _began(db, last=time.monotonic() > until):
            time.sleep(POLL_S)
    finally:
        db.execute(f"PRAGMA busy_timeout = {wait_ms}").fetchall()


def _began(db: sqlite3.Connection, *, last: bool) -> bool:
    try:
        db.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if last or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


@contextlib.contextmanager
def plainly(where: str) -> Iterator[None]:
    """Turn SQLite's errors into ours. Its messages name tables and causes, never a value."""
    try:
        yield
    except PlasticError:
        raise
    except sqlite3.Error as error:
        raise _fault(where, error) from error
    except OSError as error:
        raise MemoryFault(f"cannot use the memory log {where}: {error.strerror}", hint=LOOK) from error


def _fault(where: str, error: sqlite3.Error) -> PlasticError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Busy(
            f"another process has been writing to {where} for over {BUSY_S:.0f} s",
            hint="wait for it, or end it; nothing was written",
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return MemoryFault(f"the memory log {where} is damaged ({error})", hint=_mend(where))
    if code == sqlite3.SQLITE_FULL:
        return MemoryFault(
            f"no space left for {where}; what was just being added is not in it", hint="free some disk space"
        )
    return MemoryFault(f"cannot use the memory log {where}: {error}", hint=LOOK)


def _mend(where: str) -> str:
    return f"restore it from a backup, or save what can be read: sqlite3 {where} .recover; then move it away"


def _open(name: str) -> sqlite3.Connection:
    # check_same_thread: a server answers on several threads; Memory holds a lock around every use
    db = sqlite3.connect(name, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    for pragma in (
        "synchronous = FULL",
        "fullfsync = ON",  # macOS: fsync there stops at the drive's cache; no effect elsewhere
        "checkpoint_fullfsync = ON",
        "foreign_keys = ON",
        "secure_delete = ON",  # what is deleted is overwritten
        "temp_store = MEMORY",  # no chat text in the system's temporary folder
    ):
        db.execute(f"PRAGMA {pragma}")
    return db


def _make_sure(path: Path) -> None:
    """A log at `path`: the one that is there, or a new one, whole from the first moment it can be seen."""
    if path.exists():
        if path.stat().st_size == 0:  # we never make one: see below
            raise MemoryFault(f"the memory log {path} is empty: it was cut off", hint=_mend(str(path)))
        return
    if (wal := path.with_name(path.name + "-wal")).exists():
        raise MemoryFault(f"the memory log {path} is gone, but {wal.name} is there", hint=_mend(str(path)))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with contextlib.closing(_open(str(beside))) as db:
            _migrate(db, str(path))
            db.execute("PRAGMA journal_mode = WAL").fetchone()  # of two that turn it at once, one is refused
        with beside.open("rb") as file:
            sync(file.fileno())
        _publish(beside, path)
        sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _publish(beside: Path, path: Path) -> None:
    try:
        os.link(beside, path)  # unlike a rename, never onto a log that another process has just made
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        beside.rename(path)


def _check(db: sqlite3.Connection, where: str) -> None:
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise MemoryFault(
            f"{where} is a database, but no memory log", hint="move it away, or use another --home"
        )


def _migrate(db: sqlite3.Connection, where: str) -> None:
    """Bring the file to the newest format in one transaction, or leave it as it was."""

    def version() -> int:
        return int(db.execute("PRAGMA user_version").fetchone()[0])

    if version() > len(MIGRATIONS):
        raise MemoryFault(
            f"{where} has format {version()}; this version reads up to {len(MIGRATIONS)}",
            hint="upgrade mlx-plastic, or choose another --home",
        )
    if version() == len(MIGRATIONS):
        return
    with transaction(db):
        # the version is read again, under the lock: another process may have been first
        for script in MIGRATIONS[version() :]:
            for statement in _statements(script):
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _statements(script: str) -> Iterator[str]:
    """One by one: executescript would commit in between."""
    part = ""
    for piece in script.split(";"):
        part += piece + ";"
        if sqlite3.complete_statement(part):
            yield part
            part = ""


def files(path: Path | None) -> list[Path]:
    """What there is of a database: itself and, while it is open, its journal and shared memory."""
    beside = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")] if path else []
    return [file for file in beside if file.exists()]
