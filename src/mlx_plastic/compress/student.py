"""A compressed checkpoint whose scales and biases can be moved while its codes stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_plastic.backend import is_slow_low_precision, mx, tree_unflatten
from mlx_plastic.base.model import load_lazily
from mlx_plastic.base.widen import dequantized, is_packed, widen
from mlx_plastic.survey.decoding import unpack

Moves = dict[str, dict[str, mx.array]]  # path -> {"scales", "biases"}: how far each is moved, in steps
Stored = dict[str, dict[str, mx.array]]  # path -> {"scales", "biases"} in the 16 bits of the checkpoint


@dataclass(frozen=True)
class Grid:
    """The groups of one matrix (..., out, in), or of a stack of them.

    scales, biases: (..., out, groups) float32. step: the mean size of a scale, which moves are told in.
    codes: (..., out, groups, group_size) uint8; None where the layer computes from its packed codes itself.
    """

    layer: Any
    scales: mx.array
    biases: mx.array
    step: mx.array
    dtype: mx.Dtype
    codes: mx.array | None

    def moved(self, move: Mapping[str, mx.array]) -> tuple[mx.array, mx.array]:
        return self.scales + self.step * move["scales"], self.biases + self.step * move["biases"]

    def wear(self, move: Mapping[str, mx.array], *, rounded: bool) -> None:
        scales, biases = self.moved(move)
        if rounded or self.codes is None:
            scales, biases = scales.astype(self.dtype), biases.astype(self.dtype)
        if self.codes is None:
            self.layer.scales, self.layer.biases = scales, biases
            return
        scales, biases = scales.astype(mx.float32)[..., None], biases.astype(mx.float32)[..., None]
        weight = scales * self.codes.astype(mx.float32) + biases
        self.layer.weight = mx.flatten(weight, -2, -1)


class Student:
    """The model of a checkpoint written by `apply`, in memory.

    Where quantized products are slow (any CPU) layers compute densely, from codes that are unpacked once.
    Only affine layers can be moved.
    """

    def __init__(self, folder: Path) -> None:
        self.model: Any = load_lazily(folder)[0]
        packed = [(path, m) for path, m in self.model.named_modules() if _is_affine(m)]
        found = dict(_grids(packed))
        plain = [(path, grid.layer) for path, grid in found.items() if grid.codes is not None]
        if plain:
            self.model.update_modules(tree_unflatten(plain))
        self.grids = found
        widen(self.model)
        mx.eval(self.model.parameters())
        self.model.freeze()
        self.model.eval()

    def still(self) -> Moves:
        """No move at all."""
        return {
            path: {"scales": mx.zeros(grid.scales.shape), "biases": mx.zeros(grid.scales.shape)}
            for path, grid in self.grids.items()
        }

    def wear(self, moves: Moves, *, rounded: bool = False) -> Any:
        """The model with its groups moved so. rounded: to the 16 bits in which they would be stored."""
        for path, grid in self.grids.items():
            grid.wear(moves[path], rounded=rounded)
        return self.model

    def stored(self, moves: Moves) -> Stored:
        """What the checkpoint has to hold for that."""
        found: Stored = {}
        for path, grid in self.grids.items():
            scales, biases = grid.moved(moves[path])
            found[path] = {"scales": scales.astype(grid.dtype), "biases": biases.astype(grid.dtype)}
        return found


def _is_affine(module: Any) -> bool:
    return is_packed(module) and getattr(module, "mode", "affine") == "affine"


def _grids(packed: list[tuple[str, Any]]) -> Iterator[tuple[str, Grid]]:
    for path, module in packed:
        plain = dequantized(module) if is_slow_low_precision() else None
        scales, biases = (x.astype(mx.float32) for x in (module.scales, module.biases))
        step = mx.maximum(mx.mean(mx.abs(scales)), 1e-12)
        codes = None if plain is None else _codes(module)
        grid = Grid(plain or module, scales, biases, step, module.scales.dtype, codes)
        mx.eval(scales, biases, step)
        yield path, grid


def _codes(module: Any) -> mx.array:
    codes = unpack(np.array(module.weight), module.bits)
    return mx.array(codes.reshape(*module.scales.shape, module.group_size))
