"""Adapters on disk: written whole or not at all, and read with the suspicion that our own packs meet."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from mlx_plastic.errors import BadPack, Taken
from mlx_plastic.home import sync, sync_folder
from mlx_plastic.packs.convert.fold import Hint, Update
from mlx_plastic.packs.format.tensors import MAX_MODULES, Array, Factors
from mlx_plastic.packs.format.untrusted import Entry, Tensors, parse_json, read_plain, read_safetensors

CONFIG = "adapter_config.json"  # so called by PEFT and by mlx-lm
MAX_CONFIG_BYTES = 4 << 20
MAX_TENSOR_BYTES = 4 << 30
MAX_PATH = 240  # characters of a module path
HINTS = "mlx-plastic.ranks-and-alphas"  # a key of the tensors' metadata: {module path: [rank, alpha]}

FLOAT32_MAX = float(np.finfo(np.float32).max)
PATH = re.compile(r"(?:[A-Za-z0-9_]+\.)*[A-Za-z0-9_]+")
_FLOATS = ("F16", "BF16", "F32")


@dataclass(frozen=True)
class Foreign:
    """An adapter that was read and found sound in itself; nothing is known yet of the base it fits."""

    updates: dict[str, Update]  # by module path
    config: dict[str, Any]
    digest: str  # sha256 of the file of tensors
    hints: dict[str, Hint] = field(default_factory=dict)


def tensor_file(tensors: Mapping[str, Array], factors: Mapping[str, Factors], *, framework: str) -> bytes:
    """A safetensors file of `tensors` whose metadata say which ranks and alphas `factors` had.

    framework: what the readers of that format look for, "pt" or "mlx".
    """
    hints = {path: [f.rank, float(np.float32(f.alpha))] for path, f in sorted(factors.items())}
    metadata = {"format": framework, HINTS: json.dumps(hints, separators=(",", ":"))}
    return safetensors.numpy.save({n: np.ascontiguousarray(t) for n, t in tensors.items()}, metadata)


def config_file(config: Mapping[str, Any]) -> bytes:
    return (json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


@contextmanager
def beside(out: Path) -> Iterator[Path]:
    """A path beside `out` to write to, which becomes `out` if the block ends well and is removed if not.

    Raises Taken if `out` exists already.
    """
    check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    _remove(part)
    try:
        yield part
        for path in [part, *part.rglob("*")]:
            if path.is_file():
                with open(path, "rb+") as file:
                    sync(file.fileno())
        os.replace(part, out)
        sync_folder(out.parent)
    except BaseException:
        _remove(part)
        raise


def check_free(out: Path) -> None:
    """Raises Taken if something lies at `out`: nothing is ever overwritten."""
    if os.path.lexists(out):
        raise Taken(f"{out} is there already", hint="choose another --out, or remove it first")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_folder(out: Path, files: Mapping[str, bytes]) -> None:
    """A new folder with these files in it."""
    out.mkdir()
    for name, data in files.items():
        (out / name).write_bytes(data)


def read_files(folder: Path, tensors: str, *, pickled: Mapping[str, str]) -> tuple[dict[str, Any], Tensors]:
    """adapter_config.json and the file `tensors` of a foreign adapter; its other files are not opened.

    pickled: names of older, unsafe files of that format, and what to do about one of them. Raises BadPack
    with every fault at once.
    """
    if not folder.is_dir():
        raise BadPack(f"{folder} is not a folder", hint=f"give the folder that holds {CONFIG} and {tensors}")
    if not (folder / tensors).exists():
        for name, advice in pickled.items():
            if (folder / name).exists():
                raise BadPack(f"{folder} holds its tensors in {name}, which is not opened", hint=advice)
    faults: list[str] = []
    described = read_plain(_real(folder, CONFIG), MAX_CONFIG_BYTES, faults)
    config = parse_json(described, CONFIG, faults) if described is not None else None
    found = read_safetensors(
        _real(folder, tensors), MAX_TENSOR_BYTES, faults, most=4 * MAX_MODULES, metadata=True
    )
    refuse(folder, faults)
    assert config is not None and found is not None
    return config, found


def _real(folder: Path, name: str) -> str:
    """The file's own path; a link counts only as the hub's cache uses it: snapshots/x/name -> blobs/y."""
    path = folder.absolute() / name
    if path.is_symlink() and path.resolve().parent == (folder.resolve().parent.parent / "blobs"):
        return str(path.resolve())
    return str(path)


def refuse(folder: Path, faults: list[str], hint: str = "") -> None:
    """Raises BadPack that lists the faults, if there are any."""
    if faults:
        shown = faults[:40] + ([f"and {len(faults) - 40} more"] if len(faults) > 40 else [])
        raise BadPack(
            f"{folder} cannot be taken in:" + "".join(f"\n  - {fault}" for fault in shown),
            hint=hint or "get the adapter again from where it came",
        )


def entry_faults(name: str, path: str, entry: Entry) -> list[str]:
    """What is wrong with a tensor by its header alone."""
    faults = []
    if len(path) > MAX_PATH or not PATH.fullmatch(path):
        faults.append(f"tensor {name[:MAX_PATH]!r} names no module")
    if entry.dtype not in _FLOATS:
        faults.append(f"tensor {name!r} is {entry.dtype}, not one of {', '.join(_FLOATS)}")
    if len(entry.shape) not in (2, 3) or 0 in entry.shape:
        faults.append(f"tensor {name!r} has shape {list(entry.shape)}, not that of a factor")
    return faults


def pair_faults(path: str, a: Array, b: Array) -> list[str]:
    """What keeps a (rank, in) and b (out, rank), or stacks of them, from being one update."""
    if a.ndim != b.ndim or a.shape[:-2] != b.shape[:-2] or a.shape[-2] != b.shape[-1]:
        return [f"{path} has up and down factors that do not fit: {list(b.shape)} and {list(a.shape)}"]
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return [f"{path} has values that are not finite"]
    return []


def digest(tensors: Tensors) -> str:
    return hashlib.sha256(tensors.data).hexdigest()


def hints_of(tensors: Tensors) -> dict[str, Hint]:
    """The ranks and alphas that `tensor_file` noted; anything of another form is as good as nothing.

    They are not believed: `halved` follows one only where it leads back to the very same numbers.
    """
    quiet: list[str] = []
    header = parse_json(bytes(tensors.data[8 : tensors.body]), "", quiet) or {}
    metadata = header.get("__metadata__")
    text = metadata.get(HINTS) if isinstance(metadata, dict) else None
    noted = parse_json(text.encode("utf-8"), "", quiet) if isinstance(text, str) else None
    return {path: (value[0], float(value[1])) for path, value in (noted or {}).items() if _is_hint(value)}


def _is_hint(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and type(value[0]) is int
        and 0 < value[0] < 1 << 20
        and isinstance(value[1], int | float)
        and 0 < value[1] < FLOAT32_MAX
    )
