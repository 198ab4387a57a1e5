"""A repair pack: what quantization took from a base, as far as it matters for the inputs that come.

Of each quantized matrix the residual E = W - Wq is known. A pack of rank r adds B A to Wq; the outputs are
then off by (E - B A) x. With R = mean of x x^T on calibration text and R = L L^T, the best B A minimizes
||(E - B A) L||, so it is the SVD of E L cut to r, with the L undone: B A = U S V^T L^-1. That is QERA's
closed form (Zhang et al. 2024, arXiv:2410.06040) with a Cholesky factor as the root; it gives the same B A.

The same bytes could buy more bits for some matrices instead. That is measured as well, and said.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_plastic.base import Base, load_base
from mlx_plastic.base.roles import natural
from mlx_plastic.base.weights import PACKING, Weights, open_weights
from mlx_plastic.base.widen import float32_weight
from mlx_plastic.errors import BadCheckpoint, BadConfig, BadData, PlasticError
from mlx_plastic.lowrank.layers import is_stack, linear_layers
from mlx_plastic.lowrank.svd import Array, truncated_svd
from mlx_plastic.packs.algebra.cut import Whole, cut
from mlx_plastic.packs.create.data import encoded, read_data
from mlx_plastic.packs.extract.covariance import input_covariances
from mlx_plastic.packs.extract.divergence import fit, reference
from mlx_plastic.packs.extract.extract import MOST, check_alike
from mlx_plastic.packs.extract.requantize import Option, Scheme, choose, options
from mlx_plastic.packs.extract.worth import Worth, measure_worth
from mlx_plastic.packs.format.pack import DataCard, Factors, Manifest, Pack, RunCard, Storage, make_manifest
from mlx_plastic.packs.train.batches import windows
from mlx_plastic.samples import Encoded

log = logging.getLogger(__name__)

Tick = Callable[[int, int, str], None]  # done, total, detail
EVERY = 5  # text is held out: measured, and not calibrated on
PIECE_TOKENS = 1024  # of a text that are read together


@dataclass(frozen=True)
class Repairing:
    """How a repair pack is made."""

    rank: int | None = None  # of every module, at most
    budget_bytes: int | None = None  # of the pack's file; ranks are then shared out by what they repair
    storage: Storage = "float16"
    damping: float = 0.01  # added to the diagonal of R, relative to its mean: rare inputs count a little too
    calibration_tokens: int = 65_536  # at most


@dataclass(frozen=True)
class Repaired:
    """errors: per module, what is left of the weighted error ||E L||, relative, before rounding to storage.

    worth: what the pack does on text that it was not made with. notes: what a person may want to know.
    """

    factors: dict[str, Factors]
    manifest: Manifest
    errors: dict[str, float]
    worth: Worth
    notes: tuple[str, ...]


def repair(
    base_ref: str,
    quantized_ref: str,
    data: Path,
    name: str,
    how: Repairing,
    *,
    cache: Path | None = None,
    on_progress: Tick | None = None,
) -> Repaired:
    """A pack for the quantized checkpoint that takes it back towards the base it was made of.

    data: JSONL of chats or texts, two lines or more, to calibrate on; a fifth of them is held out and
    measured. One of the two models is in memory at a time, and of the other one matrix. Raises BadCheckpoint
    if the second is not the first quantized, BadData for text that cannot be used, PlasticError if the pack
    makes the held-out text worse.
    """
    if how.rank is None and how.budget_bytes is None:
        raise BadConfig("no size for the pack", hint="give --rank or --budget-mb")
    started = time.perf_counter()
    tick = on_progress or _silent
    small = open_weights(quantized_ref, cache=cache)
    check_pair(open_weights(base_ref, cache=cache), small)
    full = load_base(base_ref, cache=cache)
    train, held_out = split(data, full)
    train = fit(train, how.calibration_tokens)
    notes = _notes(full, small)
    with reference(full.model, held_out) as first:
        wholes, offers = _residuals(full, small, train, how, tick)
        factors = cut(wholes, rank=how.rank, budget_bytes=how.budget_bytes, storage=how.storage)
        manifest = _manifest(small, full, name, how, factors, train, time.perf_counter() - started)
        del full  # the other model comes into memory now
        upgrades = choose(offers, manifest.sizes.tensor_bytes)
        worth = measure_worth(
            first, Pack(manifest, factors), upgrades, quantized_ref, base_ref, cache=cache, on_progress=tick
        )
    if worth.repaired.kl_nats >= worth.quantized.kl_nats:
        raise PlasticError(
            f"the pack does not repair: on held-out text its KL is {worth.repaired.kl_nats:.4g} nats per "
            f"token, without it {worth.quantized.kl_nats:.4g}",
            hint="give more text of the kind that the model is for, or a smaller rank",
        )
    log.info("%s: %s", name, worth.verdict)
    manifest = dataclasses.replace(manifest, evals=worth.as_dict())
    errors = {path: _left(whole, manifest.rank_map.get(path, 0)) for path, whole in wholes.items()}
    return Repaired(factors, manifest, errors, worth, tuple(notes))


def check_pair(full: Weights, small: Weights) -> None:
    """Raises BadCheckpoint unless `small` is of the architecture of `full`, and quantized more than that."""
    check_alike(full, small)
    if not small.quantized.keys() - full.quantized.keys():
        raise BadCheckpoint(
            f"{small.ref} is not quantized",
            hint="for a finetuned checkpoint use --tuned rather than --quantized",
        )


def split(data: Path, full: Base) -> tuple[list[Encoded], list[Encoded]]:
    """What is calibrated on, and every fifth text, which is measured; in pieces that the base sees at once.

    Raises BadData for lines that cannot be used, or less than two.
    """
    texts = encoded(read_data(data), full, "all")
    texts = [text for text in texts if len(text.tokens) > 1]
    if len(texts) < 2:
        raise BadData(f"{data} holds less than two texts", hint="one is calibrated on, another measured")
    held_out = set(range(EVERY - 1, len(texts), EVERY)) or {len(texts) - 1}
    sides: tuple[list[Encoded], list[Encoded]] = [], []
    for i, text in enumerate(texts):
        sides[i in held_out].extend(windows(text, min(full.window, PIECE_TOKENS)))
    return sides


def _repairable(full: Base, small: Weights) -> list[str]:
    layers = linear_layers(full.model).items()
    found = [path for path, layer in layers if path in small.quantized and not is_stack(layer)]
    return sorted(found, key=natural)


def _notes(full: Base, small: Weights) -> list[str]:
    others = sorted(small.quantized.keys() - set(_repairable(full, small)))
    more = " ..." if len(others) > 8 else ""
    return [f"quantized too, and not repaired: {', '.join(others[:8])}{more}"] if others else []


def _residuals(
    full: Base, small: Weights, texts: Sequence[Encoded], how: Repairing, tick: Tick
) -> tuple[dict[str, Whole], dict[str, list[Option]]]:
    """Per matrix, what is to be repaired, weighted by its inputs; and what other bits would repair of it."""
    layers = linear_layers(full.model)
    paths = _repairable(full, small)
    most = how.rank or MOST
    wholes: dict[str, Whole] = {}
    offers: dict[str, list[Option]] = {}
    covariances = input_covariances(
        full.model, paths, texts, on_progress=lambda done, total: tick(done, total, "calibrating")
    )
    for chunk in covariances:
        for path, covariance in chunk.items():
            tick(len(wholes), len(paths), path)
            module: Any = layers[path]
            w = np.array(float32_weight(module))
            now, now_bytes = _now(small, path)
            residual = w - small.take(f"{path}.weight")
            root = _root(covariance, how.damping)
            wholes[path] = weighted(residual, root, min(most, *w.shape))
            offers[path] = options(w, root, now, now_bytes, wholes[path].norm ** 2)
    return wholes, offers


def _now(small: Weights, path: str) -> tuple[Scheme, int]:
    """How the matrix is quantized, and the bytes that it takes."""
    module = small.modules[path]
    scales = str(module.scales.dtype).removeprefix("mlx.core.")
    stored = [module[part] for part in ("weight", *PACKING) if part in module]
    kind: Any = scales if scales in ("float16", "bfloat16", "float32") else "float16"  # mxfp4 has bytes
    return Scheme(module.bits, module.group_size, kind), sum(array.nbytes for array in stored)


def _root(covariance: Array, damping: float) -> Array:
    """L (in, in) float32 with L @ L.T = the damped covariance."""
    c = covariance.astype(np.float64)
    c = c + (damping * float(np.trace(c)) / len(c) + 1e-12) * np.eye(len(c))
    return np.linalg.cholesky(c).astype(np.float32)


def weighted(residual: Array, root: Array, rank: int) -> Whole:
    """The parts of `residual` (out, in) that move the outputs most, for inputs with mean x x^T = L L^T.

    Their sum B A of any number of parts minimizes ||(residual - B A) L||, L being `root`; s are their sizes
    in that norm, norm is ||residual @ L||.
    """
    target = residual @ root
    u, s, vt = truncated_svd(target, rank)
    undone = np.linalg.solve(root.T.astype(np.float64), vt.T.astype(np.float64)).T  # vt @ root^-1
    return Whole(u, s, undone.astype(np.float32), float(np.linalg.norm(target.astype(np.float64))))


def _left(whole: Whole, rank: int) -> float:
    """What is left of the weighted error at that rank, relative."""
    kept = float(np.square(whole.s[:rank], dtype=np.float64).sum())
    return math.sqrt(max(0.0, 1 - kept / whole.norm**2)) if whole.norm else 0.0


def _manifest(
    small: Weights,
    full: Base,
    name: str,
    how: Repairing,
    factors: Mapping[str, Factors],
    texts: Sequence[Encoded],
    seconds: float,
) -> Manifest:
    tokens = sum(len(text.tokens) for text in texts)
    digest = hashlib.sha256(json.dumps([text.tokens for text in texts]).encode()).hexdigest()
    settings = {
        "made_by": "repair",
        **dataclasses.asdict(how),
        "of": full.ref,
        "of_fingerprint": full.fingerprint,
    }
    return make_manifest(
        factors,
        name=name,
        base_id=small.ref,
        base_fingerprint=small.fingerprint,
        training=settings,
        data=DataCard(digest, len(texts), tokens, 0, {"calibration": len(texts)}),
        run=RunCard(steps=0, seconds=round(seconds, 3), tokens_per_s=0.0, peak_memory_mb=0.0),
        storage=how.storage,
    )


def _silent(done: int, total: int, detail: str) -> None:
    pass
