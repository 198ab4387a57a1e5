"""A pack from two checkpoints of one architecture: the SVD of what finetuning changed, matrix by matrix.

Both are read weight by weight and neither is kept, so memory holds two matrices and the factors made so far.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mlx_plastic.base.checkpoint import TOKENIZER_MODELS
from mlx_plastic.base.roles import natural
from mlx_plastic.base.weights import Weights
from mlx_plastic.errors import BadCheckpoint, BadConfig, PlasticError
from mlx_plastic.lowrank.svd import Array, Method, truncated_svd
from mlx_plastic.packs.algebra.cut import Whole, cut
from mlx_plastic.packs.algebra.updates import relative
from mlx_plastic.packs.format.pack import (
    DataCard,
    Factors,
    Manifest,
    RunCard,
    Storage,
    make_manifest,
    stored_bytes,
)

log = logging.getLogger(__name__)

Tick = Callable[[int, int, str], None]  # done, total, detail

MOST = 512  # directions kept of a matrix until a budget is shared out
FAIR_SHARES = 8  # and no more than so many times what each would get of an even share
SAME_AFTER_CAST = 2.0**-9  # relative: what rounding to bfloat16 changes
SHOWN = 60  # faults named at once


@dataclass(frozen=True)
class Extraction:
    """How a difference becomes a pack."""

    rank: int | None = None  # of every module, at most
    budget_bytes: int | None = None  # of the pack's file; ranks are then shared out by energy
    storage: Storage = "float16"
    svd: Method = "gram"
    partial: bool = False  # go on although some of the difference cannot be carried
    seed: int = 0  # of the randomized SVD


@dataclass(frozen=True)
class Left:
    """A parameter that differs and that no pack can carry. change: relative to the base's, Frobenius."""

    name: str
    parameters: int
    change: float


@dataclass(frozen=True)
class Extracted:
    """errors: per module that differs, what is lost of the difference, relative; error: over all of them.

    left: what differs beside them. notes: what a person may want to know.
    """

    factors: dict[str, Factors]
    manifest: Manifest
    errors: dict[str, float]
    error: float
    left: tuple[Left, ...]
    notes: tuple[str, ...]


def extract(
    base: Weights, tuned: Weights, name: str, how: Extraction, *, on_progress: Tick | None = None
) -> Extracted:
    """The pack that turns `base` into `tuned`, as far as linear layers and the rank allow.

    Raises BadCheckpoint with every parameter that only one has or that has another shape, PlasticError
    naming what differs beside the linear layers unless how.partial, BadConfig without a rank or a budget.
    """
    if how.rank is None and how.budget_bytes is None:
        raise BadConfig("no size for the pack", hint="give --rank or --budget-mb")
    check_alike(base, tuned)
    started = time.perf_counter()
    wholes, left = _differences(base, tuned, how, on_progress or _silent)
    if left and not how.partial:
        raise PlasticError(
            f"{len(left)} parameters differ that no pack can carry: {told(left)}",
            hint="to make a pack of the linear layers alone: --partial",
        )
    if not wholes:
        raise BadCheckpoint(
            f"{tuned.ref} has the same linear layers as {base.ref}", hint="give the finetuned checkpoint"
        )
    factors = cut(wholes, rank=how.rank, budget_bytes=how.budget_bytes, storage=how.storage)
    lost = {path: w.lost(factors[path]) if path in factors else w.norm for path, w in wholes.items()}
    error = relative(lost.values(), [whole.norm for whole in wholes.values()])
    errors = {path: lost[path] / whole.norm for path, whole in wholes.items()}
    manifest = _manifest(base, tuned, name, how, factors, error, time.perf_counter() - started)
    log.info("%s: %d modules of %s differ, %.2g of it is lost", name, len(wholes), tuned.ref, error)
    return Extracted(factors, manifest, errors, error, tuple(left), tuple(_notes(base, tuned)))


def check_alike(base: Weights, tuned: Weights) -> None:
    """Raises BadCheckpoint with everything that keeps one from being a finetuned other."""
    kinds = [w.config.get("model_type") for w in (base, tuned)]
    faults = [] if kinds[0] == kinds[1] else [f"the model type is {kinds[0]!r} and {kinds[1]!r}"]
    for name in sorted(base.shapes | tuned.shapes, key=natural):
        one, other = base.shapes.get(name), tuned.shapes.get(name)
        if one is None or other is None:
            faults.append(f"only {tuned.ref if one is None else base.ref} has {name}")
        elif one != other:
            faults.append(f"{name} is {list(one)} and {list(other)}")
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise BadCheckpoint(
            f"{base.ref} and {tuned.ref} are not of one architecture:"
            + "".join(f"\n  - {fault}" for fault in faults[:SHOWN] + more),
            hint="a pack holds what finetuning changed; give the very base that was finetuned",
        )


def _differences(
    base: Weights, tuned: Weights, how: Extraction, tick: Tick
) -> tuple[dict[str, Whole], list[Left]]:
    wholes: dict[str, Whole] = {}
    left: list[Left] = []
    names = sorted(base.shapes, key=natural)
    most = _most(base, how)
    for done, name in enumerate(names):
        tick(done, len(names), name)
        path = name.removesuffix(".weight")
        old = base.take(name)
        delta = tuned.take(name) - old
        if not delta.any():
            continue
        if path != name and path in base.linear:
            wholes[path] = _leading(delta, most, how)
        elif (change := _ratio(delta, old)) > _tolerance(base, tuned, name):
            left.append(Left(name, delta.size, change))
    return wholes, left


def _leading(delta: Array, most: int, how: Extraction) -> Whole:
    u, s, vt = truncated_svd(delta, min(most, *delta.shape[-2:]), how.svd, seed=how.seed)
    return Whole(u, s, vt, float(np.linalg.norm(delta.astype(np.float64))))


def _most(base: Weights, how: Extraction) -> int:
    """How many directions of a matrix could come into the pack; more would fill the memory for nothing."""
    if how.rank is not None:
        return how.rank
    even = (how.budget_bytes or 0) // sum(_unit(base.shapes[f"{p}.weight"], how.storage) for p in base.linear)
    return min(MOST, FAIR_SHARES * (even + 2))


def _unit(shape: tuple[int, ...], storage: Storage) -> int:
    """Bytes of one rank."""
    return stored_bytes(shape[-2], shape[-1], 1, storage, math.prod(shape[:-2]))


def _ratio(delta: Array, old: Array) -> float:
    change = float(np.linalg.norm(delta))
    return change / (float(np.linalg.norm(old)) or change)


def _tolerance(base: Weights, tuned: Weights, name: str) -> float:
    """What may differ because one is stored in another precision."""
    return 0.0 if base.dtypes[name] == tuned.dtypes[name] else SAME_AFTER_CAST


def told(left: Sequence[Left], most: int = 6) -> str:
    """The largest of them by their change, and how many more."""
    worst = sorted(left, key=lambda item: -item.change)
    texts = [f"{item.name} ({item.parameters} values, by {100 * item.change:.2g} %)" for item in worst[:most]]
    return ", ".join(texts) + (f" and {len(left) - most} more" if len(left) > most else "")


def _notes(base: Weights, tuned: Weights) -> list[str]:
    notes = []
    for weights in (base, tuned):
        if weights.quantized:
            notes.append(f"{weights.ref} is quantized: its rounding is part of the difference")
    if not base.quantized and any(base.dtypes[n] != tuned.dtypes[n] for n in base.shapes):
        notes.append("the two are stored in different precisions: rounding is part of the difference")
    if _tokenizer_digest(base.path) != _tokenizer_digest(tuned.path):
        notes.append("the tokenizers differ: a pack carries none")
    return notes


def _tokenizer_digest(folder: Path) -> str:
    files = [folder / name for name in TOKENIZER_MODELS if (folder / name).is_file()]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def _manifest(
    base: Weights,
    tuned: Weights,
    name: str,
    how: Extraction,
    factors: Mapping[str, Factors],
    error: float,
    seconds: float,
) -> Manifest:
    settings = {
        "made_by": "from-delta",
        **asdict(how),
        "tuned": tuned.path.name,
        "tuned_fingerprint": tuned.fingerprint,
    }
    return make_manifest(
        factors,
        name=name,
        base_id=base.ref,
        base_fingerprint=base.fingerprint,
        training=settings,
        data=DataCard(tuned.fingerprint, samples=0, tokens=0, supervised_tokens=0),
        run=RunCard(steps=0, seconds=round(seconds, 3), tokens_per_s=0.0, peak_memory_mb=0.0),
        evals={"relative_error": error},
        storage=how.storage,
    )


def _silent(done: int, total: int, detail: str) -> None:
    pass
