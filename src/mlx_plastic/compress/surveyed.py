"""Rows of a plan from a survey's tables: what was measured once need not be measured again."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlx_plastic.base.weights import Weights
from mlx_plastic.compress.offers import Offer, Row, allowed_by, prior
from mlx_plastic.compress.schemes import KEPT, Scheme
from mlx_plastic.compress.taps import storable
from mlx_plastic.errors import BadConfig
from mlx_plastic.survey.schemes import Mode

EXPERT = re.compile(r"^(?P<head>.*)\.experts\.\d+\.(?P<leaf>\w+)$")
LEAVES = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


@dataclass(frozen=True)
class Measured:
    """One row of `data/quant_sim`: what one scheme does to one matrix. error: relative, Frobenius."""

    tensor: str
    scheme: Scheme
    error: float

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Measured | None:
        """None for a scheme that failed there."""
        error = row["w_rel_fro"]
        if error is None or not math.isfinite(float(error)):
            return None
        mode: Mode = row["mode"]
        scheme = Scheme(int(row["bits"]), int(row["group_size"]), mode)
        return cls(str(row["source_tensor"]), scheme, float(error))


def rows_of(
    table: Iterable[Mapping[str, Any]], weights: Weights, *, floating: bool = False, blocks: int = 0
) -> tuple[list[Row], list[str]]:
    """A row for each matrix that the survey measured, priced by role, and the modules that it did not.

    Experts that lie apart in the file and together in the model share a row: the mean of their squared
    errors. Raises BadConfig if the survey measured no matrix of this checkpoint.
    """
    layers = storable(weights.model)
    squares: dict[str, dict[Scheme, list[float]]] = {}
    for entry in table:
        found = Measured.read(entry)
        path = module_of(found.tensor, layers) if found else None
        if found and path and (found.scheme.mode == "affine" or floating):
            squares.setdefault(path, {}).setdefault(found.scheme, []).append(found.error**2)
    if not squares:
        raise BadConfig(
            f"the survey measured no matrix of {weights.ref}", hint="survey this checkpoint, or leave it out"
        )
    rows = []
    for path in layers:
        if path in squares:
            rows.append(_row(path, weights, layers[path], squares[path], blocks))
    return rows, [path for path in layers if path not in squares]


def module_of(tensor: str, layers: Mapping[str, Any]) -> str | None:
    """The path in the model of a tensor in a file; None if it has none that may be quantized."""
    path = tensor.removesuffix(".weight")
    if path in layers:
        return path
    if not (expert := EXPERT.match(path)):
        return None
    leaf = LEAVES.get(expert["leaf"], expert["leaf"])
    inside = [p for p in layers if p.startswith(expert["head"] + ".") and p.rpartition(".")[2] == leaf]
    return inside[0] if len(inside) == 1 else None


def _row(path: str, weights: Weights, layer: Any, squares: Mapping[Scheme, list[float]], blocks: int) -> Row:
    shape = weights.shapes[f"{path}.weight"]
    *stack, rows, cols = shape
    allowed = allowed_by(weights.model, path, layer)
    errors = {
        s: math.sqrt(sum(some) / len(some)) for s, some in squares.items() if s.fits(cols) and allowed(s)
    }
    role, weight = prior(path, blocks)
    offers = [
        Offer(s, False, s.nbytes(shape), weight * e**2, weight * e**2)
        for s, e in sorted(errors.items(), key=lambda pair: pair[0].nbytes(shape))
    ]
    offers.append(Offer(KEPT, False, KEPT.nbytes(shape), 0.0, 0.0))
    named = {s.name: e for s, e in errors.items()}
    return Row(path, role, math.prod(stack), rows, cols, tuple(offers), named)
