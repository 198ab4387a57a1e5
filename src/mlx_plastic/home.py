"""The home folder: where a person's memory, packs and nights live, and how files get there whole."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import json
import os
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import platformdirs
from filelock import FileLock, Timeout

from mlx_plastic.errors import BadConfig, Busy, PlasticError

HOME_VARIABLE = "MLX_PLASTIC_HOME"
SEEN_S = 0.2  # longer than `is_locked` holds a lock: who waits so long is not refused for being looked at

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Home:
    """One person's folder. Rooms ask it for paths; nobody joins strings elsewhere."""

    root: Path

    @property
    def config_file(self) -> Path:
        return self.root / "config.toml"

    @property
    def memory_db(self) -> Path:
        return self.root / "memory" / "log.sqlite"

    @property
    def memory_index(self) -> Path:
        return self.root / "memory" / "index.sqlite"

    @property
    def packs(self) -> Path:
        return self.root / "packs"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    @property
    def nights(self) -> Path:
        return self.root / "nights"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def lock_file(self, what: str) -> Path:
        return self.root / "locks" / f"{what}.lock"


def find_home(explicit: str | Path | None = None) -> Home:
    """The home named on the command line, else by MLX_PLASTIC_HOME, else the platform's data folder.

    The folder is made (0700: it holds what a person said). Raises PlasticError if it cannot be.
    """
    named = explicit or os.environ.get(HOME_VARIABLE)
    root = Path(named).expanduser() if named else Path(platformdirs.user_data_dir("mlx-plastic"))
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PlasticError(
            f"cannot make the home folder {root}: {error.strerror}",
            hint=f"choose another with --home DIR or {HOME_VARIABLE}=DIR",
        ) from error
    return Home(root.resolve())


def settings(home: Home, section: str, kind: type[T]) -> T:
    """[section] of config.toml as the frozen dataclass `kind`; absent keys keep their defaults.

    Raises BadConfig for broken TOML, an unknown key (the nearest known one is named) or a value
    of another type than the default's.
    """
    given = _read_toml(home.config_file).get(section, {})
    if not isinstance(given, dict):
        raise BadConfig(f"{home.config_file}: {section} must be a table", hint=f"write [{section}]")
    return from_mapping(kind, given, where=f"{home.config_file} [{section}]")


def from_mapping(kind: type[T], given: Mapping[str, Any], *, where: str) -> T:
    """A frozen dataclass from a mapping of its fields, with the errors of `settings`."""
    hints = get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key, value in given.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
            raise BadConfig(f"{where}: unknown key {key!r}", hint=meant)
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


def _read_toml(path: Path) -> dict[str, Any]:
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


def sync(descriptor: int) -> None:
    """Force a file's bytes to the disk itself; macOS needs more than fsync for that."""
    if sys.platform == "darwin":  # fsync there stops at the drive's cache
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside, fsync, rename: a crash or a full disk leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            sync(file.fileno())
        os.replace(beside, path)
        sync_folder(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """`value` as readable JSON, atomically. NaN and infinities are refused: JSON has none."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode("utf-8"))


def append_line(path: Path, value: Any) -> None:
    """One JSON object more at the end of a JSONL file, whole and synced, or not at all.

    What a crash left of an earlier line stays a bad line of its own. Raises OSError if the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        end = os.fstat(descriptor).st_size
        if end and os.pread(descriptor, 1, end - 1) != b"\n":
            line = b"\n" + line
        if os.write(descriptor, line) < len(line):
            os.ftruncate(descriptor, end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        sync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(home: Home, what: str, *, hint: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the home's lock `what`; it goes with the process, so a crash leaves none behind.

    Raises Busy if another process holds it for longer than `wait_s` seconds.
    """
    path = home.lock_file(what)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout as error:
        raise Busy(f"another process holds the lock {what!r} of {home.root}", hint=hint) from error
    try:
        yield
    finally:
        lock.release()


def is_locked(home: Home, what: str) -> bool:
    """Whether anybody holds the home's lock `what` now.

    It is taken for a moment to find out, so a lock that is looked at is to be taken with `wait_s` SEEN_S.
    """
    path = home.lock_file(what)
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
