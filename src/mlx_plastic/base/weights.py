"""The weights of a checkpoint as the loaded model names them, read one by one and not kept.

mlx-lm renames, splits and stacks what lies in the files. It does so before anything is read, so a model that
is loaded but never evaluated tells every name and shape, and gives each weight for the price of that weight.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.backend import mx
from mlx_plastic.base.checkpoint import fingerprint, resolve
from mlx_plastic.base.model import load_lazily
from mlx_plastic.base.widen import float32_weight, is_packed
from mlx_plastic.lowrank.layers import linear_layers

PACKING = ("scales", "biases", "global_scale")  # what stands beside a quantized weight


@dataclass
class Weights:
    """A checkpoint whose weights can each be taken once.

    shapes: by parameter name, those of quantized weights unpacked. dtypes: as stored. linear: paths of the
    modules whose weight a pack can update. quantized: (bits, group size) by path, of those that are. modules:
    by path, which hold what was not taken yet.
    """

    ref: str
    path: Path
    fingerprint: str
    config: dict[str, Any]
    model: Any
    modules: dict[str, Any] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    linear: set[str] = field(default_factory=set)
    quantized: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.modules = dict(self.model.named_modules())
        self.linear = {path for path, m in linear_layers(self.model).items() if "weight" in m}
        for path, module in self.modules.items():
            packed = is_packed(module)
            if packed:
                self.quantized[path] = (module.bits, module.group_size)
            for key, array in module.items():
                if key.startswith("_"):  # what a module computes itself, as rope's frequencies: no parameter
                    continue
                if isinstance(array, mx.array) and not (packed and key in PACKING):
                    name = f"{path}.{key}" if path else key
                    wide = packed and key == "weight"
                    self.shapes[name] = _unpacked_shape(module) if wide else tuple(array.shape)
                    self.dtypes[name] = str(array.dtype).removeprefix("mlx.core.")

    def take(self, name: str) -> NDArray[np.float32]:
        """The parameter as float32, dequantized; it is read now and forgotten here, so it can be taken once.

        Raises KeyError for a name that is not there, or is no more.
        """
        path, _, key = name.rpartition(".")
        module = self.modules[path]
        if key == "weight" and path in self.quantized:
            array = float32_weight(module)
            for part in PACKING:
                module.pop(part, None)
            del module[key]
        else:
            array = module.pop(key).astype(mx.float32)
        return np.asarray(array)  # the same memory: the largest matrix is not held twice

    def take_stored(self, name: str) -> mx.array:
        """The parameter in its own dtype; not for weights that are quantized. It too can be taken once."""
        path, _, key = name.rpartition(".")
        array: mx.array = self.modules[path].pop(key)
        return array


def open_weights(ref: str, *, cache: Path | None = None) -> Weights:
    """The checkpoint `ref` (see `resolve`), none of its weights read yet but for their digest.

    cache: as for `load_base`. Raises BaseNotFound or BadCheckpoint.
    """
    path = resolve(ref)
    model, config = load_lazily(path)
    return Weights(ref, path, fingerprint(path, cache=cache), config, model)


def _unpacked_shape(module: Any) -> tuple[int, ...]:
    return (*module.weight.shape[:-1], module.scales.shape[-1] * module.group_size)
