"""The way back: what compression took from a matrix, kept so that it can be given back bit for bit.

A parked matrix has the difference of bit patterns between what it was in 16 bits and what its stored form
decodes to, deflated: adding it needs no arithmetic that could round otherwise elsewhere. A matrix that was
cut to a rank has its removed components too, so that a few of them may be woken alone.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from mlx_plastic.backend import mx
from mlx_plastic.base.sharding import bits_of
from mlx_plastic.compress.schemes import Dtype
from mlx_plastic.errors import BadCheckpoint
from mlx_plastic.home import write_atomic, write_json
from mlx_plastic.lowrank.svd import Array, Svd

FOLDER = "parked"
INDEX = "parked.json"
FORMAT_VERSION = 1
LEVEL = 6  # of zlib


@dataclass(frozen=True)
class Sleeping:
    """A parked matrix.

    nbytes: on disk. rank: that was kept; None if it was not cut. sha256: of what it was.
    """

    module: str
    file: str
    nbytes: int
    rank: int | None
    sha256: str


@dataclass
class Parked:
    """The parked parts beside one compressed checkpoint."""

    folder: Path
    dtype: Dtype
    modules: dict[str, Sleeping] = field(default_factory=dict)

    @classmethod
    def open(cls, checkpoint: Path) -> Parked:
        """Raises BadCheckpoint if nothing is parked there."""
        folder = checkpoint / FOLDER
        try:
            value = json.loads((folder / INDEX).read_text("utf-8"))
            modules = {name: Sleeping(**entry) for name, entry in value["modules"].items()}
            return cls(folder, value["dtype"], modules)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadCheckpoint(
                f"nothing is parked in {checkpoint}", hint="compress with --park cut or --park all"
            ) from error

    def add(self, module: str, w: Array, decoded: Array, removed: Svd | None, rank: int | None) -> None:
        """w, decoded: (..., out, in) float32, what the matrix was and what its stored form decodes to."""
        before, after = (_bits(x, self.dtype) for x in (w, decoded))
        difference = np.frombuffer(zlib.compress((before - after).tobytes(), LEVEL), np.uint8)
        arrays: dict[str, Array] = {"difference": difference, "shape": np.array(w.shape, np.int64)}
        if removed is not None:
            arrays |= dict(zip(("u", "s", "vt"), map(np.ascontiguousarray, removed), strict=True))
        name = hashlib.sha256(module.encode("utf-8")).hexdigest()[:16] + ".safetensors"
        data = safetensors.numpy.save(arrays, metadata={"module": module})
        write_atomic(self.folder / name, data)
        digest = hashlib.sha256(before.tobytes()).hexdigest()
        self.modules[module] = Sleeping(module, name, len(data), rank, digest)
        self.keep()

    def keep(self) -> None:
        """Write which matrices are parked."""
        modules = {name: vars(entry) for name, entry in self.modules.items()}
        write_json(
            self.folder / INDEX,
            {"format_version": FORMAT_VERSION, "dtype": self.dtype, "modules": modules},
        )

    def whole(self, module: str, decoded: Array) -> mx.array:
        """The matrix as it was, in its 16 bits. Raises BadCheckpoint if that cannot be had bit for bit."""
        entry, arrays = self._read(module)
        after = _bits(decoded, self.dtype)
        try:
            difference = np.frombuffer(zlib.decompress(arrays["difference"].tobytes()), np.uint16)
            before = after + difference.reshape(after.shape)
        except (zlib.error, ValueError) as error:
            raise BadCheckpoint(f"the parked part of {module} is damaged", hint="restore the file") from error
        if hashlib.sha256(before.tobytes()).hexdigest() != entry.sha256:
            raise BadCheckpoint(
                f"{module} and its parked part do not belong together", hint="restore both from one place"
            )
        return mx.array(before).view(getattr(mx, self.dtype))

    def with_components(self, module: str, decoded: Array, count: int) -> mx.array:
        """The stored matrix plus the `count` largest of its removed components, in its 16 bits."""
        _, arrays = self._read(module)
        if "u" not in arrays:
            raise BadCheckpoint(f"{module} was not cut: it has no components", hint="wake it whole")
        u, s, vt = arrays["u"][:, :count], arrays["s"][:count], arrays["vt"][:count]
        return mx.array(decoded + (u * s) @ vt).astype(getattr(mx, self.dtype))

    def _read(self, module: str) -> tuple[Sleeping, dict[str, Any]]:
        entry = self.modules.get(module)
        if entry is None:
            raise BadCheckpoint(
                f"{module} has no parked part", hint=f"there are: {', '.join(sorted(self.modules)[:8])}"
            )
        try:
            return entry, safetensors.numpy.load((self.folder / entry.file).read_bytes())
        except (OSError, safetensors.SafetensorError) as error:
            raise BadCheckpoint(f"the parked part of {module} is damaged", hint="restore it") from error


def _bits(w: Array, dtype: Dtype) -> Array:
    """The bit patterns (..., ) uint16 of float32 values rounded to 16 bits."""
    found = bits_of(mx.array(w).astype(getattr(mx, dtype)))
    return found.view(np.uint16)
