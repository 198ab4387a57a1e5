"""What GPTQ needs of the texts: one matrix H for each weight, in a folder, written and read one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy

from mlx_plastic.errors import BadConfig
from mlx_plastic.home import write_atomic, write_json
from mlx_plastic.lowrank.svd import Array

FORMAT_VERSION = 1
INDEX = "calibration.json"
AGAIN = "make the plan again with --data"


@dataclass
class Metrics:
    """H of each module, (E, in, in) float32: one for a plain matrix, one an expert for a stack."""

    folder: Path
    base_fingerprint: str
    digest: str  # of the texts
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def new(cls, folder: Path, base_fingerprint: str, digest: str) -> Metrics:
        """Raises BadConfig for a folder that holds something else."""
        if folder.exists() and any(folder.iterdir()) and not (folder / INDEX).is_file():
            raise BadConfig(f"{folder} holds something else", hint="name a new folder: --calibration DIR")
        return cls(folder, base_fingerprint, digest)

    @classmethod
    def open(cls, folder: Path, base_fingerprint: str) -> Metrics:
        """Raises BadConfig if there is none, or it is of another checkpoint."""
        try:
            value: dict[str, Any] = json.loads((folder / INDEX).read_text("utf-8"))
            found = cls(folder, value["base_fingerprint"], value["digest"], value["modules"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadConfig(
                f"no calibration in {folder}, and the plan rounds by it",
                hint="make the plan again with --data, or round plainly: --no-gptq",
            ) from error
        if found.base_fingerprint != base_fingerprint:
            raise BadConfig(
                f"the calibration in {folder} is of another checkpoint", hint="make the plan again"
            )
        return found

    def add(self, module: str, h: Array) -> None:
        name = f"{len(self.files):05}.safetensors"
        write_atomic(self.folder / name, safetensors.numpy.save({"h": h}, metadata={"module": module}))
        self.files[module] = name

    def close(self) -> None:
        """The index is written last: a folder without one is not whole."""
        about = {"format_version": FORMAT_VERSION, "base_fingerprint": self.base_fingerprint}
        write_json(self.folder / INDEX, {**about, "digest": self.digest, "modules": self.files})

    def of(self, module: str, experts: int, width: int) -> Iterator[Array]:
        """H (in, in) of each expert in turn, or of the one matrix; only one is in memory.

        Raises BadConfig for a module or a file that is missing or damaged, or of other sizes.
        """
        for e in range(experts):
            h, shape = self._one(module, e)
            if shape != [experts, width, width]:
                raise BadConfig(f"the calibration of {module} is {shape}", hint=AGAIN)
            yield h

    def _one(self, module: str, expert: int) -> tuple[Array, list[int]]:
        """And the shape of all; the file is closed again, since what is read of it counts as memory."""
        try:
            with safetensors.safe_open(self.folder / self.files[module], "np") as file:
                stack = file.get_slice("h")
                return stack[expert], list(stack.get_shape())
        except (KeyError, OSError, safetensors.SafetensorError) as error:
            raise BadConfig(f"the calibration in {self.folder} lacks {module}", hint=AGAIN) from error
