"""A checkpoint and a budget -> a plan, with what the rounding needs beside it."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlx_plastic.backend import mx
from mlx_plastic.base import Base, load_base
from mlx_plastic.base.weights import PACKING, Weights, open_weights
from mlx_plastic.base.widen import float32_weight
from mlx_plastic.compress.calibrate import calibrated
from mlx_plastic.compress.metrics import Metrics
from mlx_plastic.compress.offers import Row, allowed_by, row, scaled
from mlx_plastic.compress.plan import Plan, budget_bytes, planned, stored
from mlx_plastic.compress.schemes import Dtype, nearest
from mlx_plastic.compress.solve import Solution
from mlx_plastic.compress.surveyed import rows_of
from mlx_plastic.compress.swaps import swapped
from mlx_plastic.compress.taps import at, storable
from mlx_plastic.errors import BadConfig, BadData, PlasticError
from mlx_plastic.evals.loss import thinned
from mlx_plastic.packs.create.data import encoded, read_data
from mlx_plastic.packs.extract.divergence import reference
from mlx_plastic.packs.train.batches import windows
from mlx_plastic.samples import Encoded

log = logging.getLogger(__name__)

Tick = Callable[[int, int, str], None]  # done, total, detail

PIECE_TOKENS = 256  # of a text that the base sees at once
EVERY = 8  # pieces, of which one is to try single matrices on, and one to judge by
TRIED_TOKENS, JUDGED_TOKENS = 1024, 8192
TRIED_MATRICES = 400  # more would take longer than they are worth
TRIED_BITS = 3
TRUSTED = (0.25, 30.0)  # how far what was tried may correct what was told


@dataclass(frozen=True)
class Planning:
    """How a plan is made. floor: the fewest bits of any matrix; None: 3, or 2 if the budget asks for it."""

    budget: str = "4.0bpw"
    floor: int | None = None
    floating: bool = False  # offer mxfp4, mxfp8 and nvfp4 too
    dtype: Dtype | None = None  # of what is not quantized, and of scales; None: the checkpoint's own 16 bits
    dequantize: bool = False  # consent to round what was rounded before
    tokens: int = 8192  # to calibrate on
    swaps: int = 24  # changes scored by the KL of the whole, where matrices have less than 3 bits
    tried: bool = True  # correct what the texts tell by trying single matrices
    seed: int = 0


def make_plan(
    ref: str,
    how: Planning,
    *,
    data: Path | None = None,
    survey: Iterable[Mapping[str, Any]] | None = None,
    metrics: Path | None = None,
    cache: Path | None = None,
    tick: Tick | None = None,
) -> Plan:
    """data: texts or chats in JSONL, to price errors by; None prices by role. survey: rows
    of a survey's quant_sim, whose errors are taken instead of measured. metrics: a new folder for what
    GPTQ needs of the texts; without it matrices are rounded plainly.

    Raises BadConfig for a budget that nothing fits, PlasticError for a checkpoint that is quantized already
    unless how.dequantize, BadCheckpoint for weights that are not finite, BadData for texts that cannot be
    used.
    """
    tell = tick or (lambda *_: None)
    weights = open_weights(ref, cache=cache)
    if weights.quantized and not how.dequantize:
        bits = sorted({b for b, _ in weights.quantized.values()})
        raise PlasticError(
            f"{ref} is quantized already, to {', '.join(map(str, bits))} bits: rounding it again loses twice",
            hint="plan from the unquantized checkpoint, or say --dequantize",
        )
    dtype = how.dtype or _dtype(weights)
    parameters = sum(math.prod(shape) for shape in weights.shapes.values())
    budget = budget_bytes(how.budget, parameters)
    rest = rest_bytes(weights)
    notes: list[str] = []
    calibration: dict[str, Any] = {}
    if survey is not None:
        rows = _by_survey(survey, weights, how, dtype, tell)
    elif data is None:
        rows = list(_by_role(weights, how, dtype, list(storable(weights.model)), tell))
    else:
        base = load_base(ref, cache=cache)
        texts = read_texts(base, data, tokens=how.tokens)
        learned, held = texts.learned, texts.tried
        digest = _digest(learned)
        about = {"digest": digest, "texts": len(learned), "tokens": _count(learned)}
        store = Metrics.new(metrics, weights.fingerprint, digest) if metrics else None
        rows = list(_by_texts(base, learned, how, dtype, store, tell))
        notes += _missing(base, rows)
        if how.tried and len(rows) <= TRIED_MATRICES:
            rows = _tried(base, rows, held, dtype, tell)
        calibration = {**about, "folder": str(metrics) if metrics else None}
        if store is None:
            rows = [_plain(r) for r in rows]
    rows, solution, floor_note = _chosen(rows, budget, rest, how.floor)
    notes += floor_note
    choice, cost = list(solution.choice), solution.cost
    if data is not None and how.swaps and _is_deep(rows, choice) and not weights.quantized:
        room = budget - rest - solution.nbytes
        choice, history = swapped(*(base, rows, choice, room, held, dtype, store), tries=how.swaps, tick=tell)
        cost = sum(r.offers[k].kl_nats for r, k in zip(rows, choice, strict=True))
        notes.append(
            f"swaps scored by the KL of the whole: {history[0]:.4g} -> {history[-1]:.4g} nats per token"
        )
    chosen = [stored(r, r.offers[k]) for r, k in zip(rows, choice, strict=True)]
    total = rest + sum(m.nbytes for m in chosen)
    plan = Plan(
        *(weights.ref, weights.fingerprint, dtype, budget, total, parameters),
        by="roles" if data is None else "texts",
        cost=cost,
        bound=solution.bound,
        exact=solution.exact and choice == list(solution.choice),
        matrices=tuple(chosen),
        calibration=calibration,
        notes=tuple(notes),
    )
    log.info("plan for %s: %.3f bits per weight, cost %.4g", ref, plan.bits_per_weight, plan.cost)
    return plan


def rest_bytes(weights: Weights) -> int:
    """Of all parameters that are not planned.

    norms, biases and what else there is, as they will be stored.
    """
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


@dataclass(frozen=True)
class Texts:
    """Pieces of texts: to calibrate on, to try single matrices on, and to judge the whole by."""

    learned: list[Encoded]
    tried: list[Encoded]
    judged: list[Encoded]


def read_texts(base: Base, data: Path, *, tokens: int) -> Texts:
    """Of every eight pieces one is for trying and one for judging. tokens: to calibrate on, at most.

    Raises BadData for lines that cannot be used, or less than three pieces.
    """
    found = [text for text in encoded(read_data(data), base, "all") if len(text.tokens) > 1]
    pieces = [p for text in found for p in windows(text, min(base.window, PIECE_TOKENS)) if len(p.tokens) > 1]
    if len(pieces) < 3:
        raise BadData(f"{data} holds {len(pieces)} pieces of text", hint="give some thousand words")
    every = min(EVERY, len(pieces))
    sides: tuple[list[Encoded], list[Encoded], list[Encoded]] = [], [], []
    for i, piece in enumerate(pieces):
        sides[{every - 1: 2, every // 2 - 1 if every > 3 else 0: 1}.get(i % every, 0)].append(piece)
    learned, tried, judged = sides
    return Texts(_limited(learned, tokens), _limited(tried, TRIED_TOKENS), _limited(judged, JUDGED_TOKENS))


def _limited(pieces: Sequence[Encoded], tokens: int) -> list[Encoded]:
    """Pieces from all over, of at most so many tokens together, but always one."""
    mean = _count(pieces) / len(pieces)
    return thinned(pieces, max(1, int(tokens / mean)))


def _count(pieces: Sequence[Encoded]) -> int:
    return sum(len(piece.tokens) for piece in pieces)


def _digest(pieces: Sequence[Encoded]) -> str:
    return hashlib.sha256(json.dumps([piece.tokens for piece in pieces]).encode("ascii")).hexdigest()


def _by_role(
    weights: Weights, how: Planning, dtype: Dtype, paths: Sequence[str], tell: Tick
) -> Iterator[Row]:
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
    table: Iterable[Mapping[str, Any]], weights: Weights, how: Planning, dtype: Dtype, tell: Tick
) -> list[Row]:
    """The survey's rows, and of what it did not measure our own."""
    blocks = _blocks(storable(weights.model))
    rows, others = rows_of(table, weights, floating=how.floating, blocks=blocks)
    return [*rows, *_by_role(weights, how, dtype, others, tell)]


def _by_texts(
    base: Base, texts: Sequence[Encoded], how: Planning, dtype: Dtype, store: Metrics | None, tell: Tick
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


def _chosen(
    rows: list[Row], budget: int, rest: int, floor: int | None
) -> tuple[list[Row], Solution, list[str]]:
    """With the floor asked for, or with 3 bits if that fits, else 2.

    the rows' offers from there on, chosen.
    """
    for least in (floor,) if floor else (3, 2):
        kept = [replace(r, offers=tuple(o for o in r.offers if o.scheme.bits >= least)) for r in rows]
        try:
            solution = planned(kept, budget=budget, rest=rest)
        except BadConfig:
            if least in (2, floor):
                raise
            continue
        deep = ["the budget asks for 2 bits: expect more loss than is told here"]
        return kept, solution, deep if least == 2 and not floor else []
    raise AssertionError("the loop returns or raises")


def _is_deep(rows: Sequence[Row], choice: Sequence[int]) -> bool:
    """Whether the matrices have less than 3 bits a number, scales left aside."""
    bits = sum(r.parameters * r.offers[k].scheme.bits for r, k in zip(rows, choice, strict=True))
    return bits < 3 * sum(r.parameters for r in rows)


def _blocks(paths: Any) -> int:
    numbers = [int(part) for path in paths for part in path.split(".")[:4] if part.isdigit()]
    return max(numbers, default=-1) + 1
