"""Parked parts given back: a new checkpoint in which the matrices asked for are whole again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_plastic.backend import mx
from mlx_plastic.base.sharding import Tensor, bits_of, plain_config, write_config
from mlx_plastic.base.weights import PACKING, Weights, open_weights
from mlx_plastic.compress.apply import META
from mlx_plastic.compress.park import FOLDER, Parked
from mlx_plastic.compress.schemes import WHOLE, Scheme, decode
from mlx_plastic.compress.shards import Shards, carry
from mlx_plastic.errors import BadCheckpoint, Taken
from mlx_plastic.home import write_json

PARTS = ("weight", *PACKING)

Tick = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Woken:
    """nbytes.

    of all weights, before and after. exact: whether the matrices are what they were, bit for bit.
    """

    folder: Path
    modules: tuple[str, ...]
    bytes_before: int
    nbytes: int
    exact: bool


def wake(
    folder: Path,
    out: Path,
    *,
    modules: Sequence[str] = (),
    components: int | None = None,
    cache: Path | None = None,
    tick: Tick | None = None,
) -> Woken:
    """Write the checkpoint in `folder` to `out` with the parked `modules` (all by default) whole, in 16 bits.

    components: add only so many of the removed components of each, instead of all that was taken. Raises
    BadCheckpoint for what is not parked there or is damaged, Taken if `out` exists.
    """
    if out.exists():
        raise Taken(f"{out} exists", hint="name a new folder")
    parked = Parked.open(folder)
    wanted = tuple(modules) or tuple(parked.modules)
    if lost := sorted(set(wanted) - set(parked.modules)):
        raise BadCheckpoint(
            f"not parked: {', '.join(lost)}", hint=f"there are: {', '.join(sorted(parked.modules)[:8])}"
        )
    weights = open_weights(str(folder), cache=cache)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        shards = Shards(part, list(_layout(weights, set(wanted), parked)), "wake")
        _write(weights, set(wanted), components, parked, shards, tick or (lambda *_: None))
        shards.close()
        _finish(folder, part, wanted, parked)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    os.replace(part, out)
    before = sum(file.stat().st_size for file in folder.glob("model*.safetensors"))
    return Woken(out, wanted, before, shards.total_bytes, components is None)


def _layout(weights: Weights, wanted: set[str], parked: Parked) -> list[Tensor]:
    found = []
    for name, shape in weights.shapes.items():
        path, _, leaf = name.rpartition(".")
        if leaf == "weight" and path in wanted:
            found.append(Tensor(name, getattr(mx, parked.dtype), shape))
            continue
        if leaf == "weight" and path in weights.quantized:
            module = weights.modules[path]
            found += [Tensor(f"{path}.{p}", module[p].dtype, module[p].shape) for p in PARTS if p in module]
            continue
        found.append(Tensor(name, getattr(mx, weights.dtypes[name]), shape))
    return found


def _write(
    weights: Weights, wanted: set[str], components: int | None, parked: Parked, shards: Shards, tick: Tick
) -> None:
    for name in list(weights.shapes):
        tick(shards.total_bytes - shards.bytes_left, shards.total_bytes, name)
        path, _, leaf = name.rpartition(".")
        module: Any = weights.modules[path]
        if leaf == "weight" and path in wanted:
            if path in weights.quantized:
                scheme = Scheme(module.bits, module.group_size, module.mode)
                decoded = decode(module.weight, module.scales, module.get("biases"), scheme)
                for p in PARTS:
                    module.pop(p, None)
            else:
                decoded = weights.take(name)
            whole = (
                parked.whole(path, decoded)
                if components is None
                else parked.with_components(path, decoded, components)
            )
            shards.write([(name, bits_of(whole))])
        elif leaf == "weight" and path in weights.quantized:
            shards.write([(f"{path}.{p}", bits_of(module.pop(p))) for p in PARTS if p in module])
        else:
            shards.write([(name, bits_of(weights.take_stored(name)))])


def _finish(folder: Path, part: Path, wanted: Sequence[str], parked: Parked) -> None:
    """Config, tokenizer, meta, and what stays parked."""
    carry(folder, part)
    config = plain_config(folder)
    stored = json.loads((folder / "config.json").read_bytes()).get("quantization") or {}
    kinds = {k: v for k, v in stored.items() if k not in wanted}
    if any(isinstance(kind, dict) for kind in kinds.values()):
        config["quantization"] = config["quantization_config"] = kinds
    write_config(part, config)
    meta = json.loads((folder / META).read_bytes())
    for entry in meta["plan"]["matrices"]:
        if entry["module"] in wanted:
            entry |= {"bits": WHOLE, "group_size": 0, "mode": "affine", "rank": None}
    write_json(part / META, {**meta, "woken": list(wanted)})
    left = {name: entry for name, entry in parked.modules.items() if name not in wanted}
    if left:
        still = Parked(part / FOLDER, parked.dtype, left)
        still.keep()
        for entry in left.values():
            shutil.copyfile(parked.folder / entry.file, still.folder / entry.file)
