"""Files in a gzipped tar of the plainest kind (ustar, regular files only), and back with suspicion.

The standard library's reader of whole archives follows extensions, links and sparse files that nobody here
writes; only its reading of one header is used.
"""

from __future__ import annotations

import gzip
import tarfile
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mlx_plastic.errors import BadArchive

BLOCK = 512
CHUNK = 1 << 20
LEVEL = 1  # packs hardly get smaller, and logs do at once
MOST_PADDING = 20 * BLOCK


class Writer:
    """Appends members; the same members give the same bytes."""

    def __init__(self, out: IO[bytes]) -> None:
        self._zip = gzip.GzipFile("", "wb", LEVEL, out, mtime=0)

    def begin(self, name: str, size: int) -> None:
        """A member of so many bytes, which `write` has to be given."""
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, 0
        self._zip.write(info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict"))
        self._left = size
        self._padding = -size % BLOCK

    def write(self, data: bytes) -> None:
        self._left -= len(data)
        assert self._left >= 0
        self._zip.write(data)
        if not self._left:
            self._zip.write(bytes(self._padding))

    def close(self) -> None:
        self._zip.write(bytes(2 * BLOCK))
        self._zip.close()


class Reader:
    """Members of an archive in their order. Raises BadArchive for what `Writer` would not have written."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name = file, name
        self._stream = gzip.GzipFile("", "rb", fileobj=file)

    @property
    def position(self) -> int:
        """Bytes of the archive itself that were read so far."""
        return self._file.tell()

    def __iter__(self) -> Iterator[tuple[str, int, Iterator[bytes]]]:
        """Name, size and bytes; the bytes have to be taken before the next."""
        while (block := self._exactly(BLOCK)) != bytes(BLOCK):
            name, size = self._header(block)
            yield name, size, self._data(size)
        end = self._read(MOST_PADDING + 1)
        if len(end) > MOST_PADDING or any(end) or len(end) < BLOCK:
            raise self._bad("something stands behind its end, or its end is missing")

    def _header(self, block: bytes) -> tuple[str, int]:
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError, ValueError) as error:
            raise self._bad("a header is damaged") from error
        if info.type != tarfile.REGTYPE or info.size < 0:
            raise self._bad(f"{info.name[:80]!r} is no regular file")
        return info.name, info.size

    def _data(self, size: int) -> Iterator[bytes]:
        for start in range(0, size, CHUNK):
            yield self._exactly(min(CHUNK, size - start))
        if any(self._exactly(-size % BLOCK)):
            raise self._bad("something stands between two files")

    def _exactly(self, size: int) -> bytes:
        data = self._read(size)
        if len(data) < size:
            raise self._bad("it ends in the middle")
        return data

    def _read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self._bad("it is torn or no gzip file") from error

    def _bad(self, what: str) -> BadArchive:
        return BadArchive(f"{self._name} cannot be read: {what}", hint="make it again: plastic export FILE")


@contextmanager
def reading(path: Path) -> Iterator[Reader]:
    with open(path, "rb") as file:
        yield Reader(file, path.name)


def safe_name(name: str) -> bool:
    """Whether a member of that name lands below the folder that it is put in, and fits into a header."""
    inside = all(part not in ("", ".", "..") for part in name.split("/"))
    if not inside or not name.isprintable() or "\\" in name:
        return False
    try:
        tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except ValueError:  # longer than 100 bytes, and not to be parted at a slash
        return False
    return True


def folded(name: str) -> str:
    """The name as file systems see it that tell neither case nor form of letters."""
    return unicodedata.normalize("NFC", name).casefold()
