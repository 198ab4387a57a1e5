"""Tuned scales and biases put into a checkpoint that is being written, so that a crash does no harm.

What was tuned goes to a file of its own first; from then on putting it in place can be done again and again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy

from mlx_plastic.base.sharding import bits_of
from mlx_plastic.compress.shards import Shards
from mlx_plastic.compress.tune import Tuned, Tuning, tune_checkpoint
from mlx_plastic.errors import BadData
from mlx_plastic.home import write_atomic

TUNED = "tuned.safetensors"

Tick = Callable[[int, int, str], None]


def revise(
    part: Path,
    shards: Shards,
    ref: str,
    data: Path,
    how: Tuning,
    identity: str,
    *,
    cache: Path | None = None,
    tick: Tick | None = None,
) -> dict[str, Any]:
    """Tune the checkpoint in `part` towards `ref`, if it was not yet, and put in place what is better.

    Leaves TUNED there until the caller needs it no more. Returns what came of it, as JSON can hold it.
    """
    key = hashlib.sha256(identity.encode("ascii") + _bytes(data)).hexdigest()
    told = _told(part / TUNED, key)
    if told is None:
        made = tune_checkpoint(part, ref, data, how, cache=cache, tick=tick)
        told = {"how": asdict(how), **made.as_dict()}
        _keep(part / TUNED, made, told, key)
    for name, bits in safetensors.numpy.load((part / TUNED).read_bytes()).items():
        shards.replace(name, bits)
    return told


def _bytes(data: Path) -> bytes:
    try:
        return data.read_bytes()
    except OSError as error:
        raise BadData(f"cannot read {data}: {error.strerror}", hint="name a file of texts") from error


def _told(file: Path, key: str) -> dict[str, Any] | None:
    """What an earlier call found, if it tuned the same thing and was broken off only later."""
    if not file.is_file():
        return None
    with safetensors.safe_open(file, "np") as kept:
        about = kept.metadata() or {}
    return dict(json.loads(about["told"])) if about.get("key") == key else None


def _keep(file: Path, made: Tuned, told: dict[str, Any], key: str) -> None:
    """What is no better than the untuned one is not kept, only told."""
    arrays = {
        f"{path}.{leaf}": bits_of(array)
        for path, group in (made.stored if made.kept else {}).items()
        for leaf, array in group.items()
    }
    about = {"key": key, "told": json.dumps(told)}
    write_atomic(file, safetensors.numpy.save(arrays, metadata=about))
