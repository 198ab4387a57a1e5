"""The format of mlx-lm: adapter_config.json and adapters.safetensors.

`<module path>.lora_a` is our A transposed (in, r), `.lora_b` our B transposed (r, out), with one rank and one
scale for all modules; stacks of experts lie as ours do. What is written is padded with zeros to the highest
rank and has its scales folded into `lora_b`, so that stock mlx-lm computes the very same update.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlx_plastic.lowrank.layers import linear_layers
from mlx_plastic.packs.convert.files import (
    CONFIG,
    Foreign,
    config_file,
    digest,
    entry_faults,
    hints_of,
    pair_faults,
    read_files,
    refuse,
    tensor_file,
    write_folder,
)
from mlx_plastic.packs.convert.fold import Update, folded
from mlx_plastic.packs.format.tensors import Array, Factors
from mlx_plastic.packs.format.untrusted import Tensors

TENSORS = "adapters.safetensors"
PICKLED = {
    "adapters.npz": "an older mlx-lm wrote it: train again, or save its arrays as adapters.safetensors"
}

_NAME = re.compile(r"(.+)\.(lora_a|lora_b)")


def write(out: Path, factors: Mapping[str, Factors], base_id: str) -> None:
    """Write the pack to the new folder `out` as stock `mlx_lm.load(base, adapter_path=out)` takes it."""
    rank = max(f.rank for f in factors.values())
    tensors = {}
    for path, update in folded(factors).items():
        tensors[f"{path}.lora_a"] = _turned(_padded(update.a, -2, rank))
        tensors[f"{path}.lora_b"] = _turned(_padded(update.b, -1, rank))
    config = {
        "model": base_id,
        "fine_tune_type": "lora",
        "num_layers": -1,  # all; the keys are whole paths, so that it does not matter
        "lora_parameters": {"rank": rank, "scale": 1.0, "dropout": 0.0, "keys": sorted(factors)},
    }
    data = tensor_file(tensors, factors, framework="mlx")
    write_folder(out, {CONFIG: config_file(config), TENSORS: data})


def _padded(x: Array, axis: int, size: int) -> Array:
    missing = [(0, 0)] * x.ndim
    missing[axis] = (0, size - x.shape[axis])
    return np.pad(x, missing)


def _turned(x: Array) -> Array:
    """Between our layout and mlx-lm's: single layers are transposed there, stacks of experts are not."""
    return x.T if x.ndim == 2 else x


def read(folder: Path) -> Foreign:
    """The mlx-lm adapter in `folder`. Raises BadPack with everything that cannot be carried over."""
    config, tensors = read_files(folder, TENSORS, pickled=PICKLED)
    parameters = config.get("lora_parameters")
    faults = [*_setting_faults(config, parameters), *_name_faults(tensors)]
    refuse(folder, faults, "only what is W + scale * B @ A can become a pack")
    paths = sorted({match[1] for name in tensors.entries if (match := _NAME.fullmatch(name))})
    pairs = {
        path: (_turned(tensors.array(f"{path}.lora_a")), _turned(tensors.array(f"{path}.lora_b")))
        for path in paths
    }
    refuse(folder, [fault for path, (a, b) in pairs.items() for fault in pair_faults(path, a, b)])
    assert isinstance(parameters, dict)
    hints = hints_of(tensors)
    updates = {}
    for path, (a, b) in pairs.items():
        rank = max(hints[path][0] if path in hints else 1, _used(a, b))
        updates[path] = Update(a[..., :rank, :], b[..., :rank], float(parameters["scale"]))
    return Foreign(updates, config, digest(tensors), hints)


def _used(a: Array, b: Array) -> int:
    """How many components there are before the padding: what follows has zeros in a or in b."""
    alive = a.any(-1) & b.any(-2)
    last = np.flatnonzero(alive.reshape(-1, alive.shape[-1]).any(0))
    return int(last[-1]) + 1 if len(last) else 1


def _setting_faults(config: Mapping[str, Any], parameters: Any) -> Iterator[str]:
    kind = config.get("fine_tune_type", "lora")
    if kind == "full":
        yield "it holds whole weights of the base (fine_tune_type = 'full')"
    elif kind != "lora":
        yield f"its fine_tune_type is {kind!r}, not 'lora'"
    scale = parameters.get("scale") if isinstance(parameters, dict) else None
    if not isinstance(scale, int | float) or isinstance(scale, bool):
        yield f"{CONFIG} has no number lora_parameters.scale"
    keys = parameters.get("keys") if isinstance(parameters, dict) else None
    if keys is not None and not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
        yield f"{CONFIG} has lora_parameters.keys that are not names"


def _name_faults(tensors: Tensors) -> Iterator[str]:
    parts: dict[str, set[str]] = {}
    for name, entry in tensors.entries.items():
        match = _NAME.fullmatch(name)
        if match is None:
            reason = "DoRA magnitudes cannot be carried" if name.endswith(".m") else "not lora_a or lora_b"
            yield f"tensor {name!r}: {reason}"
            continue
        yield from entry_faults(name, match[1], entry)
        parts.setdefault(match[1], set()).add(match[2])
    for path, found in parts.items():
        yield from (f"{path} has no {part}" for part in ("lora_a", "lora_b") if part not in found)


def missing(foreign: Foreign, model: Any) -> tuple[list[str], bool]:
    """The modules that the adapter's settings promise and its tensors lack, and whether it names them.

    mlx-lm loads such a file silently and leaves those modules as they were. Where the settings name no
    modules, every linear layer of the last `num_layers` blocks is meant; older versions meant fewer.
    """
    keys, count = foreign.config["lora_parameters"].get("keys"), foreign.config.get("num_layers", -1)
    named = isinstance(keys, list)
    linear = linear_layers(model)
    blocks = list(getattr(model, "layers", []))[-max(count, 0) :] if type(count) is int else []
    paths = {id(module): path for path, module in model.named_modules()}
    promised = {key for key in keys if key in linear} if named else set()
    for block in blocks:
        inside = [path for path in linear if path.startswith(f"{paths[id(block)]}.")]
        own = len(paths[id(block)]) + 1
        promised |= {path for path in inside if not named or path[own:] in keys}
    return sorted(promised - set(foreign.updates)), named
