"""A pack on disk: manifest.json and pack.safetensors, written whole and read with suspicion.

Nothing here imports MLX. A pack that comes from elsewhere is checked to the last byte, with numpy, before
any of it reaches a model. What each part looks like is said in `manifest` and `tensors`.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import shutil
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_plastic.errors import BadPack
from mlx_plastic.home import sync, sync_folder
from mlx_plastic.lowrank.quantized import GROUP_SIZE
from mlx_plastic.packs.format.lite import LITE_ATTENTION_RANK, LITE_BYTES, check_lite, is_attention
from mlx_plastic.packs.format.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    DataCard,
    Manifest,
    RunCard,
    Sizes,
    Storage,
    check_name,
    checked_bytes,
    manifest_value,
    parse_manifest,
)
from mlx_plastic.packs.format.sign import MAX_SIGNATURE_BYTES, SIGNATURE, Signature, parse_signature
from mlx_plastic.packs.format.tensors import (
    MAX_MODULES,
    TENSORS,
    Factors,
    parse_factors,
    stored_bytes,
    stored_factors,
    tensor_bytes,
)
from mlx_plastic.packs.format.untrusted import Tensors, opened_folder, read_plain, read_safetensors

__all__ = [  # what the other rooms take from here
    "FORMAT_VERSION",
    "GROUP_SIZE",
    "LITE_ATTENTION_RANK",
    "LITE_BYTES",
    "MANIFEST",
    "TENSORS",
    "DataCard",
    "Factors",
    "Files",
    "Manifest",
    "Pack",
    "RunCard",
    "Sizes",
    "Storage",
    "check_lite",
    "check_name",
    "is_attention",
    "make_manifest",
    "manifest_value",
    "put_file",
    "read_files",
    "read_manifest",
    "read_pack",
    "stored_bytes",
    "stored_factors",
    "tensor_bytes",
    "write_files",
    "write_pack",
]

MAX_TENSOR_BYTES = 4 << 30  # a file beyond this is not a small delta of anything

_BESIDE = (".DS_Store",)  # what a file manager drops into every folder it shows


@dataclass(frozen=True)
class Pack:
    """A verified pack in memory."""

    manifest: Manifest
    factors: dict[str, Factors]  # by module path
    signature: Signature | None = None  # of the right form; whether it is genuine `sign.is_genuine` says


@dataclass(frozen=True)
class Files:
    """What lies in a pack's folder, read once: the bytes that were checked are the bytes that are used."""

    manifest: bytes | None
    tensors: Tensors | None
    signature: bytes | None = None

    @property
    def named(self) -> dict[str, bytes | memoryview]:
        """The files there are, by name."""
        found = {
            TENSORS: self.tensors.data if self.tensors else None,
            MANIFEST: self.manifest,
            SIGNATURE: self.signature,
        }
        return {name: data for name, data in found.items() if data is not None}


def make_manifest(
    factors: Mapping[str, Factors],
    *,
    name: str,
    base_id: str,
    base_fingerprint: str,
    training: Mapping[str, Any],
    data: DataCard,
    run: RunCard,
    parents: tuple[str, ...] = (),
    lineage: tuple[str, ...] = (),
    evals: Mapping[str, Any] = types.MappingProxyType({}),
    created: datetime.datetime | None = None,
    storage: Storage = "float16",
    group_size: int = GROUP_SIZE,
) -> Manifest:
    """The manifest of `factors`: what follows from the numbers is computed here, the rest is given.

    storage: what A and B are stored as; group_size: values that share one scale, of int8 and int4.
    """
    tensors = tensor_bytes(factors, storage, group_size)
    when = created or datetime.datetime.now(datetime.UTC)
    return Manifest(
        name=check_name(name),
        base_id=base_id,
        base_fingerprint=base_fingerprint,
        target_modules=tuple(sorted(factors)),
        rank_map={path: factors[path].rank for path in sorted(factors)},
        alpha_map={path: float(np.float32(factors[path].alpha)) for path in sorted(factors)},
        training=dict(training),
        data=data,
        run=run,
        parents=parents,
        lineage=lineage,
        evals=dict(evals),
        sizes=Sizes(len(tensors), sum(f.parameters for f in factors.values())),
        created=when.astimezone(datetime.UTC).isoformat(timespec="seconds"),
        sha256=hashlib.sha256(tensors).hexdigest(),
        storage=storage,
        group_size=None if storage == "float16" else group_size,
    )


def write_pack(folder: Path, factors: Mapping[str, Factors], manifest: Manifest) -> Path:
    """Write the pack to `folder`, which must not exist: beside, synced, then renamed.

    The manifest says in which storage. Raises ValueError if it is not that of these factors.
    """
    tensors = tensor_bytes(factors, manifest.storage, manifest.group_size or GROUP_SIZE)
    described = checked_bytes(manifest)
    faults = _fit_faults(manifest, factors, memoryview(tensors))
    if faults:
        raise ValueError(f"the manifest is not of these factors: {'; '.join(faults)}")
    return write_files(folder, {TENSORS: tensors, MANIFEST: described})


def write_files(folder: Path, files: Mapping[str, bytes | memoryview]) -> Path:
    """A new folder of these files: beside, synced, then renamed. Raises FileExistsError if it is there."""
    if folder.exists():
        raise FileExistsError(f"{folder} is there already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir()
        for name, data in files.items():
            with open(beside / name, "xb") as file:
                file.write(data)
                file.flush()
                sync(file.fileno())
        sync_folder(beside)
        os.replace(beside, folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return folder


def put_file(folder: Path, name: str, data: bytes) -> None:
    """Replace or add one file of a pack; it is made beside the folder, so a crash leaves no foreign file."""
    folder = folder.resolve()  # "." has no name
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            sync(file.fileno())
        os.replace(beside, folder / name)
        sync_folder(folder)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone, its form checked: for lists. Raises BadPack with every fault of it."""
    faults: list[str] = []
    files = _read_files(folder, faults, tensors=False)
    manifest = parse_manifest(files.manifest, faults)
    return _sound(folder, manifest, faults)


def read_pack(folder: Path) -> Pack:
    """The pack in `folder`, verified: the bytes returned are the bytes whose sha256 was compared.

    int8 and int4 factors come as the float16 numbers they stand for. Raises BadPack with every fault at
    once: foreign files and links, a header out of bounds, wrong names, types, shapes or values, and
    whatever the manifest says that is not so.
    """
    return read_files(folder)[0]


def read_files(folder: Path) -> tuple[Pack, Files]:
    """As `read_pack`, with the very bytes that were verified."""
    faults: list[str] = []
    files = _read_files(folder, faults)
    manifest = parse_manifest(files.manifest, faults)
    factors: dict[str, Factors] = {}
    if manifest is not None:  # without it nobody knows how the numbers are stored
        factors = parse_factors(files.tensors, manifest.storage, manifest.group_size, faults)
        if files.tensors is not None:
            faults += _fit_faults(manifest, factors, files.tensors.data)
    signature = None if files.signature is None else parse_signature(files.signature, faults)
    return Pack(_sound(folder, manifest, faults), factors, signature), files


def _read_files(folder: Path, faults: list[str], *, tensors: bool = True) -> Files:
    """The files of a pack's folder, each read once. Raises BadPack if there is no such folder."""
    try:
        with opened_folder(folder, faults, (TENSORS, MANIFEST, SIGNATURE, *_BESIDE)) as at:
            described = read_plain(MANIFEST, MAX_MANIFEST_BYTES, faults, at=at)
            if not tensors:
                return Files(described, None)
            found = read_safetensors(TENSORS, MAX_TENSOR_BYTES, faults, at=at, most=5 * MAX_MODULES)
            try:
                os.stat(SIGNATURE, dir_fd=at, follow_symlinks=False)
            except FileNotFoundError:  # it is optional
                return Files(described, found)
            return Files(described, found, read_plain(SIGNATURE, MAX_SIGNATURE_BYTES, faults, at=at))
    except OSError as error:
        what = "is a link, not a folder" if folder.is_symlink() else f"cannot be opened: {error.strerror}"
        raise BadPack(f"{folder} {what}", hint=f"a pack is a folder with {MANIFEST} and {TENSORS}") from error


def _sound(folder: Path, manifest: Manifest | None, faults: list[str]) -> Manifest:
    if faults or manifest is None:
        shown = faults[:40] + ([f"and {len(faults) - 40} more"] if len(faults) > 40 else [])
        raise BadPack(
            f"{folder} is not a sound pack:" + "".join(f"\n  - {fault}" for fault in shown),
            hint="get the pack again from where it came, or go back: plastic rollback",
        )
    return manifest


def _fit_faults(m: Manifest, factors: Mapping[str, Factors], tensors: memoryview) -> list[str]:
    """Where the manifest and the tensors beside it disagree."""
    faults = []
    if hashlib.sha256(tensors).hexdigest() != m.sha256:
        faults.append(f"{TENSORS} is not the file the manifest was written for (sha256 differs)")
    if m.sizes.tensor_bytes != len(tensors):
        faults.append(f"sizes.tensor_bytes is {m.sizes.tensor_bytes}, the file has {len(tensors)}")
    if not factors:
        return faults
    if m.sizes.parameters != sum(f.parameters for f in factors.values()):
        faults.append("sizes.parameters is not the number of values in the tensors")
    if m.target_modules != tuple(sorted(factors)):
        faults.append("target_modules are not the modules of the tensors")
    if m.rank_map != {path: f.rank for path, f in factors.items()}:
        faults.append("rank_map is not the ranks of the tensors")
    if m.alpha_map != {path: float(np.float32(f.alpha)) for path, f in factors.items()}:
        faults.append("alpha_map is not the alphas of the tensors")
    return faults
