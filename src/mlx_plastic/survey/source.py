"""Where a checkpoint lies: a folder, one file, or anything that fsspec can open; read by byte ranges."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mlx_plastic.errors import BadCheckpoint, BaseNotFound, NotInstalled


class Source(Protocol):
    """The files of a checkpoint, by name. Raises BadCheckpoint where one cannot be read."""

    where: str

    def sizes(self, extensions: Sequence[str]) -> dict[str, int]:
        """Bytes of each file with such an ending, by name."""

    def read(self, name: str, start: int, stop: int, into: memoryview | None = None) -> bytes | memoryview:
        """So many bytes, never fewer. into: of that length; used where the bytes can go there at once."""

    def stamp(self, name: str) -> list[Any]:
        """What changes when the file does."""

    def open(self, name: str) -> io.IOBase: ...

    def close(self) -> None: ...


class LocalSource:
    """A folder, or one file of it."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._only = path.name if path.is_file() else None
        self._folder = path.parent if path.is_file() else path
        self._handles: dict[str, int] = {}

    def sizes(self, extensions: Sequence[str]) -> dict[str, int]:
        wanted = tuple(extensions)
        files = (self._folder / self._only,) if self._only else sorted(self._folder.iterdir())
        return {f.name: f.stat().st_size for f in files if f.name.endswith(wanted) and f.is_file()}

    def read(self, name: str, start: int, stop: int, into: memoryview | None = None) -> memoryview:
        """pread, not mmap: a file that shrinks meanwhile is then an error and no crash."""
        data = (
            np.empty(stop - start, np.uint8).data if into is None else into
        )  # a bytearray would be zeroed first
        at = 0
        try:
            if name not in self._handles:
                self._handles[name] = os.open(self._folder / name, os.O_RDONLY)
            while at < len(data):
                got = os.preadv(self._handles[name], [data[at : at + (1 << 30)]], start + at)
                if not got:
                    raise BadCheckpoint(f"{name} ends at byte {start + at}: it shrank while it was read")
                at += got
        except OSError as error:
            raise BadCheckpoint(f"{name} cannot be read ({error.strerror})") from error
        return data

    def stamp(self, name: str) -> list[Any]:
        s = (self._folder / name).stat()
        return [s.st_size, s.st_mtime_ns, s.st_ino]

    def open(self, name: str) -> io.IOBase:
        return open(self._folder / name, "rb")

    def close(self) -> None:
        while self._handles:
            os.close(self._handles.popitem()[1])


class RemoteSource:
    """A URL that fsspec knows (s3://, gs://, https://, hf://, memory:// …); a byte range a request."""

    def __init__(self, url: str) -> None:
        self.where = url
        fsspec = _fsspec()
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
            self._only = None if self._fs.isdir(self._root) else self._root.rpartition("/")[2]
            self._folder = self._root.rpartition("/")[0] if self._only else self._root.rstrip("/")
            if self._only and not self._fs.exists(self._root):
                raise FileNotFoundError(url)
        except Exception as error:  # file systems raise errors of their own, as of missing credentials
            raise BaseNotFound(
                f"cannot open {url}: {error}", hint="check the URL, its package and your credentials"
            ) from error

    def sizes(self, extensions: Sequence[str]) -> dict[str, int]:
        names = [self._root] if self._only else self._fs.ls(self._folder, detail=False)
        found = sorted(n for n in names if n.endswith(tuple(extensions)))
        return {n.rstrip("/").rpartition("/")[2]: int(self._fs.size(n)) for n in found}

    def read(self, name: str, start: int, stop: int, into: memoryview | None = None) -> bytes:
        if start == stop:
            return b""
        try:
            data: bytes = self._fs.cat_file(self._path(name), start=start, end=stop)
        except Exception as error:
            raise BadCheckpoint(f"{name} cannot be read from {self.where} ({error})") from error
        if len(data) != stop - start:
            raise BadCheckpoint(f"{name} gave {len(data)} of {stop - start} bytes at {start}")
        return data

    def stamp(self, name: str) -> list[Any]:
        info = self._fs.info(self._path(name))
        return [info.get("size"), str(info.get("ETag") or info.get("etag") or info.get("mtime") or "")]

    def open(self, name: str) -> io.IOBase:
        found: io.IOBase = self._fs.open(self._path(name), "rb")
        return found

    def close(self) -> None:
        """fsspec keeps its connections for others."""

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"


def _fsspec() -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise NotInstalled("a URL needs fsspec", hint="pip install fsspec") from error
    return fsspec


def open_source(path: str) -> Source:
    """Raises BaseNotFound if there is nothing at `path`."""
    if not path:
        raise BaseNotFound("no model is named", hint='set "model_path" or give --model PATH')
    if "://" in path:
        return RemoteSource(path)
    local = Path(path).expanduser()
    if not local.exists():
        raise BaseNotFound(f"nothing at {path}", hint="give a folder, a file or a URL, as hf://org/name")
    return LocalSource(local.resolve())


def read_json(source: Source, name: str) -> Any:
    """A small JSON file beside the shards; None if there is none. Raises ValueError if it is no JSON."""
    size = source.sizes([name]).get(name)
    if size is None:
        return None
    return json.loads(bytes(source.read(name, 0, size)))
