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

import numpy as np

from mlx_plastic.home import write_atomic
from mlx_plastic.survey.config import Stats
from mlx_plastic.survey.folder import FORMAT_VERSION
from mlx_plastic.survey.kernel import load_kernel
from mlx_plastic.survey.measure import measure
from mlx_plastic.survey.quantsim import Prepared
from mlx_plastic.survey.slabs import Slab, read_slab
from mlx_plastic.survey.source import open_source

UNIT_BYTES = 64 << 20  # of weights: some seconds of work
SOURCE_FILES = ("kernel.c", "plain.py", "stats.py", "spectra.py", "quantsim.py", "encoding.py", "measure.py")


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


def do_unit(unit: Unit) -> dict[str, Any]:
    """The rows of all matrices of the unit, as JSON can hold them; nothing else is kept in memory."""
    began = time.perf_counter()
    kernel = load_kernel()
    matrices: list[dict[str, Any]] = []
    quant: list[dict[str, Any]] = []
    spectra: list[dict[str, Any]] = []
    with contextlib.closing(open_source(unit.model_path)) as source:
        for slab in unit.slabs:
            values, dtype = read_slab(source, slab)
            for cut in slab.cuts:
                rows = measure(
                    *(np.ascontiguousarray(values[cut.window]), dtype, slab.identity(cut)),
                    scale_type=slab.weight.scale_type,
                    prepared=unit.prepared,
                    settings=unit.settings,
                    kernel=kernel,
                )
                matrices.append(rows.matrix)
                quant += rows.quant
                spectra += [rows.spectrum] if rows.spectrum else []
            del values
    tables = {"matrix_stats": matrices, "quant_sim": quant, "spectra": spectra}
    clean = {name: [_without_infinities(row) for row in rows] for name, rows in tables.items()}
    return {"key": unit.key, "seconds": time.perf_counter() - began, **clean}


def _without_infinities(row: dict[str, Any]) -> dict[str, Any]:
    """What left float64 is an empty cell, as JSON has no name for it."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def write_part(folder: Path, unit: Unit, result: dict[str, Any]) -> None:
    write_atomic(folder / unit.name, json.dumps(result, allow_nan=False).encode())


def read_part(folder: Path, unit: Unit) -> dict[str, Any] | None:
    """What was done of the unit before; None if nothing, something else, or a torn file is there."""
    try:
        found = json.loads((folder / unit.name).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("key") == unit.key else None


def is_done(folder: Path, unit: Unit) -> bool:
    """As `read_part`, without reading more than the key."""
    try:
        with open(folder / unit.name, "rb") as file:
            head = file.read(128)
            file.seek(-1, os.SEEK_END)
            return head.startswith(b'{"key": "' + unit.key.encode() + b'"') and file.read(1) == b"}"
    except OSError:
        return False
