"""What a pack says of itself: manifest.json as a frozen dataclass, parsed key by key."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import re
import types
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mlx_plastic.errors import BadPack
from mlx_plastic.packs.format.untrusted import parse_json

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 4 << 20

MAX_GROUP_SIZE = 4096
MAX_TEXT = 4096  # characters of a name of something

_PACK_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HEX64 = re.compile(r"[0-9a-f]{64}")

# line breaks, and what turns text around
_UNLIKE_A_NAME = re.compile("[\n\r\t\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_RESERVED = ("base", "state.json")

Storage = Literal["float16", "int8", "int4"]


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
    parameters: int  # values of all A and B, however they are stored


@dataclass(frozen=True)
class Manifest:
    """Everything about a pack but its numbers. On disk it has exactly these keys (see `manifest_value`)."""

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
    storage: Storage = "float16"
    format_version: int = FORMAT_VERSION
    group_size: int | None = None  # values that share one scale; None (and absent on disk) for float16


OPTIONAL = ("group_size",)


def check_name(name: str) -> str:
    """`name` if a pack may be called so. Raises BadPack: a name is also a folder, so it has no way out."""
    if not is_name(name):
        raise BadPack(
            f"{name!r} is no name for a pack",
            hint="use 1-64 of a-z 0-9 . _ - beginning with a letter or digit; 'base' means no pack",
        )
    return name


def is_name(name: str) -> bool:
    return bool(_PACK_NAME.fullmatch(name)) and name not in _RESERVED


def manifest_value(manifest: Manifest) -> dict[str, Any]:
    """The manifest as manifest.json holds it: every key, save an optional one that is None."""
    value = dataclasses.asdict(manifest)
    return {key: v for key, v in value.items() if v is not None or key not in OPTIONAL}


def checked_bytes(manifest: Manifest) -> bytes:
    """manifest.json as a person can read it. Raises ValueError if no reader would take it back."""
    text = json.dumps(manifest_value(manifest), indent=2, ensure_ascii=False, allow_nan=False)
    data, faults = (text + "\n").encode(), list[str]()
    if len(data) > MAX_MANIFEST_BYTES:
        faults.append(f"{MANIFEST} would have {len(data)} bytes, more than {MAX_MANIFEST_BYTES}")
    parse_manifest(data, faults)
    if faults:
        raise ValueError("; ".join(faults))
    return data


def parse_manifest(data: bytes | None, faults: list[str]) -> Manifest | None:
    """The manifest in these bytes, or None and the reasons why."""
    if data is None:
        return None
    value = parse_json(data, MANIFEST, faults)
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
    faults += _range_faults(made)
    return made if _is_readable(made) else None


def _is_readable(m: Manifest) -> bool:
    """Whether it says how the numbers are stored; other faults leave them to be judged."""
    return m.group_size is None if m.storage == "float16" else 1 <= (m.group_size or 0) <= MAX_GROUP_SIZE


def _build(kind: Any, value: Any, where: str, faults: list[str]) -> Any:
    """`value` as `kind` (a dataclass, tuple, dict, Literal or plain type), with every fault told."""
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _build_record(kind, value, where, faults)
    if origin is tuple and isinstance(value, list):
        return tuple(_build(arguments[0], v, f"{where}[{i}]", faults) for i, v in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {k: _build(arguments[1], v, f"{where}[{k[:80]!a}]", faults) for k, v in value.items()}
    if origin is Literal and isinstance(value, str) and value in arguments:
        return value
    if kind is Any or type(value) is kind or (origin is types.UnionType and type(value) in arguments):
        return value
    if kind is float and type(value) is int and abs(value) < 1 << 53:
        return float(value)
    wanted = " or ".join(map(repr, arguments)) if origin is Literal else getattr(kind, "__name__", str(kind))
    faults.append(f"manifest key {where} is not {wanted}")
    return None


def _build_record(kind: Any, value: dict[str, Any], where: str, faults: list[str]) -> Any:
    hints = _hints(kind)
    dot = f"{where}." if where else ""
    missing = [k for k in hints if k not in value and k not in OPTIONAL]
    faults += [f"manifest key {dot}{k} is missing" for k in missing]
    faults += [f"manifest key {dot}{k[:80]!a} is unknown" for k in value if k not in hints]
    made = {k: _build(hints[k], value[k], f"{dot}{k}", faults) for k in hints if k in value}
    return None if missing else kind(**made)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _range_faults(m: Manifest) -> list[str]:
    """What types cannot say: ranges, names and dates."""
    faults = []
    if m.format_version != FORMAT_VERSION:
        faults.append(f"format_version is {m.format_version}, not {FORMAT_VERSION}")
    if not is_name(m.name):
        faults.append(f"name {m.name[:80]!a} is no name for a pack")
    for key, digest in (("sha256", m.sha256), ("base_fingerprint", m.base_fingerprint)):
        if not _HEX64.fullmatch(digest):
            faults.append(f"{key} is not 64 hexadecimal digits")
    for key, texts in (("base_id", (m.base_id,)), ("parents", m.parents), ("lineage", m.lineage)):
        if any(len(text) > MAX_TEXT or _UNLIKE_A_NAME.search(text) for text in texts):
            faults.append(f"{key} has a text that could pass for another, or is longer than {MAX_TEXT}")
    counts = {
        **m.data.kinds,
        **dataclasses.asdict(m.data),
        **dataclasses.asdict(m.run),
        **dataclasses.asdict(m.sizes),
    }
    faults += [f"{k[:80]!a} is negative" for k, v in counts.items() if isinstance(v, int | float) and v < 0]
    if not _is_readable(m):
        wanted = "absent" if m.storage == "float16" else f"1 to {MAX_GROUP_SIZE}"
        faults.append(f"group_size of {m.storage} is {m.group_size}, not {wanted}")
    try:
        if datetime.datetime.fromisoformat(m.created).tzinfo is None:
            faults.append("created has no time zone")
    except ValueError:
        faults.append("created is not an ISO 8601 time")
    return faults
