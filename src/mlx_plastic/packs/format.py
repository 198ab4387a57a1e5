"""A pack on disk: manifest.json and pack.safetensors, written whole and read with suspicion.

Nothing here imports MLX. A pack that comes from elsewhere is checked to the last byte, with numpy, before
any of it reaches a model.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import math
import os
import re
import shutil
import stat
import types
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from mlx_plastic.errors import BadPack
from mlx_plastic.home import sync, sync_folder

FORMAT_VERSION = 1
TENSORS = "pack.safetensors"
MANIFEST = "manifest.json"

MAX_TENSOR_BYTES = 4 << 30  # a file beyond this is not a small delta of anything
MAX_HEADER_BYTES = 16 << 20
MAX_MANIFEST_BYTES = 16 << 20
MAX_MODULES = 32_768
MAX_NAME = 256  # characters of a module path

LITE_ATTENTION_RANK = 8
LITE_BYTES = 10_000_000

_TENSOR_NAME = re.compile(r"((?:[A-Za-z0-9_]+\.)+)lora\.(A|B|alpha)")
_PACK_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_RESERVED = ("base", "state.json")
_BESIDE = (".DS_Store",)  # what a file manager drops into every folder it shows
_WIDTHS = {"F16": 2, "F32": 4}

Array = NDArray[Any]


@dataclass(frozen=True)
class Factors:
    """One module's update: W + (alpha / rank) * B @ A.

    a: (rank, in), b: (out, rank), both float16; with stacked experts (E, rank, in) and (E, out, rank).
    """

    a: Array
    b: Array
    alpha: float

    @property
    def rank(self) -> int:
        return int(self.a.shape[-2])

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def parameters(self) -> int:
        return self.a.size + self.b.size


@dataclass(frozen=True)
class DataCard:
    """What was learned from, in counts only."""

    digest: str  # sha256 of the samples
    samples: int
    tokens: int
    supervised_tokens: int
    kinds: dict[str, int] = field(default_factory=dict)  # samples by what made them


@dataclass(frozen=True)
class RunCard:
    """How the training went."""

    steps: int
    seconds: float
    tokens_per_s: float  # tokens that are no padding
    peak_memory_mb: float


@dataclass(frozen=True)
class Sizes:
    tensor_bytes: int  # of pack.safetensors
    parameters: int


@dataclass(frozen=True)
class Manifest:
    """Everything about a pack but its numbers. On disk it has exactly these keys."""

    name: str
    base_id: str
    base_fingerprint: str  # over config, tokenizer and every shard
    target_modules: tuple[str, ...]
    rank_map: dict[str, int]
    alpha_map: dict[str, float]
    training: dict[str, Any]  # the settings, as TrainConfig names them
    data: DataCard
    run: RunCard
    parents: tuple[str, ...]  # packs this one grew from
    lineage: tuple[str, ...]  # ids of the turns learned from
    evals: dict[str, Any]
    sizes: Sizes
    created: str  # ISO 8601, UTC
    sha256: str  # of pack.safetensors
    storage: Literal["float16"] = "float16"
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class Pack:
    """A verified pack in memory."""

    manifest: Manifest
    factors: dict[str, Factors]  # by module path


def check_name(name: str) -> str:
    """`name` if a pack may be called so. Raises BadPack: a name is also a folder, so it has no way out."""
    if not _PACK_NAME.fullmatch(name) or name in _RESERVED:
        raise BadPack(
            f"{name!r} is no name for a pack",
            hint="use 1-64 of a-z 0-9 . _ - beginning with a letter or digit; 'base' means no pack",
        )
    return name


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
) -> Manifest:
    """The manifest of `factors`: what follows from the numbers is computed here, the rest is given."""
    tensors = tensor_bytes(factors)
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
    )


def tensor_bytes(factors: Mapping[str, Factors]) -> bytes:
    """The factors as a safetensors file; the same factors give the same bytes.

    Raises ValueError for factors that no reader would take back.
    """
    tensors: dict[str, Array] = {}
    for path, f in factors.items():
        tensors[f"{path}.lora.A"] = np.ascontiguousarray(f.a, np.float16)
        tensors[f"{path}.lora.B"] = np.ascontiguousarray(f.b, np.float16)
        tensors[f"{path}.lora.alpha"] = np.array(f.alpha, np.float32)
    faults = _tensor_faults({n: (_kind(t), t.shape) for n, t in tensors.items()}) or _value_faults(tensors)
    if faults:
        raise ValueError("; ".join(faults))
    return safetensors.numpy.save(tensors)


def _kind(tensor: Array) -> str:
    return {"float16": "F16", "float32": "F32"}[tensor.dtype.name]


def write_pack(folder: Path, factors: Mapping[str, Factors], manifest: Manifest) -> Path:
    """Write the pack to `folder`, which must not exist: beside, synced, then renamed.

    Raises ValueError if the manifest is not that of these factors.
    """
    tensors = tensor_bytes(factors)
    described = _manifest_bytes(manifest)
    faults = _fit_faults(manifest, factors, tensors)
    if faults:
        raise ValueError(f"the manifest is not of these factors: {'; '.join(faults)}")
    if folder.exists():
        raise FileExistsError(f"{folder} is there already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir()
        for name, data in ((TENSORS, tensors), (MANIFEST, described)):
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


def _manifest_bytes(manifest: Manifest) -> bytes:
    text = json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone, its keys and types checked; the tensors are not opened.

    Raises BadPack with every fault at once.
    """
    faults: list[str] = []
    manifest = _parse_manifest(_read_regular(folder / MANIFEST, MAX_MANIFEST_BYTES, faults), faults)
    return _sound(folder, manifest, faults)


def read_pack(folder: Path) -> Pack:
    """The pack in `folder`, verified: the bytes returned are the bytes whose sha256 was compared.

    Raises BadPack with every fault at once: foreign files and links, a header out of bounds, wrong names,
    types, shapes or values, and whatever the manifest says that is not so.
    """
    faults = _folder_faults(folder)
    described = _read_regular(folder / MANIFEST, MAX_MANIFEST_BYTES, faults)
    tensors = _read_regular(folder / TENSORS, MAX_TENSOR_BYTES, faults)
    manifest = _parse_manifest(described, faults)
    factors = _parse_tensors(tensors, faults)
    if manifest is not None and tensors is not None:
        faults += _fit_faults(manifest, factors, tensors)
    return Pack(_sound(folder, manifest, faults), factors)


def _sound(folder: Path, manifest: Manifest | None, faults: list[str]) -> Manifest:
    if faults or manifest is None:
        raise BadPack(
            f"{folder} is not a sound pack:" + _listed(faults),
            hint="get the pack again from where it came, or go back: plastic rollback",
        )
    return manifest


def _listed(faults: list[str], most: int = 40) -> str:
    shown = faults[:most] + ([f"and {len(faults) - most} more"] if len(faults) > most else [])
    return "".join(f"\n  - {fault}" for fault in shown)


def check_lite(manifest: Manifest) -> None:
    """The guardrails of the profile `lite`: attention ranks <= 8 and at most 10 MB.

    Raises BadPack with every module that breaks them.
    """
    faults = [
        f"{path} has rank {rank}, more than {LITE_ATTENTION_RANK}"
        for path, rank in manifest.rank_map.items()
        if rank > LITE_ATTENTION_RANK and is_attention(path)
    ]
    if manifest.sizes.tensor_bytes > LITE_BYTES:
        faults.append(f"{manifest.sizes.tensor_bytes / 1e6:.1f} MB is more than {LITE_BYTES / 1e6:.0f} MB")
    if faults:
        raise BadPack(
            f"pack {manifest.name!r} is beyond the profile lite:" + _listed(faults),
            hint="train with a smaller rank or fewer roles",
        )


def is_attention(path: str) -> bool:
    """Whether the module at `path` belongs to attention, by the names that model code uses."""
    return any("attn" in part or "attention" in part for part in path.split("."))


def _folder_faults(folder: Path) -> list[str]:
    """What lies in the folder that should not. Raises BadPack if there is no such folder."""
    if not folder.is_dir():
        raise BadPack(f"{folder} is not a folder", hint="a pack is a folder with two files")
    if folder.is_symlink():
        return [f"{folder.name} is a link"]
    names = sorted(entry.name for entry in os.scandir(folder))
    return [
        f"{name!r} does not belong in a pack" for name in names if name not in (TENSORS, MANIFEST, *_BESIDE)
    ]


def _read_regular(path: Path, limit: int, faults: list[str]) -> bytes | None:
    """The bytes of a plain file of at most `limit` bytes; links, pipes and devices are not opened."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            faults.append(f"{path.name} is not a plain file")
            return None
        if found.st_size > limit:
            faults.append(f"{path.name} has {found.st_size} bytes, more than {limit}")
            return None
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            return file.read(limit)
    except FileNotFoundError:
        faults.append(f"{path.name} is missing")
    except OSError as error:
        faults.append(f"{path.name} cannot be read: {error.strerror}")
    return None


def _parse_json(data: bytes, what: str, faults: list[str]) -> dict[str, Any] | None:
    """One JSON object without repeated keys, NaN or infinities."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(key for key, _ in pairs)
        faults.extend(f"{what} repeats the key {key[:80]!r}" for key, n in counts.items() if n > 1)
        return dict(pairs)

    def number(text: str) -> float:
        if not math.isfinite(float(text)):  # NaN, Infinity, and 1e999 too
            raise ValueError(f"it holds the number {text[:20]}")
        return float(text)

    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=unique, parse_constant=number, parse_float=number
        )
    except (ValueError, RecursionError) as error:
        faults.append(f"{what} is not JSON: {type(error).__name__}: {str(error)[:120]}")
        return None
    if not isinstance(value, dict):
        faults.append(f"{what} is not a JSON object")
        return None
    return value


def _parse_manifest(data: bytes | None, faults: list[str]) -> Manifest | None:
    if data is None:
        return None
    value = _parse_json(data, MANIFEST, faults)
    if value is None:
        return None
    version = value.get("format_version")
    if type(version) is int and version > FORMAT_VERSION:
        faults.append(
            f"format_version is {version}, newer than {FORMAT_VERSION}: a newer mlx-plastic wrote it"
        )
        return None
    before = len(faults)
    made = _build(Manifest, value, "", faults)
    if len(faults) > before or not isinstance(made, Manifest):
        return None
    faults += _manifest_faults(made)
    return made


def _build(kind: Any, value: Any, where: str, faults: list[str]) -> Any:
    """`value` as `kind` (a dataclass, tuple, dict, Literal or plain type), with every fault told."""
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        dot = f"{where}." if where else ""
        faults += [f"manifest key {dot}{k} is missing" for k in hints if k not in value]
        faults += [f"manifest key {dot}{str(k)[:80]!r} is unknown" for k in value if k not in hints]
        made = {k: _build(hints[k], value[k], f"{dot}{k}", faults) for k in hints if k in value}
        return kind(**made) if len(made) == len(hints) else None  # type: ignore[operator]
    if origin is tuple and isinstance(value, list):
        return tuple(_build(arguments[0], v, f"{where}[{i}]", faults) for i, v in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {k: _build(arguments[1], v, f"{where}[{k[:80]!r}]", faults) for k, v in value.items()}
    if origin is Literal and value in arguments:
        return value
    if kind is Any or (isinstance(kind, type) and type(value) is kind):
        return value
    if kind is float and type(value) is int and abs(value) < 1 << 53:
        return float(value)
    wanted = " or ".join(map(repr, arguments)) if origin is Literal else getattr(kind, "__name__", str(kind))
    faults.append(f"manifest key {where} is not {wanted}")
    return None


def _manifest_faults(m: Manifest) -> list[str]:
    """What types cannot say: ranges, names and dates."""
    faults = []
    if m.format_version != FORMAT_VERSION:
        faults.append(f"format_version is {m.format_version}, not {FORMAT_VERSION}")
    if not _PACK_NAME.fullmatch(m.name) or m.name in _RESERVED:
        faults.append(f"name {m.name[:80]!r} is no name for a pack")
    for key, digest in (("sha256", m.sha256), ("base_fingerprint", m.base_fingerprint)):
        if not _HEX64.fullmatch(digest):
            faults.append(f"{key} is not 64 hexadecimal digits")
    counts = {**dataclasses.asdict(m.data), **dataclasses.asdict(m.run), **dataclasses.asdict(m.sizes)}
    faults += [f"{k} is negative" for k, v in counts.items() if isinstance(v, int | float) and v < 0]
    try:
        if datetime.datetime.fromisoformat(m.created).tzinfo is None:
            faults.append("created has no time zone")
    except ValueError:
        faults.append("created is not an ISO 8601 time")
    return faults


def _fit_faults(m: Manifest, factors: Mapping[str, Factors], tensors: bytes) -> list[str]:
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


def _parse_tensors(data: bytes | None, faults: list[str]) -> dict[str, Factors]:
    """The factors of a safetensors file, or nothing and the reasons why."""
    if data is None:
        return {}
    header, start = _parse_header(data, faults)
    before = len(faults)
    entries = _entries(header, faults)
    if header is None or len(faults) > before:
        return {}
    faults += _offset_faults(entries, len(data) - start)
    faults += _tensor_faults({n: (dtype, shape) for n, (dtype, shape, _, _) in entries.items()})
    if len(faults) > before:
        return {}
    try:
        tensors = safetensors.numpy.load(data)  # a second opinion, and the arrays
    except (safetensors.SafetensorError, ValueError) as error:
        faults.append(f"{TENSORS} is refused by safetensors: {str(error)[:120]}")
        return {}
    faults += _value_faults(tensors)
    if len(faults) > before:
        return {}
    return {
        path: Factors(
            tensors[f"{path}.lora.A"], tensors[f"{path}.lora.B"], float(tensors[f"{path}.lora.alpha"])
        )
        for path in sorted({name.rsplit(".lora.", 1)[0] for name in tensors})
    }


def _parse_header(data: bytes, faults: list[str]) -> tuple[dict[str, Any] | None, int]:
    if len(data) < 8:
        faults.append(f"{TENSORS} has only {len(data)} bytes")
        return None, 0
    size = int.from_bytes(data[:8], "little")
    if size > min(MAX_HEADER_BYTES, len(data) - 8):
        faults.append(f"the header of {TENSORS} claims {size} bytes")
        return None, 0
    return _parse_json(data[8 : 8 + size], f"the header of {TENSORS}", faults), 8 + size


Entry = tuple[str, tuple[int, ...], int, int]  # dtype, shape, first byte, byte after the last


def _entries(header: dict[str, Any] | None, faults: list[str]) -> dict[str, Entry]:
    """The header's tensors, each entry of the right form; anything else is a fault."""
    if header is None:
        return {}
    if len(header) > 3 * MAX_MODULES:
        faults.append(f"{TENSORS} names {len(header)} tensors, more than {3 * MAX_MODULES}")
        return {}
    if not header:
        faults.append(f"{TENSORS} holds no tensor")
    found = {}
    for name, value in header.items():
        entry = _entry(value)
        if entry is None:
            faults.append(f"tensor {name[:MAX_NAME]!r} has no readable dtype, shape and data_offsets")
        else:
            found[name] = entry
    return found


def _entry(value: Any) -> Entry | None:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        return None
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or not isinstance(shape, list) or not isinstance(offsets, list):
        return None
    if len(shape) > 8 or len(offsets) != 2:
        return None
    if any(type(n) is not int or not 0 <= n < 1 << 48 for n in [*shape, *offsets]):
        return None
    return dtype, tuple(shape), offsets[0], offsets[1]


def _offset_faults(entries: Mapping[str, Entry], length: int) -> list[str]:
    """Tensors must lie end to end, from the first byte of the data to the last, each of its own size."""
    faults = []
    expected = 0
    for name, (dtype, shape, start, stop) in sorted(entries.items(), key=lambda e: (e[1][2], e[1][3])):
        if start != expected:
            faults.append(f"tensor {name!r} begins at byte {start}, not {expected}: overlap or hole")
        if dtype in _WIDTHS and stop - start != math.prod(shape) * _WIDTHS[dtype]:
            faults.append(f"tensor {name!r} has {stop - start} bytes, not what its shape {list(shape)} takes")
        expected = stop
    if expected != length:
        faults.append(f"{TENSORS} has {length} bytes of data, its header accounts for {expected}")
    return faults


def _tensor_faults(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> list[str]:
    """Wrong names, types and shapes, and modules that lack one of their three tensors."""
    faults = []
    modules: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, (dtype, shape) in tensors.items():
        match = _TENSOR_NAME.fullmatch(name) if len(name) <= MAX_NAME else None
        if match is None:
            faults.append(f"tensor {name[:MAX_NAME]!r} is not <module path>.lora.A, .B or .alpha")
            continue
        part = match[2]
        wanted = "F32" if part == "alpha" else "F16"
        if dtype != wanted:
            faults.append(f"tensor {name!r} is {dtype[:16]}, not {wanted}")
        modules.setdefault(match[1][:-1], {})[part] = shape
    for path, parts in modules.items():
        missing = [p for p in ("A", "B", "alpha") if p not in parts]
        faults += [f"{path} has no lora.{p}" for p in missing] or _shape_faults(path, **parts)
    return faults


def _shape_faults(path: str, A: tuple[int, ...], B: tuple[int, ...], alpha: tuple[int, ...]) -> list[str]:
    if alpha != ():
        return [f"{path}.lora.alpha has shape {list(alpha)}, not a scalar"]
    if len(A) not in (2, 3) or len(A) != len(B) or 0 in A or 0 in B:
        return [f"{path} has A {list(A)} and B {list(B)}, not (rank, in) and (out, rank)"]
    if A[-2] != B[-1]:
        return [f"{path} has rank {A[-2]} in A and {B[-1]} in B"]
    if A[:-2] != B[:-2]:
        return [f"{path} has {A[0]} experts in A and {B[0]} in B"]
    return []


def _value_faults(tensors: Mapping[str, Array]) -> list[str]:
    faults = [
        f"tensor {name!r} has values that are not finite" for name, t in tensors.items() if not _finite(t)
    ]
    return faults + [
        f"tensor {name!r} is {float(t):g}, not above zero"
        for name, t in tensors.items()
        if name.endswith(".alpha") and float(t) <= 0
    ]


def _finite(tensor: Array) -> bool:
    return bool(np.isfinite(tensor).all())
