"""All that a training is after a step, kept in a file so that a killed one goes on bit for bit."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from mlx_plastic.backend import World, mx
from mlx_plastic.home import write_atomic

log = logging.getLogger(__name__)

CHECKPOINT = "training.safetensors"


@dataclass(frozen=True)
class Point:
    """A place on the loss curve, in nats per target."""

    step: int
    train: float | None  # mean since the point before; None before the first step
    valid: float | None


@dataclass
class State:
    """All that a training is after a step; what a checkpoint holds.

    flat, m, v: (n,) float32, the factors in one vector and AdamW's moments. best: the factors with the lowest
    loss on the valid samples. Where ranks change, best_ranks are those of `best`, plastic and parked what
    the layers and their manager know beside the factors.
    """

    flat: mx.array
    m: mx.array
    v: mx.array
    best: mx.array
    step: int = 0
    best_step: int = 0
    best_valid: float = math.inf
    points: list[Point] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)  # losses since the last point
    tokens: int = 0
    supervised: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    best_ranks: dict[str, int] = field(default_factory=dict)
    plastic: dict[str, Any] = field(default_factory=dict)
    parked: mx.array = field(default_factory=lambda: mx.zeros(1))


class Keeper:
    """Writes the state of one training to its folder, and reads it back if it is of this training.

    Of several processes the first writes, and reads for all.
    """

    def __init__(self, folder: Path, identity: str, world: World) -> None:
        self.file = folder / CHECKPOINT
        self.identity = identity
        self.world = world

    def save(self, state: State) -> None:
        if not self.world.first:
            return
        arrays = {name: np.array(getattr(state, name)) for name in ("flat", "m", "v", "best", "parked")}
        rest = {f.name: getattr(state, f.name) for f in dataclasses.fields(state) if f.name not in arrays}
        rest["points"] = [dataclasses.asdict(point) for point in state.points]
        metadata = {"identity": self.identity, "state": json.dumps(rest)}
        write_atomic(self.file, safetensors.numpy.save(arrays, metadata=metadata))

    def load(self) -> State | None:
        data = self.world.told(self._read())
        if data is None:
            return None
        arrays = {name: mx.array(value) for name, value in safetensors.numpy.load(data).items()}
        rest = json.loads(metadata(data)["state"])
        rest["points"] = [Point(**point) for point in rest["points"]]
        log.info("training goes on after step %d", rest["step"])
        return State(**(rest | arrays))

    def _read(self) -> bytes | None:
        """The file's bytes, if they are whole and of this training; in the first process only."""
        if not self.world.first:
            return None
        try:
            data = self.file.read_bytes()
            safetensors.numpy.load(data)
            identity = metadata(data)["identity"]
        except FileNotFoundError:
            return None
        except (safetensors.SafetensorError, ValueError, KeyError, TypeError):
            log.warning("%s is damaged: training begins anew", self.file)
            return None
        if identity != self.identity:
            log.warning("%s is of another training: this one begins anew", self.file)
            return None
        return data


def metadata(data: bytes) -> dict[str, str]:
    """What a safetensors file says of itself; its own library reads that from files only."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found: dict[str, str] = header["__metadata__"]
    return found
