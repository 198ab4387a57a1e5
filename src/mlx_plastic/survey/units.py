"""Pieces of a survey that can be done anywhere and in any order, and again with the same result."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_plastic.errors import BadData
from mlx_plastic.home import write_atomic
from mlx_plastic.survey.config import Stats
from mlx_plastic.survey.folder import FORMAT_VERSION
from mlx_plastic.survey.kernel import load_kernel
from mlx_plastic.survey.measure import measure
from mlx_plastic.survey.quantsim import Prepared
from mlx_plastic.survey.slabs import Room, Slab, read_slab
from mlx_plastic.survey.source import open_source

TABLES = ("matrix_stats", "quant_sim", "spectra")  # the lines of a part after its head, in that order
END = b"end of part"
UNIT_BYTES = 64 << 20  # of weights: some seconds of work
SOURCE_FILES = (
    *("kernel.c", "plain.py", "stats.py", "spectra.py", "quantsim.py"),
    *("encoding.py", "decoding.py", "measure.py"),
)


@dataclass(frozen=True)
class Unit:
    """Slabs of one file that are surveyed together. name: of its part. key: what its result depends on."""

    name: str
    key: str
    model_path: str
    slabs: tuple[Slab, ...]
    settings: Stats
    prepared: tuple[Prepared, ...]

    @property
    def nbytes(self) -> int:
        return sum(slab.nbytes for slab in self.slabs)


def make_units(
    model_path: str,
    slabs: dict[str, list[Slab]],
    stamps: dict[str, list[Any]],
    settings: Stats,
    prepared: Sequence[Prepared],
) -> list[Unit]:
    """Files in slices of about 64 MB. stamps: of the files, so that a changed file is done again."""
    common = [
        FORMAT_VERSION,
        _code(),
        dataclasses.asdict(settings),
        [dataclasses.asdict(p) for p in prepared],
    ]
    units = []
    for file, found in slabs.items():
        for start, stop in _slices(found):
            key = [*common, model_path, stamps[file], [_told(slab) for slab in found[start:stop]]]
            digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
            name = f"{file}.{start}-{stop}.json"
            units.append(Unit(name, digest, model_path, tuple(found[start:stop]), settings, tuple(prepared)))
    return units


def _slices(slabs: Sequence[Slab]) -> Iterator[tuple[int, int]]:
    start, size = 0, 0
    for i, slab in enumerate(slabs):
        size += slab.nbytes
        if size >= UNIT_BYTES or i == len(slabs) - 1:
            yield start, i + 1
            start, size = i + 1, 0


def _told(slab: Slab) -> list[Any]:
    return [slab.weight.tensor.name, slab.index, dataclasses.asdict(slab.place)]


def _code() -> str:
    """Parts made by another version of what computes them are not used."""
    digest = hashlib.sha256()
    for name in SOURCE_FILES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()[:16]


def do_unit(unit: Unit) -> bytes:
    """The rows of all matrices of the unit, as its part holds them; nothing else is kept in memory."""
    began = time.perf_counter()
    kernel = load_kernel()
    matrices: list[dict[str, Any]] = []
    quant: list[dict[str, Any]] = []
    spectra: list[dict[str, Any]] = []
    room = Room()
    with contextlib.closing(open_source(unit.model_path)) as source:
        for slab in unit.slabs:
            values, dtype = read_slab(source, slab, room)
            for cut in slab.cuts:
                rows = measure(
                    *(values[cut.window], dtype, slab.identity(cut)),
                    scale_type=slab.weight.scale_type,
                    prepared=unit.prepared,
                    settings=unit.settings,
                    kernel=kernel,
                )
                matrices.append(rows.matrix)
                quant += rows.quant
                spectra += [rows.spectrum] if rows.spectrum else []
            del values
    head = {"key": unit.key, "seconds": time.perf_counter() - began}
    return b"\n".join([json.dumps(head).encode(), *map(_line, (matrices, quant, spectra)), END])


def _line(rows: list[dict[str, Any]]) -> bytes:
    try:
        return json.dumps(rows, allow_nan=False).encode()
    except ValueError:
        return json.dumps([_without_infinities(row) for row in rows], allow_nan=False).encode()


def _without_infinities(row: dict[str, Any]) -> dict[str, Any]:
    """What left float64 is an empty cell, as JSON has no name for it."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def write_part(folder: Path, unit: Unit, result: bytes) -> None:
    write_atomic(folder / unit.name, result)


def read_part(folder: Path, unit: Unit, table: str) -> list[dict[str, Any]]:
    """The rows of one table that the unit gave. Raises BadData if its part is gone, or is another's."""
    try:
        with open(folder / unit.name, "rb") as file:
            key = json.loads(file.readline()).get("key")
            rows: list[dict[str, Any]] = json.loads(list(file)[TABLES.index(table)])
    except (OSError, ValueError, AttributeError, IndexError) as error:
        raise BadData(f"{folder / unit.name} cannot be read ({error})", hint="collect again") from error
    if key != unit.key:
        raise BadData(f"{folder / unit.name} was changed by another process", hint="collect again")
    return rows


def is_done(folder: Path, unit: Unit) -> bool:
    """Whether a whole part of this unit is there; no more than its two ends are read."""
    try:
        with open(folder / unit.name, "rb") as file:
            head = file.read(128)
            file.seek(-len(END), os.SEEK_END)
            return head.startswith(b'{"key": "' + unit.key.encode() + b'"') and file.read() == END
    except OSError:
        return False
