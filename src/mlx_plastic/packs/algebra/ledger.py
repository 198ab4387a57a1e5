"""What a pack's ranks are spent on, and how two packs lie to each other: from the factors alone.

A module declares a rank; its update may use fewer directions. Two updates may pull the same way (cosine), or
act on the same directions of the input (row space) or of the output (column space) without pulling the same
way. Overlap of spaces is by the mean squared cosine of principal angles, between the leading directions that
carry each update (its effective rank, rounded up).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from mlx_plastic.base.roles import natural
from mlx_plastic.errors import BadPack
from mlx_plastic.lowrank.rank import effective_rank, stable_rank
from mlx_plastic.lowrank.svd import Array, product_svd
from mlx_plastic.packs.algebra.updates import inner, norm, product
from mlx_plastic.packs.format.pack import Factors, Pack


@dataclass(frozen=True)
class Line:
    """One module's account, or the sum of all. Of stacked experts the measures are means over the experts."""

    module: str
    declared_rank: float  # rows of a
    effective_rank: float  # exp of the entropy of the singular values: directions that carry the update
    slack: float  # declared less effective
    stable_rank: float  # squared Frobenius over squared spectral norm
    norm: float  # of the update, Frobenius, its scale included
    scale: float  # alpha / rank
    parameters: int


@dataclass(frozen=True)
class Overlap:
    """How two updates of one module lie to each other, or of all modules they share."""

    module: str
    cosine: float  # of the updates as vectors, in [-1, 1]
    column_overlap: float  # of the output directions, in [0, 1]: 1 if one space holds the other
    row_overlap: float  # of the input directions
    column_chance: float  # what random spaces of these sizes would have
    row_chance: float
    column_angle_deg: float  # the smallest principal angle: 0 if they share a direction
    row_angle_deg: float
    norm_ratio: float  # of the second to the first


@dataclass(frozen=True)
class Ledger:
    """Lines by module path in the order of the model's layers, and their sum: ranks and parameters add up,
    the norm is that of all updates together, stable rank and scale are means."""

    name: str
    lines: tuple[Line, ...]
    total: Line


@dataclass(frozen=True)
class Comparison:
    """total: the cosine over all modules of either pack, the overlaps as means over the shared ones."""

    names: tuple[str, str]
    lines: tuple[Overlap, ...]
    total: Overlap
    only: tuple[tuple[str, ...], tuple[str, ...]]  # modules that only the first or only the second updates


def ledger(pack: Pack) -> Ledger:
    """The account of every module of `pack`."""
    lines = tuple(_line(path, pack.factors[path]) for path in sorted(pack.factors, key=natural))
    return Ledger(pack.manifest.name, lines, _sum(lines))


def _line(path: str, f: Factors) -> Line:
    spectra = _spectra(product_svd(*_single(f))[1])
    live = [s for s in spectra if s.any()]
    effective = sum(effective_rank(s) for s in live) / len(spectra)
    stable = sum(stable_rank(s) for s in live) / len(spectra)
    size = float(np.linalg.norm(spectra))
    return Line(path, f.rank, effective, f.rank - effective, stable, size, f.scale, f.parameters)


def _sum(lines: Sequence[Line]) -> Line:
    return Line(
        "all",
        sum(line.declared_rank for line in lines),
        sum(line.effective_rank for line in lines),
        sum(line.slack for line in lines),
        _mean([line.stable_rank for line in lines]),
        math.hypot(*(line.norm for line in lines)),
        _mean([line.scale for line in lines]),
        sum(line.parameters for line in lines),
    )


def compare(one: Pack, other: Pack) -> Comparison:
    """How `other` lies to `one`, for each module that both update.

    Raises BadPack if a module has another shape in each, or if they share none: nothing can be compared then.
    """
    shared = [path for path in sorted(one.factors, key=natural) if path in other.factors]
    faults = [f for path in shared if (f := misfit(path, one.factors[path], other.factors[path]))]
    if faults or not shared:
        raise BadPack(
            f"packs {one.manifest.name!r} and {other.manifest.name!r} cannot be compared: "
            + ("; ".join(faults) or "they share no module"),
            hint="compare packs of one base: plastic packs list",
        )
    lines = tuple(_overlap(path, one.factors[path], other.factors[path]) for path in shared)
    only = tuple(
        tuple(path for path in sorted(mine, key=natural) if path not in theirs)
        for mine, theirs in ((one.factors, other.factors), (other.factors, one.factors))
    )
    total = _total(lines, one.factors, other.factors)
    return Comparison((one.manifest.name, other.manifest.name), lines, total, (only[0], only[1]))


def misfit(path: str, one: Factors, other: Factors) -> str:
    """How the matrices that two updates are for differ; empty if they do not."""
    sizes = [(*f.a.shape[:-2], f.b.shape[-2], f.a.shape[-1]) for f in (one, other)]
    return "" if sizes[0] == sizes[1] else f"{path} is {sizes[0]} in one and {sizes[1]} in the other"


def _overlap(path: str, one: Factors, other: Factors) -> Overlap:
    (u1, s1, v1), (u2, s2, v2) = (product_svd(*_single(f)) for f in (one, other))
    norms = float(np.linalg.norm(s1)), float(np.linalg.norm(s2))
    bases = [(_leading(u1, s1), _leading(u2, s2)), (_leading(v1.mT, s1), _leading(v2.mT, s2))]
    columns, rows = (_spaces(mine, theirs) for mine, theirs in bases)
    both = norms[0] * norms[1]
    return Overlap(
        path,
        inner(product(one), product(other)) / both if both else 0.0,
        columns[0],
        rows[0],
        columns[1],
        rows[1],
        columns[2],
        rows[2],
        norms[1] / norms[0] if norms[0] else 0.0,
    )


def _spaces(ones: list[Array], others: list[Array]) -> tuple[float, float, float]:
    """(overlap, chance, smallest angle in degrees), as means over the experts of a stack."""
    found = []
    for u, v in zip(ones, others, strict=True):
        if not u.shape[1] or not v.shape[1]:
            found.append((0.0, 0.0, 90.0))
            continue
        cosines = np.minimum(np.linalg.svd(u.T @ v, compute_uv=False), 1.0)
        chance = max(u.shape[1], v.shape[1]) / u.shape[0]
        angle = math.degrees(math.acos(float(cosines[0])))
        found.append((float(np.mean(np.square(cosines))), chance, angle))
    overlap, chance, angle = (_mean([row[i] for row in found]) for i in range(3))
    return overlap, chance, angle


def _leading(vectors: Array, s: Array) -> list[Array]:
    """Per expert, the directions (dim, k) that carry the update: as many as its effective rank."""
    stack = vectors.reshape(-1, *vectors.shape[-2:])
    return [
        v[:, : math.ceil(effective_rank(values) - 1e-6) if values.any() else 0]
        for v, values in zip(stack, _spectra(s), strict=True)
    ]


def _total(lines: Sequence[Overlap], one: Mapping[str, Factors], other: Mapping[str, Factors]) -> Overlap:
    products = [{path: product(f) for path, f in factors.items()} for factors in (one, other)]
    norms = [math.hypot(*(norm(*pair) for pair in side.values())) for side in products]
    dot = sum(inner(products[0][line.module], products[1][line.module]) for line in lines)
    both = norms[0] * norms[1]
    measures = [f.name for f in fields(Overlap)][2:-1]
    means = {name: _mean([getattr(line, name) for line in lines]) for name in measures}
    ratio = norms[1] / norms[0] if norms[0] else 0.0
    return Overlap("all", dot / both if both else 0.0, **means, norm_ratio=ratio)


def as_csv(lines: Sequence[Line | Overlap]) -> str:
    """The lines as CSV, their field names as the header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(lines[0])], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(line) for line in lines)
    return text.getvalue()


def _single(f: Factors) -> tuple[Array, Array]:
    b, a = product(f)
    return b.astype(np.float32), a.astype(np.float32)


def _spectra(s: Array) -> Array:
    """(experts, k); values that are rounding alone, under 1e-6 of the largest, become zero."""
    rows = s.reshape(-1, s.shape[-1]).astype(np.float64)
    return np.where(rows > 1e-6 * rows.max(axis=1, keepdims=True), rows, 0.0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
