"""Files that a stranger may have made: read as bytes, bounded before they are parsed, never run.

Nothing here knows packs: a folder of allow-listed plain files, JSON, and safetensors, each with limits on
what it may claim. Every function adds what it finds to `faults`, so that all of it can be told at once.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MAX_TOKENS = 100_000  # brackets and commas of one JSON text: each can cost 100 bytes once it is parsed
MAX_DEPTH = 32
MAX_DIGITS = 20  # of one whole number; twice that of any other
MAX_HEADER_BYTES = 8 << 20
MAX_FOREIGN = 20  # names told of what does not belong in a folder
HOLLOW_BYTES = 64 << 20  # a larger file that is mostly holes is no file of numbers

WIDTHS = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8, "I8": 1, "U8": 1, "I32": 4, "U32": 4, "I64": 8}
_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "i1", "U8": "u1", "I32": "<i4", "I64": "<i8"}

# what commands a terminal, or is half a character, which cannot even be printed
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Entry:
    """What a safetensors header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    start: int  # first byte, counted from the end of the header
    stop: int  # byte after the last


@dataclass(frozen=True)
class Tensors:
    """A safetensors file whose header was found to be true of its bytes."""

    data: memoryview  # the whole file, read-only
    body: int  # where the header ends
    entries: dict[str, Entry]

    def array(self, name: str) -> Array:
        """The tensor, without a copy and read-only where the bytes are aligned; BF16 comes as float32."""
        entry = self.entries[name]
        body = self.data[self.body + entry.start : self.body + entry.stop]
        if entry.dtype == "BF16":
            return (np.frombuffer(body, "<u2").astype("<u4") << 16).view("<f4").reshape(entry.shape)
        return np.require(np.frombuffer(body, _DTYPES[entry.dtype]).reshape(entry.shape), requirements=["A"])


@contextmanager
def opened_folder(folder: Path, faults: list[str], allowed: Iterable[str]) -> Iterator[int]:
    """A descriptor of the folder itself (no link), with a fault for each name in it that is not allowed.

    What is then opened relative to it lies in the folder that was looked at, whatever is renamed meanwhile.
    Raises OSError if there is no such folder; a link is followed by nobody.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        known, foreign = set(allowed), 0
        with os.scandir(descriptor) as found:
            for entry in found:
                foreign += entry.name not in known
                if entry.name not in known and foreign <= MAX_FOREIGN:
                    faults.append(f"{entry.name[:80]!a} does not belong in a pack")
                if foreign > MAX_FOREIGN:
                    faults.append("and more that does not belong in a pack")
                    break
        yield descriptor
    finally:
        os.close(descriptor)


def read_plain(name: str, limit: int, faults: list[str], *, at: int | None = None) -> bytes | None:
    """The bytes of a plain file of at most `limit` bytes, or None. at: the descriptor of its folder."""
    file = _open_plain(name, limit, faults, at)
    if file is None:
        return None
    with file:
        data = _read_rest(file, b"", name, faults)
    return None if data is None else bytes(data)


def read_safetensors(
    name: str,
    limit: int,
    faults: list[str],
    *,
    at: int | None = None,
    most: int = 100_000,
    metadata: bool = False,
) -> Tensors | None:
    """A safetensors file whose header is true of its bytes: unique keys, tensors end to end, nothing over.

    The header is judged before the rest is read, so that what it claims costs nothing. most: tensors.
    metadata: whether the header may have `__metadata__`, which is not kept.
    """
    file = _open_plain(name, limit, faults, at)
    if file is None:
        return None
    with file:
        before = len(faults)
        head = _read_header(file, name, faults)
        entries = _entries(head[8:], name, most, metadata, faults) if head else {}
        if len(faults) == before:
            _judge_offsets(entries, _size(file) - len(head), name, faults)
        data = _read_rest(file, head, name, faults) if len(faults) == before else None
    return None if data is None else Tensors(memoryview(data).toreadonly(), len(head), entries)


def _open_plain(name: str, limit: int, faults: list[str], at: int | None) -> BinaryIO | None:
    """A plain file of at most `limit` bytes; links are not followed, pipes and devices not opened."""
    shown = os.path.basename(name)
    try:
        fault = _file_fault(os.stat(name, dir_fd=at, follow_symlinks=False), limit)
        if not fault:
            # between the two calls it may have become a link, or a pipe that would keep us waiting
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
            fault = _file_fault(os.fstat(descriptor), limit)
            if not fault:
                return os.fdopen(descriptor, "rb")
            os.close(descriptor)
    except FileNotFoundError:
        fault = "is missing"
    except OSError as error:
        fault = f"cannot be read: {error.strerror}"
    faults.append(f"{shown} {fault}")
    return None


def _file_fault(found: os.stat_result, limit: int) -> str:
    if not stat.S_ISREG(found.st_mode):
        return "is not a plain file"
    if found.st_size > limit:
        return f"has {found.st_size} bytes, more than {limit}"
    if found.st_size > HOLLOW_BYTES and found.st_blocks * 512 < found.st_size // 2:
        return f"claims {found.st_size} bytes, most of which are a hole"
    return ""


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _read_rest(file: BinaryIO, head: bytes, name: str, faults: list[str]) -> bytearray | None:
    """`head`, which was read already, and the rest of the file: one buffer, each byte read once."""
    data = bytearray(_size(file))
    data[: len(head)] = head
    if file.readinto(memoryview(data)[len(head) :]) < len(data) - len(head) or file.read(1):  # type: ignore[attr-defined]
        faults.append(f"{os.path.basename(name)} changed while it was read")
        return None
    return data


def _read_header(file: BinaryIO, name: str, faults: list[str]) -> bytes:
    """The length and the JSON text of a safetensors file; empty if they are out of bounds."""
    shown, size = os.path.basename(name), _size(file)
    if size < 8:
        faults.append(f"{shown} has only {size} bytes")
        return b""
    length = file.read(8)
    claimed = int.from_bytes(length, "little")
    if claimed > min(MAX_HEADER_BYTES, size - 8):
        faults.append(f"the header of {shown} claims {claimed} bytes")
        return b""
    return length + file.read(claimed)


def _entries(text: bytes, name: str, most: int, metadata: bool, faults: list[str]) -> dict[str, Entry]:
    """The header's tensors, each entry of the right form; anything else is a fault."""
    shown = os.path.basename(name)
    if text[:1] != b"{":  # what the format asks for; JSON alone would allow white space
        faults.append(f"the header of {shown} is not a JSON object")
        return {}
    header = parse_json(text, f"the header of {shown}", faults)
    if header is None:
        return {}
    if metadata:
        header.pop("__metadata__", None)
    if len(header) > most:
        faults.append(f"{shown} names {len(header)} tensors, more than {most}")
        return {}
    if not header:
        faults.append(f"{shown} holds no tensor")
    found = {}
    for key, value in header.items():
        entry = _entry(value)
        if entry is None:
            faults.append(f"tensor {key[:80]!a} has no readable dtype, shape and data_offsets")
        else:
            found[key] = entry
    return found


def _entry(value: Any) -> Entry | None:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        return None
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in WIDTHS or not isinstance(shape, list):
        return None
    if not isinstance(offsets, list) or len(offsets) != 2 or len(shape) > 8:
        return None
    if any(type(n) is not int or not 0 <= n < 1 << 48 for n in [*shape, *offsets]):
        return None
    return Entry(dtype, tuple(shape), offsets[0], offsets[1])


def _judge_offsets(entries: Mapping[str, Entry], length: int, name: str, faults: list[str]) -> None:
    """Tensors must lie end to end, from the first byte of the data to the last, each of its own size."""
    expected = 0
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != expected:
            faults.append(
                f"tensor {key[:80]!a} begins at byte {entry.start}, not {expected}: overlap or hole"
            )
        if entry.stop - entry.start != math.prod(entry.shape) * WIDTHS[entry.dtype]:
            faults.append(
                f"tensor {key[:80]!a} has {entry.stop - entry.start} bytes, "
                f"not what its shape {list(entry.shape)} takes"
            )
        expected = entry.stop
    if expected != length:
        shown = os.path.basename(name)
        faults.append(f"{shown} has {length} bytes of data, its header accounts for {expected}")


def parse_json(data: bytes, what: str, faults: list[str]) -> dict[str, Any] | None:
    """One JSON object of bounded size and depth, without repeated keys, NaN, or text that is not text."""
    tokens = sum(map(data.count, (b"{", b"[", b",")))
    if tokens > MAX_TOKENS:
        faults.append(f"{what} holds {tokens} brackets and commas, more than {MAX_TOKENS}")
        return None

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            faults.extend(f"{what} repeats the key {key[:80]!a}" for key, n in counts.items() if n > 1)
        return made

    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=unique,
            parse_constant=_real,
            parse_float=_real,
            parse_int=_whole,
        )
    except (ValueError, RecursionError) as error:
        faults.append(f"{what} is not JSON: {type(error).__name__}: {str(error)[:120]}")
        return None
    if not isinstance(value, dict):
        faults.append(f"{what} is not a JSON object")
        return None
    return value if _is_tame(value, what, faults) else None


def _real(text: str) -> float:
    if len(text) > 2 * MAX_DIGITS or not math.isfinite(float(text)):  # NaN, Infinity, and 1e999 too
        raise ValueError(f"it holds the number {text[:20]}")
    return float(text)


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"it holds a number of {len(text)} digits")
    return int(text)


def _is_tame(value: dict[str, Any], what: str, faults: list[str]) -> bool:
    """Whether a parsed value is shallow enough to walk, and all its text fit to be shown."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for found in level:
            parts = [*found, *found.values()] if isinstance(found, dict) else found
            text = " ".join([part for part in parts if isinstance(part, str)])
            if unfit := _UNFIT.search(text):
                shown = text[max(0, unfit.start() - 40) :][:80]
                faults.append(f"{what} has text with control characters: {shown!a}")
                return False
            inner += [part for part in parts if isinstance(part, dict | list)]
        if not inner:
            return True
        level = inner
    faults.append(f"{what} is nested more than {MAX_DEPTH} deep")
    return False
