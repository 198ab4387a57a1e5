"""What goes from the night to its hosts, and what comes back, each as the bytes of one safetensors file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy

from mlx_plastic.home.config import from_mapping
from mlx_plastic.lowrank.plasticity import Event
from mlx_plastic.packs import Factors, Pack
from mlx_plastic.packs.format.manifest import checked_bytes, parse_manifest
from mlx_plastic.packs.train.keeper import metadata
from mlx_plastic.packs.train.train import Point, Trained, TrainReport
from mlx_plastic.samples import Encoded
from mlx_plastic.sleep.config import NightConfig

JOB, TRAINED, WISH = "job.safetensors", "trained.safetensors", "wish.json"
MARK = "plastic-launch "  # before each line that a process says to the night


@dataclass(frozen=True)
class Job:
    """The arguments of `train`, and the base by its name and its bytes.

    night: the process that waits for the end; without it nobody does.
    """

    base: str
    fingerprint: str
    night: int
    config: NightConfig
    train: Sequence[Encoded]
    valid: Sequence[Encoded]
    ranks: Mapping[str, int] | None = None
    start: Pack | None = None

    def to_bytes(self) -> bytes:
        said = {name: getattr(self, name) for name in ("base", "fingerprint", "night", "ranks")}
        said["config"] = dataclasses.asdict(self.config)
        tensors = _samples("train", self.train) | _samples("valid", self.valid)
        if self.start:
            said["start"] = checked_bytes(self.start.manifest).decode("utf-8")
            tensors |= _factors(self.start.factors)
        return safetensors.numpy.save(tensors, metadata={"said": json.dumps(said)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Job:
        tensors, said = safetensors.numpy.load(data), _said(data)
        start = None
        if "start" in said:
            faults: list[str] = []
            manifest = parse_manifest(said.pop("start").encode("utf-8"), faults)
            assert manifest is not None, faults  # it was written by checked_bytes
            start = Pack(manifest, _read_factors(tensors))
        said["config"] = from_mapping(NightConfig, said["config"], where="the job")
        train, valid = (_read_samples(name, tensors) for name in ("train", "valid"))
        return cls(**said, train=train, valid=valid, start=start)


def trained_bytes(trained: Trained) -> bytes:
    """The outcome of a training; the same numbers come back."""
    said = dataclasses.asdict(trained.report)
    return safetensors.numpy.save(_factors(trained.factors), metadata={"said": json.dumps(said)})


def read_trained(data: bytes) -> Trained:
    said = _said(data)
    said["losses"] = tuple(Point(**point) for point in said["losses"])
    said["events"] = tuple(Event(**event | {"ids": tuple(event["ids"])}) for event in said["events"])
    return Trained(_read_factors(safetensors.numpy.load(data)), TrainReport(**said))


def _samples(name: str, samples: Sequence[Encoded]) -> dict[str, Any]:
    """Samples behind each other, and where each ends."""
    return {
        f"{name}.tokens": np.array([t for s in samples for t in s.tokens], np.int32),
        f"{name}.targets": np.array([t for s in samples for t in s.targets], np.bool_),
        f"{name}.lengths": np.array([len(s.tokens) for s in samples], np.int64),
        f"{name}.soft": np.array([s.soft for s in samples], np.bool_),
    }


def _read_samples(name: str, tensors: Mapping[str, Any]) -> list[Encoded]:
    ends = np.cumsum(tensors[f"{name}.lengths"])[:-1]
    tokens, targets = (np.split(tensors[f"{name}.{part}"], ends) for part in ("tokens", "targets"))
    return [
        Encoded(tuple(t.tolist()), tuple(m.tolist()), soft=bool(soft))
        for t, m, soft in zip(
            tokens, targets, tensors[f"{name}.soft"], strict=False
        )  # of none: one empty part
    ]


def _factors(factors: Mapping[str, Factors]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, f in factors.items():
        found |= {f"lora.{path}.a": np.ascontiguousarray(f.a), f"lora.{path}.b": np.ascontiguousarray(f.b)}
        found[f"lora.{path}.alpha"] = np.array(f.alpha, np.float64)
    return found


def _read_factors(tensors: Mapping[str, Any]) -> dict[str, Factors]:
    found = {}
    for name in sorted(tensors):
        if name.endswith(".alpha"):
            stem = name.removesuffix(".alpha")
            a, b, alpha = (tensors[f"{stem}.{part}"] for part in ("a", "b", "alpha"))
            found[stem.removeprefix("lora.")] = Factors(a, b, float(alpha))
    return found


def _said(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(metadata(data)["said"])
    return found
