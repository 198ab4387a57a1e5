"""An exported home back into an empty one: all is checked before anything is there, then it is at once."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_plastic.errors import BadArchive, PlasticError, Taken
from mlx_plastic.home.contents import DATA, REMADE
from mlx_plastic.home.export import FORMAT, FORMAT_VERSION, MANIFEST, Tick, room_for
from mlx_plastic.home.files import sync, sync_folder
from mlx_plastic.home.place import Home
from mlx_plastic.home.tape import folded, reading, safe_name

MOST_FILES = 200_000
MOST_BYTES = 20 * 10**9  # of all files, unpacked
MOST_MANIFEST = 64 * 10**6
STAGED = ".importing"


@dataclass(frozen=True)
class Archive:
    """What an export holds. files: name -> sha256 and bytes. plastic: the version that made it."""

    path: Path
    files: dict[str, tuple[str, int]]
    plastic: str

    @property
    def content_bytes(self) -> int:
        return sum(size for _, size in self.files.values())


def read_archive(path: Path, *, most_bytes: int = MOST_BYTES, tick: Tick | None = None) -> Archive:
    """Read an export from its first to its last byte, writing nothing.

    Raises BadArchive for names that lead elsewhere, links, more than `most_bytes` or 200,000 files, a torn or
    changed file, another format; PlasticError if it cannot be read.
    """
    found, seen, manifest, total = dict[str, tuple[str, int]](), set[str](), b"", 0
    size_bytes = path.stat().st_size
    with reading(path) as members:
        for name, size, data in members:
            total += size
            if manifest:
                raise _bad(path, "something stands behind its manifest")
            if total > most_bytes or len(found) >= MOST_FILES:
                raise _bad(path, f"it is too large: {total / 1e9:.1f} GB in {len(found)} files and more")
            if name == MANIFEST:
                if size > MOST_MANIFEST:
                    raise _bad(path, "its manifest is too large")
                manifest = b"".join(data)
                continue
            _check_name(path, name, seen)
            digest = hashlib.sha256()
            for chunk in data:
                digest.update(chunk)
            found[name] = (digest.hexdigest(), size)
            if tick is not None:
                tick(members.position, size_bytes, f"{total / 1e6:.0f} MB")
    if not manifest:
        raise _bad(path, "it has no manifest: it is torn, or no export of ours")
    return Archive(path, found, _compared(path, manifest, found))


def _bad(path: Path, what: str) -> BadArchive:
    return BadArchive(f"{path.name} is not taken in: {what}", hint="nothing was written")


def _check_name(path: Path, name: str, seen: set[str]) -> None:
    if not safe_name(name):
        raise _bad(path, f"{name[:80]!r} could lead out of the home")
    if name.split("/")[0] not in DATA:
        raise _bad(path, f"{name[:80]!r} belongs in no home")
    parts = folded(name).split("/")
    above = {"/".join(parts[:i]) + "/" for i in range(1, len(parts))}  # folders are noted with a slash
    here = folded(name)
    if here in seen or f"{here}/" in seen or any(folder[:-1] in seen for folder in above):
        raise _bad(path, f"{name[:80]!r} is there twice")
    seen |= {here, *above}


def _compared(path: Path, manifest: bytes, found: dict[str, tuple[str, int]]) -> str:
    """The version that made it, if the manifest lists these very files."""
    try:
        value: dict[str, Any] = json.loads(manifest)
        listed = {name: (entry["sha256"], entry["bytes"]) for name, entry in value["files"].items()}
        ours, version = value["format"] == FORMAT, value["format_version"]
        plastic = str(value["plastic"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _bad(path, f"its manifest cannot be read ({type(error).__name__})") from error
    if not ours or version != FORMAT_VERSION:
        raise _bad(path, f"it has the format {version!r}, and this version reads {FORMAT_VERSION}")
    if listed != found:
        wrong = sorted(set(listed.items()) ^ set(found.items()))
        raise _bad(path, f"{wrong[0][0]!r} is not what the manifest says")
    return plastic


def require_empty(home: Home) -> None:
    """Raises Taken if something is in the home: two homes are never merged."""
    there = sorted(p.name for p in home.root.iterdir() if p.name not in REMADE or p.is_symlink())
    if there:
        some = ", ".join([*there[:3], *(["..."] if there[3:] else [])])
        raise Taken(
            f"{home.root} is not empty ({some}), and homes are never merged",
            hint="choose another: plastic --home DIR import FILE; for talks alone: plastic memory import",
        )


def restore(
    archive: Archive, home: Home, *, check: Callable[[Home], None] | None = None, tick: Tick | None = None
) -> None:
    """Put the archive's files into an empty home, all or none.

    check: given the home as it will be, before it is there; raises if it is of no use. What a crash leaves is
    a hidden folder beside the home, which the next import deletes.
    Raises Taken if the home is not empty, BadArchive if the file was changed since it was read.
    """
    require_empty(home)
    root = home.root
    if os.path.ismount(root):
        raise PlasticError(f"{root} is a mount point", hint="choose a folder in it: --home DIR")
    room_for(root.parent, archive.content_bytes)
    with _staged(root) as staged:
        _unpack(archive, staged, tick or (lambda *_: None))
        if check is not None:
            check(Home(staged))
        for name in REMADE:
            shutil.rmtree(staged / name, ignore_errors=True)
        _switch(staged, home)


@contextmanager
def _staged(root: Path) -> Iterator[Path]:
    _sweep(root)
    staged = root.parent / f".{root.name}.{os.getpid()}{STAGED}"
    staged.mkdir(mode=0o700)
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Delete what imports left that were killed."""
    for left in root.parent.glob(f".{root.name}.*{STAGED}"):
        process = re.fullmatch(r"(\d+)", left.name.removeprefix(f".{root.name}.").removesuffix(STAGED))
        if process and not _runs(int(process[1])):
            shutil.rmtree(left, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def _unpack(archive: Archive, staged: Path, tick: Tick) -> None:
    done, left = 0, dict(archive.files)
    with reading(archive.path) as members:
        for name, size, data in members:
            if name == MANIFEST:
                break
            wanted = left.pop(name, None)
            if wanted is None or wanted[1] != size:
                raise _bad(archive.path, "it was changed while it was read")
            path = staged / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                for chunk in data:
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                sync(file.fileno())
            if digest.hexdigest() != wanted[0]:
                raise _bad(archive.path, "it was changed while it was read")
            done += size
            tick(done, archive.content_bytes, f"{done / 1e6:.0f} MB")
    if left:
        raise _bad(archive.path, "it was changed while it was read")


def _switch(staged: Path, home: Home) -> None:
    """By one rename, which only an empty folder yields to; of two imports at once one after the other."""
    sync_folder(staged)
    with _alone_in(home.root.parent):
        require_empty(home)  # else what another import has just put there would lose its locks
        for name in REMADE:
            shutil.rmtree(home.root / name, ignore_errors=True)
        try:
            os.rename(staged, home.root)
        except OSError as error:
            raise Taken(
                f"{home.root} is not empty any more", hint="import into another: --home DIR"
            ) from error
    sync_folder(home.root.parent)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait for other imports into a home in this folder; the lock lies on the folder, and goes with us."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
