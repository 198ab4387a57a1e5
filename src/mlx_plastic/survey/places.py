"""What a weight is in its model: layer, projection, expert, and which of its axes are rows and columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from mlx_plastic.errors import PlasticError


class PackedSplitError(PlasticError):
    """A fused matrix does not have the size that its rule splits.

    To do: mend `packed_split` of that rule in the survey's config, or set `strict_packed_split` to false:
    then it is warned of and taken whole.
    """

    code = "PLASTIC-S001"


@dataclass(frozen=True)
class Layout:
    """Axes of the tensor; those that are None it has not. Canonical are (layer, expert, rows, cols)."""

    layer: int | None = None
    expert: int | None = None
    rows: int = 0
    cols: int = 1

    @property
    def stacked(self) -> tuple[int, ...]:
        return tuple(axis for axis in (self.layer, self.expert) if axis is not None)


@dataclass(frozen=True)
class Split:
    """A fused matrix and what it is fused of. sizes: of each along the axis; None: equal parts.

    interleaved: row i belongs to the part i % n, and not to one block of rows.
    """

    axis: Literal["rows", "cols"]
    projs: tuple[str, ...]
    sizes: tuple[int, ...] | None = None
    interleaved: bool = False


@dataclass(frozen=True)
class Place:
    """kind: experts, shared, attn, mlp, mixer, router, head, embed or other. proj: gate_proj, q_proj ….

    layer, expert: None where the name tells none; an axis of the layout may tell it instead.
    reshaped: the axes that the tensor's own hide, as (experts, rows, cols) kept as (experts * rows, cols).
    """

    rule: str
    kind: str
    proj: str
    layer: int | None = None
    expert: int | None = None
    layout: Layout = Layout()
    split: Split | None = None
    reshaped: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Cut:
    """Which part of a canonical matrix (rows, cols) one projection is: the slice along `axis`."""

    proj: str
    rows: int
    cols: int
    axis: int = 0
    start: int = 0
    stop: int | None = None
    step: int = 1

    @property
    def window(self) -> tuple[slice, slice]:
        part = slice(self.start, self.stop, self.step)
        return (part, slice(None)) if self.axis == 0 else (slice(None), part)


def cuts(place: Place, shape: Sequence[int], name: str) -> list[Cut]:
    """The matrices that one canonical (rows, cols) of the weight holds. Raises PackedSplitError."""
    rows, cols = shape[place.layout.rows], shape[place.layout.cols]
    split = place.split
    if split is None:
        return [Cut(place.proj, rows, cols)]
    axis = 0 if split.axis == "rows" else 1
    whole, count = (rows, cols)[axis], len(split.projs)
    sizes = split.sizes or (whole // count,) * count
    if sum(sizes) != whole or (split.interleaved and len(set(sizes)) > 1):
        wanted = " + ".join(map(str, sizes)) if split.sizes else f"{count} equal parts"
        raise PackedSplitError(
            f"{name}: rule {place.rule!r} splits {split.axis} into {wanted}, but there are {whole}",
            hint="mend packed_split, or set parsing.strict_packed_split to false",
        )
    return list(_cuts(split, axis, sizes, rows, cols))


def _cuts(split: Split, axis: int, sizes: Sequence[int], rows: int, cols: int) -> Iterator[Cut]:
    at = 0
    for i, (proj, size) in enumerate(zip(split.projs, sizes, strict=True)):
        shape = (size, cols) if axis == 0 else (rows, size)
        if split.interleaved:
            yield Cut(proj, *shape, axis, i, None, len(split.projs))
        else:
            yield Cut(proj, *shape, axis, at, at + size)
        at += size
