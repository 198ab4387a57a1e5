"""What each matrix of a checkpoint could be stored as, and what that costs: a plan's rows, for any budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlx_plastic.backend import mx
from mlx_plastic.base import Base, load_base
from mlx_plastic.base.weights import PACKING, Weights, open_weights
from mlx_plastic.base.widen import float32_weight
from mlx_plastic.compress.calibrate import calibrated
from mlx_plastic.compress.metrics import Metrics
from mlx_plastic.compress.offers import Row, allowed_by, row, scaled
from mlx_plastic.compress.schemes import Dtype, nearest
from mlx_plastic.compress.surveyed import rows_of
from mlx_plastic.compress.taps import at, storable
from mlx_plastic.compress.texts import count, digest, read_texts
from mlx_plastic.errors import PlasticError
from mlx_plastic.packs.extract.divergence import reference
from mlx_plastic.samples import Encoded

Tick = Callable[[int, int, str], None]  # done, total, detail

TRIED_MATRICES = 400  # more would take longer than they are worth
TRIED_BITS = 3
TRUSTED = (0.25, 30.0)  # how far what was tried may correct what was told


@dataclass(frozen=True)
class Pricing:
    """How errors are priced.

    floating: offer mxfp4, mxfp8 and nvfp4 too. dtype: of what is not quantized, and of scales; None: the
    checkpoint's own 16 bits. dequantize: consent to round what was rounded before. tokens: to calibrate on.
    tried: correct what the texts tell by trying single matrices.
    """

    floating: bool = False
    dtype: Dtype | None = None
    dequantize: bool = False
    tokens: int = 8192
    tried: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Priced:
    """A checkpoint's rows. rest: bytes of all that is not in them. parameters: of the model.

    base, held, store: what swaps need; None without texts.
    """

    ref: str
    fingerprint: str
    dtype: Dtype
    parameters: int
    rest: int
    rows: tuple[Row, ...]
    by: Literal["texts", "roles"]
    calibration: dict[str, Any]
    notes: tuple[str, ...] = ()
    base: Base | None = None
    held: tuple[Encoded, ...] = ()
    store: Metrics | None = None


def opened(ref: str, *, dequantize: bool, cache: Path | None = None) -> Weights:
    """The checkpoint, none of it read. Raises PlasticError if it is quantized, and there is no consent."""
    weights = open_weights(ref, cache=cache)
    if weights.quantized and not dequantize:
        bits = sorted({b for b, _ in weights.quantized.values()})
        raise PlasticError(
            f"{ref} is quantized already, to {', '.join(map(str, bits))} bits: rounding it again loses twice",
            hint="plan from the unquantized checkpoint, or say --dequantize",
        )
    return weights


def price(
    weights: Weights,
    how: Pricing,
    *,
    data: Path | None = None,
    survey: Iterable[Mapping[str, Any]] | None = None,
    metrics: Path | None = None,
    cache: Path | None = None,
    tick: Tick | None = None,
) -> Priced:
    """data: texts or chats in JSONL to price errors by; None prices by role.

    survey: rows of a survey's quant_sim, whose errors are taken instead of measured. metrics: a new folder
    for what GPTQ needs of the texts; without it matrices are rounded plainly.
    Raises BadCheckpoint for weights that are not finite, BadData for texts that cannot be used.
    """
    tell = tick or (lambda *_: None)
    dtype = how.dtype or _dtype(weights)
    parameters = sum(math.prod(shape) for shape in weights.shapes.values())
    head = (weights.ref, weights.fingerprint, dtype, parameters, rest_bytes(weights))
    if survey is not None:
        return Priced(*head, tuple(_by_survey(survey, weights, how, dtype, tell)), "roles", {})
    if data is None:
        paths = list(storable(weights.model))
        return Priced(*head, tuple(_by_role(weights, how, dtype, paths, tell)), "roles", {})
    base = load_base(weights.ref, cache=cache)
    texts = read_texts(base, data, tokens=how.tokens)
    about = {"digest": digest(texts.learned), "texts": len(texts.learned), "tokens": count(texts.learned)}
    store = Metrics.new(metrics, weights.fingerprint, digest(texts.learned)) if metrics else None
    rows = list(_by_texts(base, texts.learned, how, dtype, store, tell))
    notes = tuple(_missing(base, rows))
    if how.tried and len(rows) <= TRIED_MATRICES:
        rows = _tried(base, rows, texts.tried, dtype, tell)
    if store is None:
        rows = [_plain(r) for r in rows]
    calibration = {**about, "folder": str(metrics) if metrics else None}
    held = tuple(texts.tried)
    return Priced(*head, tuple(rows), "texts", calibration, notes, base, held, store)


def rest_bytes(weights: Weights) -> int:
    """Of norms, biases and what else is not planned, as it will be stored."""
    planned_names = {f"{path}.weight" for path in storable(weights.model)}
    return sum(
        math.prod(shape) * stored_dtype(weights, name, mx.float16).size
        for name, shape in weights.shapes.items()
        if name not in planned_names
    )


def stored_dtype(weights: Weights, name: str, dtype: mx.Dtype) -> mx.Dtype:
    """In what a parameter that is not quantized is stored.

    16 bits, unless it is no float, or the model says that it must not be cast.
    """
    own: mx.Dtype = getattr(mx, weights.dtypes[name])
    may = getattr(weights.model, "cast_predicate", None)
    return dtype if mx.issubdtype(own, mx.floating) and (may is None or may(name)) else own


def _dtype(weights: Weights) -> Dtype:
    kinds = [weights.dtypes[name] for name in weights.shapes if name.endswith("weight")]
    return "bfloat16" if kinds.count("bfloat16") > len(kinds) / 2 else "float16"


def _by_role(weights: Weights, how: Pricing, dtype: Dtype, paths: Sequence[str], tell: Tick) -> Iterator[Row]:
    layers = storable(weights.model)
    blocks = _blocks(layers)
    for i, path in enumerate(paths):
        tell(i, len(paths), path)
        allowed = allowed_by(weights.model, path, layers[path])
        w = weights.take(f"{path}.weight")
        yield row(
            *(path, w, None), dtype=dtype, floor=2, floating=how.floating, allowed=allowed, blocks=blocks
        )


def _by_survey(
    table: Iterable[Mapping[str, Any]], weights: Weights, how: Pricing, dtype: Dtype, tell: Tick
) -> list[Row]:
    """The survey's rows, and of what it did not measure our own."""
    blocks = _blocks(storable(weights.model))
    rows, others = rows_of(table, weights, floating=how.floating, blocks=blocks)
    return [*rows, *_by_role(weights, how, dtype, others, tell)]


def _by_texts(
    base: Base, texts: Sequence[Encoded], how: Pricing, dtype: Dtype, store: Metrics | None, tell: Tick
) -> Iterator[Row]:
    layers = storable(base.model)
    found = calibrated(base.model, list(layers), texts, seed=how.seed, tick=tell)
    for done, (path, curvatures) in enumerate(found):
        tell(done, len(layers), f"trying schemes on {path}")
        layer: Any = layers[path]
        w = np.array(float32_weight(layer))
        if store:
            store.add(path, np.stack([c.metric for c in curvatures]).astype(np.float32))
        yield row(
            *(path, w, curvatures),
            dtype=dtype,
            floor=2,
            floating=how.floating,
            allowed=allowed_by(base.model, path, layer),
            seed=how.seed,
        )
    if store:
        store.close()


def _missing(base: Base, rows: Sequence[Row]) -> list[str]:
    lost = sorted(set(storable(base.model)) - {r.module for r in rows})
    return (
        [f"the texts never reach {len(lost)} layers: they stay whole: {', '.join(lost[:5])}"] if lost else []
    )


def _tried(base: Base, rows: list[Row], held: Sequence[Encoded], dtype: Dtype, tell: Tick) -> list[Row]:
    """The rows with their costs corrected by the real KL of each matrix rounded alone, on texts held back."""
    found = []
    with reference(base.model, held) as first:
        for i, r in enumerate(rows):
            tell(i, len(rows), f"trying {r.module}")
            offers = [o for o in r.offers if o.scheme.bits >= TRIED_BITS and o.rtn_nats > 0]
            if not offers:
                found.append(r)
                continue
            offer = offers[0]
            layer = at(base.model, r.module)
            before = {key: layer[key] for key in ("weight", *PACKING) if key in layer}
            if "scales" in before:  # a base that was left quantized for want of memory
                found.append(r)
                continue
            layer.weight = mx.array(
                nearest(np.array(before["weight"].astype(mx.float32)), offer.scheme, dtype)
            )
            try:
                real = first.distance(base.model).kl_nats
            finally:
                layer.weight = before["weight"]
            found.append(scaled(r, float(np.clip(real / offer.rtn_nats, *TRUSTED))))
    return found


def _plain(r: Row) -> Row:
    """The row without GPTQ, for which nothing is kept."""
    return replace(r, offers=tuple(replace(o, gptq=False, kl_nats=o.rtn_nats) for o in r.offers))


def _blocks(paths: Any) -> int:
    numbers = [int(part) for path in paths for part in path.split(".")[:4] if part.isdigit()]
    return max(numbers, default=-1) + 1
