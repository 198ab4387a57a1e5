"""From tensors to matrices: a slab is what is read at once, one canonical (rows, cols) of one weight."""

from __future__ import annotations

import itertools
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.errors import BadCheckpoint
from mlx_plastic.survey.decoding import as_array, decode
from mlx_plastic.survey.encoding import Unreadable, Weight, gather, is_companion
from mlx_plastic.survey.inventory import Inventory, Tensor
from mlx_plastic.survey.places import Cut, PackedSplitError, Place, cuts
from mlx_plastic.survey.rules import Placer
from mlx_plastic.survey.source import Source

Array = NDArray[Any]


@dataclass(frozen=True)
class Slab:
    """One canonical matrix of a weight. index: its place along the stacked axes of the layout."""

    weight: Weight
    place: Place
    index: tuple[int, ...]
    cuts: tuple[Cut, ...]

    @property
    def nbytes(self) -> int:
        """Of this slab in its file."""
        count = math.prod((self.place.reshaped or self.weight.shape)[a] for a in self.place.layout.stacked)
        return self.weight.tensor.nbytes // max(1, count)

    def identity(self, cut: Cut) -> dict[str, Any]:
        """The columns by which a matrix is known in every table."""
        layout, place = self.place.layout, self.place
        at = dict(zip(layout.stacked, self.index, strict=True))
        layer = at[layout.layer] if layout.layer is not None else place.layer
        expert = at[layout.expert] if layout.expert is not None else place.expert
        marks = [f"layer={layer}"] if layout.layer is not None else []
        marks += [f"expert={expert}"] if layout.expert is not None else []
        derived = self.weight.tensor.name + (f"[{','.join(marks)}]" if marks else "")
        derived += f".{cut.proj}" if len(self.cuts) > 1 else ""
        return {
            "file": self.weight.tensor.file,
            "source_tensor": self.weight.tensor.name,
            "derived_tensor": derived,
            "layer": layer,
            "block4": None if layer is None else layer // 4,
            "proj": cut.proj,
            "expert_id": expert,
            "is_routed_expert": place.kind == "experts",
            "is_shared_expert": place.kind == "shared",
            "kind": place.kind,
            "rows": cut.rows,
            "cols": cut.cols,
            "dtype": self.weight.dtype,
        }


@dataclass
class Found:
    """All slabs of a checkpoint, by file; unmatched: what has two axes or more and is none of them."""

    slabs: dict[str, list[Slab]]
    unmatched: list[dict[str, Any]]
    warnings: list[str]


def find_slabs(
    inventory: Inventory, placer: Placer, *, experts_only: bool, shared: bool, strict: bool
) -> Found:
    """Raises PackedSplitError if `strict`; else a mismatch is one warning and the weight stays whole."""
    found = Found({file: [] for file in inventory.files}, [], [])
    faults: dict[str, list[str]] = {}
    for tensor in inventory.tensors:
        if inventory.by_name[tensor.name] is not tensor or len(tensor.shape) < 2:
            continue
        if is_companion(tensor.name, inventory.by_name):
            continue
        try:
            weight = gather(tensor.name, inventory.by_name, inventory.model_config)
            place = placer.place(weight.name, weight.shape)
        except Unreadable as error:
            place = str(error)
        if isinstance(place, str):
            found.unmatched.append({**tensor.row(), "reason": place})
        elif shared if place.kind == "shared" else place.kind == "experts" or not experts_only:
            found.slabs[tensor.file] += _slabs(weight, place, faults)
    _tell_splits(faults, found.warnings, strict)
    return found


def _slabs(weight: Weight, place: Place, faults: dict[str, list[str]]) -> Iterator[Slab]:
    shape = place.reshaped or weight.shape
    try:
        parts = cuts(place, shape, weight.tensor.name)
    except PackedSplitError as error:
        faults.setdefault(place.rule, []).append(error.message)
        place = replace(place, split=None)
        parts = cuts(place, shape, weight.tensor.name)
    if 0 in shape:
        return
    for index in itertools.product(*(range(shape[axis]) for axis in place.layout.stacked)):
        yield Slab(weight, place, index, tuple(parts))


def _tell_splits(faults: Mapping[str, list[str]], warnings: list[str], strict: bool) -> None:
    told = [
        f"{len(f)} fused tensors do not fit rule {rule!r}: {'; '.join(f[:3])}" for rule, f in faults.items()
    ]
    if told and strict:
        raise PackedSplitError(
            "; ".join(told), hint="mend packed_split, or set parsing.strict_packed_split to false"
        )
    warnings += [f"{text}; they stay whole" for text in told]


class Room:
    """Memory that is read into again and again: fresh pages cost a quarter of the time of a survey."""

    def __init__(self) -> None:
        self._kept: dict[str, Array] = {}

    def of(self, part: str, nbytes: int) -> memoryview:
        """So many bytes for a part of a weight; what they held before is overwritten."""
        if part not in self._kept or len(self._kept[part]) < nbytes:
            self._kept.pop(part, None)  # before its successor is there
            self._kept[part] = np.empty(nbytes, np.uint8)
        return self._kept[part][:nbytes].data


def read_slab(source: Source, slab: Slab, room: Room) -> tuple[Array, str]:
    """The slab as the kernel takes it, codes of 2-byte floats or float32, and its type.

    It may be a view into the room: then it holds until the next slab is read there.
    """
    weight, stacked = slab.weight, slab.place.layout.stacked
    shape = slab.place.reshaped or weight.shape
    leading = stacked == tuple(range(len(stacked)))  # then only this slab's bytes are read
    index = slab.index if leading else ()
    whole = slab.place.reshaped if index and slab.place.reshaped else weight.tensor.shape
    main = _part(source, weight.tensor, whole, index, room, "weight")
    parts = {
        name: _part(source, tensor, tensor.shape, _own(index, tensor, whole), room, name)
        for name, tensor in weight.parts.items()
    }
    values, dtype = decode(weight, main, parts)
    if leading:
        values = values.reshape([n for axis, n in enumerate(shape) if axis not in stacked])
    else:
        at = dict(zip(stacked, slab.index, strict=True))
        values = values.reshape(shape)[tuple(at.get(axis, slice(None)) for axis in range(len(shape)))]
    return values.T if slab.place.layout.rows > slab.place.layout.cols else values, dtype


def _own(index: tuple[int, ...], part: Tensor, whole: tuple[int, ...]) -> tuple[int, ...]:
    """Where the index leads in a part: nowhere if that is one for the whole stack."""
    return index if part.shape[: len(index)] == whole[: len(index)] else ()


def _part(
    source: Source, tensor: Tensor, shape: tuple[int, ...], index: tuple[int, ...], room: Room, name: str
) -> Array:
    """What lies at an index of the leading axes."""
    if tensor.start < 0:
        found: Array = _npz_member(source, tensor).reshape(shape)[index]
        return found
    inner, outer = shape[len(index) :], shape[: len(index)]
    size = tensor.nbytes // math.prod(outer)
    at = int(np.ravel_multi_index(index, outer)) if index else 0
    start = tensor.start + at * size
    raw = source.read(tensor.file, start, start + size, room.of(name, size))
    return as_array(raw, tensor.dtype, inner)


def _npz_member(source: Source, tensor: Tensor) -> Array:
    try:
        with source.open(tensor.file) as opened, zipfile.ZipFile(opened) as archive:
            found: Array = np.lib.format.read_array(archive.open(f"{tensor.name}.npy"), allow_pickle=False)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise BadCheckpoint(f"{tensor.file}: {tensor.name} cannot be read ({error})") from error
    found = np.ascontiguousarray(found)
    return found.view(np.uint16) if found.dtype == np.float16 else found
