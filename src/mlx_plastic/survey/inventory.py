"""What lies in a checkpoint: every tensor of every shard, by the headers alone, and what does not fit."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlx_plastic.base.checkpoint import header_length, parse_header
from mlx_plastic.errors import BadCheckpoint
from mlx_plastic.survey.config import Scan
from mlx_plastic.survey.source import Source, read_json

INDEX_ENDING = ".safetensors.index.json"
NPY_DTYPES = {
    **{"<f2": "F16", "<f4": "F32", "<f8": "F64", "|u1": "U8", "|i1": "I8", "<u2": "U16", "<i2": "I16"},
    **{"<u4": "U32", "<i4": "I32", "<u8": "U64", "<i8": "I64", "|b1": "BOOL"},
}


@dataclass(frozen=True)
class Tensor:
    """One tensor of one file. start, stop: its bytes in the file; both -1 for a member of an .npz."""

    file: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    start: int
    stop: int
    in_index: bool | None = None  # None: there is no index
    index_shard: str | None = None

    def row(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "tensor_name": self.name,
            "dtype": self.dtype,
            "shape": "x".join(map(str, self.shape)),
            "ndim": len(self.shape),
            "nbytes": self.nbytes,
            "in_index": self.in_index,
            "index_shard": self.index_shard,
        }


@dataclass
class Inventory:
    """tensors: by file, in the order in which they lie there. by_name: the one of each name that counts."""

    tensors: list[Tensor]
    by_name: dict[str, Tensor]
    model_config: dict[str, Any]
    files: dict[str, int]
    warnings: list[str] = field(default_factory=list)

    @property
    def model_type(self) -> str:
        return str(self.model_config.get("model_type", ""))


def take_inventory(source: Source, scan: Scan) -> Inventory:
    """Raises BadCheckpoint with every damaged shard, and, with strict_index, for an index that lies."""
    warnings: list[str] = []
    index = _read_index(source, scan, warnings)
    files = _files(source, scan, index, warnings)
    tensors = list(_tensors(source, files, index))
    by_name = _unique(tensors, index, warnings)
    if index is not None:
        _check_index(index, by_name, files, scan, warnings)
    return Inventory(tensors, by_name, _model_config(source, warnings), files, warnings)


def _read_index(source: Source, scan: Scan, warnings: list[str]) -> dict[str, str] | None:
    """Tensor name -> shard, or None."""
    names = list(source.sizes([INDEX_ENDING])) if scan.use_safetensors_index_json else []
    if not names:
        if scan.strict_index:
            raise BadCheckpoint("strict_index is set, but there is no index", hint="set it to false")
        return None
    try:
        found = read_json(source, names[0])["weight_map"]
        index = {str(name): str(shard) for name, shard in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if scan.strict_index:
            raise BadCheckpoint(f"{names[0]} holds no weight_map", hint="fetch it again") from error
        warnings.append(f"{names[0]} holds no weight_map: it is not used")
        return None
    strange = sorted(
        {shard for shard in index.values() if "/" in shard or "\\" in shard or shard.startswith(".")}
    )
    if strange:
        raise BadCheckpoint(
            f"{names[0]} names files that are no shards here: {', '.join(map(repr, strange))}"
        )
    return index


def _files(
    source: Source, scan: Scan, index: Mapping[str, str] | None, warnings: list[str]
) -> dict[str, int]:
    there = source.sizes(scan.extensions)
    if index is not None:
        named = set(index.values())
        missing = sorted(named - set(there))
        if missing:
            _complain(scan, warnings, f"shards that the index names are missing: {', '.join(missing)}")
        extra = sorted(set(there) - named)
        if extra:
            warnings.append(
                f"{len(extra)} files that the index does not name are left out: {', '.join(extra[:5])}"
            )
        there = {name: size for name, size in there.items() if name in named}
    if not there:
        raise BadCheckpoint(
            f"no {' or '.join(scan.extensions)} in {source.where}",
            hint="give the folder of the shards; other formats must be converted first",
        )
    return dict(list(there.items())[: scan.max_files])


def _complain(scan: Scan, warnings: list[str], text: str) -> None:
    if scan.strict_index:
        raise BadCheckpoint(text, hint="fetch the checkpoint again, or set scan.strict_index to false")
    warnings.append(text)


def _tensors(source: Source, files: Mapping[str, int], index: Mapping[str, str] | None) -> Iterator[Tensor]:
    faults = []
    for file, size in files.items():
        try:
            found = _npz(source, file) if file.endswith(".npz") else _safetensors(source, file, size)
        except BadCheckpoint as error:
            faults.append(error.message)
            continue
        for name, dtype, shape, nbytes, start in found:
            shard = index.get(name) if index is not None else None
            known = None if index is None else name in index
            yield Tensor(
                file, name, dtype, shape, nbytes, start, start + nbytes if start >= 0 else -1, known, shard
            )
    if faults:
        raise BadCheckpoint("; ".join(faults), hint="fetch those files again")


Found = list[tuple[str, str, tuple[int, ...], int, int]]  # name, dtype, shape, nbytes, start


def _safetensors(source: Source, file: str, size: int) -> Found:
    length = header_length(bytes(source.read(file, 0, min(8, size))), size, file)
    header = bytes(source.read(file, 8, 8 + length))
    infos = parse_header(header, size - 8 - length, file, unknown_dtypes=True)
    placed = sorted(infos.items(), key=lambda item: item[1].offsets)
    return [(n, i.dtype, i.shape, i.nbytes, 8 + length + i.offsets[0]) for n, i in placed]


def _npz(source: Source, file: str) -> Found:
    """The members' own headers; what would have to be unpickled is of dtype "object" and never read."""
    found: Found = []
    try:
        with source.open(file) as opened, zipfile.ZipFile(opened) as archive:
            names = archive.namelist()
            if len(set(names)) < len(names):
                raise BadCheckpoint(f"{file} holds a name twice")
            for member in names:
                with archive.open(member) as inner:
                    shape, dtype = _npy_header(inner)
                kind = NPY_DTYPES.get(dtype.str, "object" if dtype.hasobject else dtype.str)
                nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
                found.append((member.removesuffix(".npy"), kind, shape, nbytes, -1))
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, SyntaxError) as error:
        raise BadCheckpoint(f"{file} is no .npz that can be read ({error})") from error
    return found


def _npy_header(opened: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(opened)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(opened)
    return shape, dtype


def _unique(tensors: list[Tensor], index: Mapping[str, str] | None, warnings: list[str]) -> dict[str, Tensor]:
    """Of tensors with one name the one that the index means, else the first."""
    by_name: dict[str, Tensor] = {}
    for tensor in tensors:
        meant = index is not None and index.get(tensor.name) == tensor.file
        if tensor.name not in by_name or meant:
            by_name[tensor.name] = tensor
    twice = [name for name, count in Counter(t.name for t in tensors).items() if count > 1]
    if twice:
        warnings.append(
            f"{len(twice)} tensors lie in several files; one of each counts: {', '.join(sorted(twice)[:5])}"
        )
    return by_name


def _check_index(
    index: Mapping[str, str],
    found: Mapping[str, Tensor],
    files: Mapping[str, int],
    scan: Scan,
    warnings: list[str],
) -> None:
    lost = sorted(name for name, shard in index.items() if name not in found and shard in files)
    if lost:
        _complain(scan, warnings, f"{len(lost)} tensors of the index are in no shard: {', '.join(lost[:5])}")
    moved = sorted(t.name for t in found.values() if t.name in index and index[t.name] != t.file)
    if moved:
        _complain(
            scan, warnings, f"{len(moved)} tensors lie in another shard than indexed: {', '.join(moved[:5])}"
        )
    unnamed = sorted(name for name in found if name not in index)
    if unnamed:
        warnings.append(f"{len(unnamed)} tensors are not in the index: {', '.join(unnamed[:5])}")


def _model_config(source: Source, warnings: list[str]) -> dict[str, Any]:
    try:
        found = read_json(source, "config.json")
    except ValueError:
        found = "broken"
    if isinstance(found, dict):
        return found
    if found is not None:
        warnings.append("config.json is no JSON object: quantized tensors cannot be decoded without it")
    return {}
