"""A plan carried out: a new checkpoint, written tensor by tensor, that stock mlx-lm loads."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlx_plastic import __version__
from mlx_plastic.backend import mx, peak_memory_mb, reset_peak_memory
from mlx_plastic.base.model import load_lazily
from mlx_plastic.base.sharding import Tensor, bits_of, plain_config, write_config
from mlx_plastic.base.weights import Weights, open_weights
from mlx_plastic.compress.gptq import ROWS, gptq, metric
from mlx_plastic.compress.metrics import Metrics
from mlx_plastic.compress.offers import check
from mlx_plastic.compress.park import FOLDER, INDEX, Parked
from mlx_plastic.compress.plan import Plan, Stored, by_module
from mlx_plastic.compress.price import stored_dtype
from mlx_plastic.compress.revise import TUNED, revise
from mlx_plastic.compress.schemes import decode, pack, rounded
from mlx_plastic.compress.shards import Shards, carry
from mlx_plastic.compress.taps import storable
from mlx_plastic.compress.tune import Tuning, check_memory
from mlx_plastic.errors import BadConfig, BaseMismatch, Busy, NoRoom, PlasticError, Taken
from mlx_plastic.home import write_json
from mlx_plastic.lowrank.svd import Array, Method, Svd, truncated_svd

log = logging.getLogger(__name__)

META = "compress.json"
FORMAT_VERSION = 1
Park = Literal["none", "cut", "all"]
Tick = Callable[[int, int, str], None]  # bytes written, bytes in all, detail

AT_ONCE = 1 << 20  # numbers of a matrix that are rounded to the nearest at once


@dataclass(frozen=True)
class Applying:
    """svd: for matrices that are cut to a rank. rows: of a matrix, quantized at once; it does not change what
    comes out. park: keep what is taken of matrices that are cut, of all, or of none. gptq: False rounds
    plainly. tuning: how scales and biases are tuned when all is rounded; None: they are not.
    """

    svd: Method = "exact"
    rows: int = ROWS
    park: Park = "cut"
    gptq: bool = True
    dequantize: bool = False
    seed: int = 0
    tuning: Tuning | None = None


@dataclass(frozen=True)
class Applied:
    """What was written. nbytes: of all weights. parked_bytes: beside them. resumed: tensors there already.

    tuned: what came of tuning, if it was asked for.
    """

    folder: Path
    nbytes: int
    bits_per_weight: float
    parked_bytes: int
    seconds: float
    peak_mb: float
    resumed: int
    tuned: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


def apply(
    plan: Plan,
    ref: str,
    out: Path,
    how: Applying,
    *,
    metrics: Path | None = None,
    data: Path | None = None,
    cache: Path | None = None,
    tick: Tick | None = None,
) -> Applied:
    """Write checkpoint `ref` as `plan` says to the new folder `out`. The source is only read.

    data: texts to tune on, if how.tuning asks for that: when all is rounded, base and copy are loaded.

    What is unfinished lies in a hidden folder beside `out`; the same call again goes on there. Raises
    BaseMismatch for a plan of another checkpoint, BadConfig for one that does not fit or lacks its
    calibration, Taken if `out` exists, PlasticError if the disk or the memory is too small, or the source is
    quantized without how.dequantize, Busy if another process writes `out`.
    """
    if how.tuning and data is None:
        raise ValueError("tuning learns from texts: give data")
    if out.exists():
        raise Taken(f"{out} exists", hint="name a new folder, or remove that one")
    weights = open_weights(ref, cache=cache)
    _check(plan, weights, how)
    store = _metrics(plan, weights, how, metrics)
    part = out.with_name(f".{out.name}.part")
    with _alone(part):
        if out.exists():  # since another process has just written it
            with contextlib.suppress(OSError):
                part.rmdir()
            raise Taken(f"{out} exists", hint="name a new folder, or remove that one")
        return _apply(plan, ref, weights, part, out, how, store, data, cache, tick or (lambda *_: None))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Make `folder` and hold it against other processes, by a lock on itself, which leaves no file behind.

    Raises Busy if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"another process writes {folder}", hint="wait for it, or write elsewhere") from error
        yield
    finally:
        os.close(descriptor)


def _apply(
    plan: Plan,
    ref: str,
    weights: Weights,
    part: Path,
    out: Path,
    how: Applying,
    store: Metrics | None,
    data: Path | None,
    cache: Path | None,
    tick: Tick,
) -> Applied:
    reset_peak_memory()
    began = time.perf_counter()
    identity = _identity(plan, how, weights)
    tensors = list(layout(weights, plan))
    shards = Shards(part, tensors, identity)
    resumed = shards.done
    parked = _parked(part, plan, fresh=not resumed)
    _check_room(part, shards)
    streaming = replace(how, park="none") if how.tuning else how  # what is parked depends on what is stored
    _write(weights, plan, streaming, store, shards, parked, tick)
    carried = carry(weights.path, part)
    write_config(part, config_of(weights, plan))
    tuned = None
    if how.tuning and data:
        tuned = revise(part, shards, ref, data, how.tuning, identity, cache=cache, tick=tick)
        _park(open_weights(ref, cache=cache), part, plan, how, parked)
        (part / TUNED).unlink()
    shards.close()
    parked_bytes = sum(entry.nbytes for entry in parked.modules.values())
    done = Applied(
        *(out, shards.total_bytes, 8 * shards.total_bytes / plan.parameters, parked_bytes),
        *(time.perf_counter() - began, peak_memory_mb(), resumed, tuned),
    )
    write_json(part / META, _meta(plan, how, done, carried))
    os.replace(part, out)
    log.info("%s -> %s: %.3f bits per weight", ref, out, done.bits_per_weight)
    return done


def checked(
    plan: Plan, ref: str, out: Path, how: Applying, *, metrics: Path | None = None, cache: Path | None = None
) -> int:
    """Check all that `apply` would, and write nothing; how many tensors are there already to go on from."""
    if out.exists():
        raise Taken(f"{out} exists", hint="name a new folder, or remove that one")
    weights = open_weights(ref, cache=cache)
    _check(plan, weights, how)
    _metrics(plan, weights, how, metrics)
    part = out.with_name(f".{out.name}.part")
    return (
        Shards(part, list(layout(weights, plan)), _identity(plan, how, weights)).done if part.exists() else 0
    )


def keep_verdict(folder: Path, judged: dict[str, Any]) -> None:
    """Write what the gate said into the checkpoint's meta, if it is one of ours."""
    if (folder / META).is_file():
        write_json(folder / META, {**json.loads((folder / META).read_bytes()), "judged": judged})


def layout(weights: Weights, plan: Plan) -> Iterator[Tensor]:
    """Every tensor of the new checkpoint, in the order that they are written."""
    chosen = by_module(plan)
    dtype = getattr(mx, plan.dtype)
    for name, shape in weights.shapes.items():
        path, _, leaf = name.rpartition(".")
        matrix = chosen.get(path) if leaf == "weight" else None
        if matrix is None or matrix.scheme.is_whole:
            yield Tensor(name, stored_dtype(weights, name, dtype), shape)
            continue
        *stack, width = shape
        yield Tensor(name, mx.uint32, (*stack, width * matrix.bits // 32))
        groups = (*stack, width // matrix.group_size)
        if matrix.mode == "affine":
            yield Tensor(f"{path}.scales", dtype, groups)
            yield Tensor(f"{path}.biases", dtype, groups)
        else:
            yield Tensor(f"{path}.scales", mx.uint8, groups)


def config_of(weights: Weights, plan: Plan) -> dict[str, Any]:
    """The source's config with what mlx-lm has to know of each quantized layer."""
    config = plain_config(weights.path)
    quantized = {m.module: m.scheme.as_config() for m in plan.matrices if not m.scheme.is_whole}
    if quantized:
        kinds = [json.dumps(kind, sort_keys=True) for kind in quantized.values()]
        most = json.loads(max(set(kinds), key=kinds.count))  # for layers that are not named; there are none
        config["quantization"] = {**most, **quantized}
        config["quantization_config"] = config["quantization"]
    if "torch_dtype" in config:
        config["torch_dtype"] = plan.dtype
    return config


def _check(plan: Plan, weights: Weights, how: Applying) -> None:
    if how.tuning:
        check_memory(plan.parameters)
    if plan.base_fingerprint != weights.fingerprint:
        raise BaseMismatch(
            f"the plan is of checkpoint {plan.base_fingerprint[:12]} ({plan.base}), this one is "
            f"{weights.fingerprint[:12]}",
            hint="plan this one, or give --base",
        )
    if weights.quantized and not how.dequantize:
        raise PlasticError(
            f"{weights.ref} is quantized already: rounding it again loses twice",
            hint="use the unquantized checkpoint, or say --dequantize",
        )
    faults = []
    for m in plan.matrices:
        shape = weights.shapes.get(f"{m.module}.weight")
        stack = (m.experts,) if shape is not None and len(shape) > 2 else ()
        if shape != (*stack, m.rows, m.cols):
            faults.append(f"{m.module} is {m.rows} x {m.cols} in the plan, {shape} in the checkpoint")
        elif m.rank and stack:
            faults.append(f"{m.module} is a stack of experts: it cannot be cut to a rank")
    if faults:
        raise BadConfig("; ".join(faults[:10]), hint="make the plan again")


def _metrics(plan: Plan, weights: Weights, how: Applying, folder: Path | None) -> Metrics | None:
    if not how.gptq or not any(m.gptq for m in plan.matrices):
        return None
    named = folder or (Path(plan.calibration["folder"]) if plan.calibration.get("folder") else None)
    if named is None:
        raise BadConfig("the plan rounds by texts, and names no calibration", hint="--calibration DIR")
    return Metrics.open(named, weights.fingerprint)


def _identity(plan: Plan, how: Applying, weights: Weights) -> str:
    what = [plan.as_dict(), {**asdict(how), "rows": 0}, weights.fingerprint]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode("utf-8")).hexdigest()


def _parked(part: Path, plan: Plan, *, fresh: bool) -> Parked:
    folder = part / FOLDER
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    if (folder / INDEX).exists():
        return Parked.open(part)
    return Parked(folder, plan.dtype)


def _check_room(part: Path, shards: Shards) -> None:
    free = shutil.disk_usage(part).free
    if shards.bytes_left > free:
        if not shards.done:
            shutil.rmtree(part, ignore_errors=True)
        raise NoRoom(
            f"{shards.bytes_left} bytes are still to be written, and {free} are free",
            hint="free some space and run the same command again, or write elsewhere with --out",
        )


def _write(
    weights: Weights,
    plan: Plan,
    how: Applying,
    store: Metrics | None,
    shards: Shards,
    parked: Parked,
    tick: Tick,
) -> None:
    chosen, at = by_module(plan), 0
    for name in list(weights.shapes):
        path, _, leaf = name.rpartition(".")
        matrix = chosen.get(path) if leaf == "weight" else None
        count = _tensors_of(matrix)
        at += count
        if at <= shards.done:
            continue
        tick(shards.total_bytes - shards.bytes_left, shards.total_bytes, name)
        if matrix is None:
            w = weights.take_stored(name)
            dtype = stored_dtype(weights, name, getattr(mx, plan.dtype))
            shards.write([(name, bits_of(w.astype(dtype)))])
            del w
            mx.clear_cache()
            continue
        w32 = weights.take(name)
        check(path, w32, plan.dtype)
        made = quantized(path, w32, matrix, plan, how, store, parked)
        shards.write([(f"{path}.{part}", array) for part, array in made.items()])
        del w32, made
        mx.clear_cache()  # else buffers as large as these stay with MLX while the next tensor is read


def _park(weights: Weights, part: Path, plan: Plan, how: Applying, parked: Parked) -> None:
    """Park what `part`, which is whole but for that, has lost of each matrix."""
    layers = storable(load_lazily(part)[0]) if how.park != "none" else {}
    chosen = by_module(plan)
    for path, layer in layers.items():
        matrix = chosen.get(path)
        if matrix is None or not _may_park(matrix, how):
            continue
        w = weights.take(f"{path}.weight")
        target, removed = _cut(w, matrix, how)
        if _is_parked(matrix, how, removed):
            made = [layer[key] for key in ("weight", "scales", "biases") if key in layer]
            whole = matrix.scheme.is_whole
            decoded = rounded(target, plan.dtype) if whole else _decoded(made, matrix)
            parked.add(path, w, decoded, removed, matrix.rank)


def _may_park(matrix: Stored, how: Applying) -> bool:
    return how.park == "all" or matrix.rank is not None


def _tensors_of(matrix: Stored | None) -> int:
    if matrix is None or matrix.scheme.is_whole:
        return 1
    return 3 if matrix.mode == "affine" else 2


def quantized(
    path: str, w: Array, matrix: Stored, plan: Plan, how: Applying, store: Metrics | None, parked: Parked
) -> dict[str, Array]:
    """The arrays that store w (..., out, in): weight, scales and biases, or the weight alone."""
    target, removed = _cut(w, matrix, how)
    dtype = getattr(mx, plan.dtype)
    if matrix.scheme.is_whole:
        made = [mx.array(target).astype(dtype)]
    elif matrix.gptq and how.gptq:
        assert store is not None
        made = _by_gptq(path, target, matrix, plan, how, store)
    else:
        made = _plainly(target, matrix, dtype)
    if _is_parked(matrix, how, removed):
        decoded = rounded(target, plan.dtype) if matrix.scheme.is_whole else _decoded(made, matrix)
        parked.add(path, w, decoded, removed, matrix.rank)
    return {k: bits_of(v) for k, v in zip(("weight", "scales", "biases"), made, strict=False)}


def _plainly(w: Array, matrix: Stored, dtype: mx.Dtype) -> list[mx.array]:
    """Rounded to the nearest, some rows at a time: copies of a large matrix are larger than the result."""
    rows = w.reshape(-1, w.shape[-1])
    step = max(1, AT_ONCE // w.shape[-1])
    parts = []
    for at in range(0, len(rows), step):
        some = mx.array(rows[at : at + step]).astype(dtype)
        parts.append(mx.quantize(some, **matrix.scheme.as_config()))
        mx.eval(parts[-1])
    whole = [mx.concatenate(list(part)) for part in zip(*parts, strict=True)]
    return [part.reshape(*w.shape[:-1], -1) for part in whole]


def _is_parked(matrix: Stored, how: Applying, removed: Svd | None) -> bool:
    if how.park == "all":
        return not matrix.scheme.is_whole or removed is not None
    return how.park == "cut" and removed is not None


def _decoded(made: list[mx.array], matrix: Stored) -> Array:
    weight, scales, *biases = made
    return decode(weight, scales, biases[0] if biases else None, matrix.scheme)


def _by_gptq(
    path: str, w: Array, matrix: Stored, plan: Plan, how: Applying, store: Metrics
) -> list[mx.array]:
    stack = w.reshape(-1, *w.shape[-2:])
    found = [
        gptq(one, matrix.scheme, metric(h, own=True), plan.dtype, rows=how.rows)
        for one, h in zip(stack, store.of(path, len(stack), w.shape[-1]), strict=True)
    ]
    lead = w.shape[:-1]
    dtype = getattr(mx, plan.dtype)
    packed = np.stack([pack(c.codes, matrix.bits) for c in found]).reshape(*lead, -1)
    scales = np.stack([c.scales for c in found]).reshape(*lead, -1)
    biases = np.stack([c.biases for c in found]).reshape(*lead, -1)
    return [mx.array(packed), mx.array(scales).astype(dtype), mx.array(biases).astype(dtype)]


def _cut(w: Array, matrix: Stored, how: Applying) -> tuple[Array, Svd | None]:
    """The matrix cut to its rank, and what was removed."""
    if matrix.rank is None or matrix.rank >= min(w.shape):
        return w, None
    if how.svd == "exact":
        u, s, vt = truncated_svd(w, min(w.shape), "exact")
        r = matrix.rank
        return (u[:, :r] * s[:r]) @ vt[:r], (u[:, r:], s[r:], vt[r:])
    u, s, vt = truncated_svd(w, matrix.rank, how.svd, seed=how.seed)
    kept = (u * s) @ vt
    left = w - kept
    return kept, truncated_svd(left, min(w.shape) - matrix.rank, "gram")


def _meta(plan: Plan, how: Applying, done: Applied, carried: list[str]) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "made_by": f"mlx-plastic {__version__}",
        "base": plan.base,
        "base_fingerprint": plan.base_fingerprint,
        "how": asdict(how),
        "bytes": done.nbytes,
        "bits_per_weight": done.bits_per_weight,
        "parked_bytes": done.parked_bytes,
        "seconds": round(done.seconds, 2),
        "peak_mb": round(done.peak_mb, 1),
        "carried": carried,
        "tuned": done.tuned,
        "plan": plan.as_dict(),
    }
