"""A checkpoint on disk: find it, see that it is whole, name it by its bytes. Nothing here writes to one."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_plastic.errors import BadCheckpoint, BaseNotFound
from mlx_plastic.home import write_json

log = logging.getLogger(__name__)

NANO = "nano"
INDEX = "model.safetensors.index.json"
TOKENIZER_MODELS = ("tokenizer.json", "tokenizer.model", "tiktoken.model", "vocab.json")  # one will do
TOKENIZER_FILES = (
    *TOKENIZER_MODELS,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
HUB_PATTERNS = ("*.json", "model*.safetensors", "*.model", "*.tiktoken", "*.txt", "*.jinja")
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors package
DTYPE_BITS = {
    "F4": 4, "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """What a shard's header says of one tensor. offsets: first and past-the-last byte in the data section."""

    dtype: str
    shape: tuple[int, ...]
    offsets: tuple[int, int]

    @property
    def nbytes(self) -> int:
        return self.offsets[1] - self.offsets[0]


def resolve(ref: str) -> Path:
    """The folder of a whole checkpoint: the built-in "nano", a folder, or a hub id `org/name`.

    HF_HUB_OFFLINE=1 looks in the local hub cache only. Raises BaseNotFound, or BadCheckpoint with
    everything that is wrong with it.
    """
    path = _find(ref)
    check(path)
    return path


def _find(ref: str) -> Path:
    if ref == NANO:
        return Path(__file__).parent / NANO
    folder = Path(ref).expanduser()
    if ref and folder.is_dir():
        return folder.resolve()
    if ref and folder.exists():
        raise BadCheckpoint(f"{ref} is a file", hint="give the folder that holds config.json and the shards")
    if not is_hub_id(ref):
        raise BaseNotFound(
            f"no checkpoint folder {ref!r}",
            hint=f"give a folder, a hub id like org/name, or the built-in {NANO!r}",
        )
    return _from_hub(ref)


def is_hub_id(ref: str) -> bool:
    """Whether it reads as org/name rather than as a path."""
    return ref.count("/") == 1 and not ref.startswith((".", "/", "~"))


def _from_hub(repo: str) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    offline = constants.HF_HUB_OFFLINE
    try:
        return Path(snapshot_download(repo, allow_patterns=list(HUB_PATTERNS), local_files_only=offline))
    except HFValidationError as error:
        raise BaseNotFound(
            f"{repo!r} is neither a folder nor a hub id", hint="a hub id reads org/name"
        ) from error
    except GatedRepoError as error:
        raise BaseNotFound(
            f"hub repository {repo} is gated", hint="accept its terms, then: hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise BaseNotFound(f"no folder and no hub repository {repo!r}", hint="check the spelling") from error
    except LocalEntryNotFoundError as error:
        where = "the hub is switched off by HF_HUB_OFFLINE" if offline else "the hub cannot be reached"
        raise BaseNotFound(
            f"{repo} is not in the local hub cache, and {where}",
            hint=f"download it once with a network: hf download {repo}",
        ) from error
    except OSError as error:  # every network and HTTP error of huggingface_hub is one
        raise BaseNotFound(
            f"cannot fetch {repo} from the hub: {type(error).__name__}",
            hint="try again with a network, or give a folder",
        ) from error


def check(path: Path) -> None:
    """Raises BadCheckpoint listing everything that keeps `path` from being a whole checkpoint."""
    faults = list(_faults(path))
    if faults:
        raise BadCheckpoint(
            f"{path} is not a whole checkpoint: " + "; ".join(faults), hint=_advice(path, faults)
        )


def _faults(path: Path) -> Iterator[str]:
    yield from _config_faults(path)
    if not any((path / name).is_file() for name in TOKENIZER_MODELS) and not list(path.glob("*.tiktoken")):
        yield "no tokenizer (tokenizer.json or tokenizer.model)"
    try:
        files = shards(path)
    except BadCheckpoint as error:
        yield error.message
        return
    for shard in files:
        try:
            read_header(shard)
        except BadCheckpoint as error:
            yield error.message


def _config_faults(path: Path) -> Iterator[str]:
    try:
        config = json.loads((path / "config.json").read_bytes())
    except FileNotFoundError:
        yield "no config.json"
    except (ValueError, RecursionError):
        yield "config.json is not JSON"
    except OSError as error:
        yield f"config.json cannot be read ({error.strerror})"
    else:
        if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
            yield "config.json names no model_type"


def _advice(path: Path, faults: list[str]) -> str:
    if any(file.suffix in (".bin", ".pth", ".pt", ".gguf", ".npz") for file in path.glob("*")):
        return "weights must be SafeTensors; convert them first: python -m mlx_lm convert --hf-path …"
    if all(fault.startswith("no ") for fault in faults):
        return "give the folder that holds config.json, the tokenizer and model*.safetensors"
    return "fetch the checkpoint again; its files are missing or damaged"


def shards(path: Path) -> list[Path]:
    """The weight files, sorted by name: all that mlx-lm will read, and all that the index names.

    Raises BadCheckpoint if there are none or the index names files that are missing.
    """
    found = {file.name for file in path.glob("model*.safetensors")}
    named = _indexed(path / INDEX)
    strange = sorted(name for name in named if Path(name).name != name or not name.startswith("model"))
    if strange:
        raise BadCheckpoint(f"{INDEX} names files that are no shards here: {', '.join(map(repr, strange))}")
    missing = sorted(named - found)
    if missing:
        raise BadCheckpoint(f"missing shards named by {INDEX}: {', '.join(missing)}")
    if not found:
        raise BadCheckpoint("no model*.safetensors")
    return [path / name for name in sorted(found)]


def _indexed(index: Path) -> set[str]:
    try:
        names = json.loads(index.read_bytes())["weight_map"].values()
        return {str(name) for name in names}
    except FileNotFoundError:
        return set()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadCheckpoint(f"{index.name} holds no weight_map") from error


def read_header(shard: Path) -> dict[str, TensorInfo]:
    """Name -> TensorInfo of a SafeTensors file, checked against the file's real size.

    Raises BadCheckpoint if the file is truncated, has holes, overlaps or trailing bytes, repeats a
    name, or is no SafeTensors file at all.
    """
    try:
        with open(shard, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = header_length(file.read(8), size, shard.name)
            return parse_header(file.read(length), size - 8 - length, shard.name)
    except OSError as error:
        raise BadCheckpoint(f"{shard.name} cannot be read ({error.strerror})") from error


def header_length(first: bytes, size: int, name: str) -> int:
    """Bytes of the JSON header behind a file's first eight. Raises BadCheckpoint if there can be none."""
    length = int.from_bytes(first, "little") if len(first) == 8 else 0
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise BadCheckpoint(f"{name} is not a SafeTensors file ({size} bytes)")
    if 8 + length > size:
        raise BadCheckpoint(f"{name} is truncated: {size} bytes, its header alone needs {8 + length}")
    return length


def parse_header(
    raw: bytes, data_bytes: int, name: str, *, unknown_dtypes: bool = False
) -> dict[str, TensorInfo]:
    """`read_header` of what was read: the JSON, and how many bytes follow it in the file.

    unknown_dtypes: take tensors of a dtype that is not in DTYPE_BITS too; their size cannot be checked.
    """
    try:
        header = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{name} has a broken SafeTensors header") from error
    if not isinstance(header, dict):
        raise BadCheckpoint(f"{name} has a broken SafeTensors header")
    header.pop("__metadata__", None)
    tensors = {key: _tensor(name, key, value, unknown_dtypes) for key, value in header.items()}
    _check_layout(name, tensors, data_bytes)
    return tensors


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def _tensor(shard: str, name: str, value: Any, unknown_dtypes: bool) -> TensorInfo:
    try:
        shape, (start, stop) = tuple(value["shape"]), value["data_offsets"]
        info = TensorInfo(value["dtype"], shape, (start, stop))
        right = all(type(n) is int and n >= 0 for n in (*shape, start, stop)) and start <= stop
        if not (unknown_dtypes and isinstance(info.dtype, str) and info.dtype not in DTYPE_BITS):
            right = right and math.prod(shape) * DTYPE_BITS[info.dtype] == 8 * info.nbytes
    except (TypeError, KeyError, ValueError):
        right = False
    if not right:
        raise BadCheckpoint(f"{shard}: the dtype, shape and offsets of {name!r} do not fit together")
    return info


def _check_layout(shard: str, tensors: Mapping[str, TensorInfo], data_bytes: int) -> None:
    end = 0
    for start, stop in sorted(info.offsets for info in tensors.values()):
        if start != end:
            raise BadCheckpoint(f"{shard} has overlapping tensors or a hole at byte {end} of its data")
        end = stop
    if data_bytes < end:
        raise BadCheckpoint(f"{shard} is truncated: {data_bytes} of {end} data bytes")
    if data_bytes > end:
        raise BadCheckpoint(f"{shard} has {data_bytes - end} bytes after its last tensor")


def fingerprint(path: Path, *, cache: Path | None = None, rehash: bool = False) -> str:
    """sha256 in hex over the names and bytes of config.json, the tokenizer files and every shard.

    cache: a folder for `fingerprints.json`, where a file's digest is kept under its size, mtime,
    ctime, inode and device, so that an unchanged file is read once. A change made behind the file
    system's back (a failing disk, an image edited while unmounted) needs rehash=True to be seen.
    """
    known = _load_digests(cache) if cache and not rehash else {}
    fresh: dict[str, Any] = {}
    whole = hashlib.sha256()
    for file in identity_files(path):
        digest = _file_digest(file, known, fresh)
        whole.update(f"{file.name}\0{digest}\n".encode())
    if cache and fresh:
        _keep_digests(cache, fresh)
    return whole.hexdigest()


def identity_files(path: Path) -> list[Path]:
    """What the fingerprint covers, sorted by name."""
    small = [path / name for name in ("config.json", *TOKENIZER_FILES) if (path / name).is_file()]
    return sorted({*small, *path.glob("*.tiktoken"), *shards(path)}, key=lambda file: file.name)


def _file_digest(file: Path, known: Mapping[str, Any], fresh: dict[str, Any]) -> str:
    real = str(file.resolve())
    stamp = _stamp(file)
    entry = known.get(real)
    if isinstance(entry, dict) and entry.get("stamp") == stamp and isinstance(entry.get("sha256"), str):
        return str(entry["sha256"])
    with open(file, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if _stamp(file) == stamp:  # else it changed under our eyes: do not remember
        fresh[real] = {"stamp": stamp, "sha256": digest}
    return digest


def _stamp(file: Path) -> list[int]:
    s = file.stat()
    return [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev]  # ctime: utime() cannot set it back


def _load_digests(cache: Path) -> dict[str, Any]:
    try:
        found = json.loads((cache / "fingerprints.json").read_bytes())
        return found if isinstance(found, dict) else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        log.debug("fingerprints.json in the cache is unreadable; hashing again")
        return {}


def _keep_digests(cache: Path, fresh: Mapping[str, Any]) -> None:
    try:
        write_json(cache / "fingerprints.json", {**_load_digests(cache), **fresh})
    except OSError as error:  # a cache that cannot be written costs time, nothing else
        log.debug("cannot keep fingerprints: %s", error.strerror)
