"""A pack within so many bytes: train high, cut by SVD where it costs least, store as small as pays.

An update is a sum of rank-1 parts; its SVD orders them. Parts are kept across all modules by what they are
worth per stored byte (`allocate`), stored as float16, int8 or int4, and what is best on validation samples is
taken. docs/rank-and-bytes.md has the figures.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.backend import mx
from mlx_plastic.base import Base
from mlx_plastic.errors import PlasticError
from mlx_plastic.evals import thinned
from mlx_plastic.lowrank.layers import linear_layers, updated, wrapped
from mlx_plastic.lowrank.quick import quick_activations, summed_nll
from mlx_plastic.lowrank.svd import product_svd
from mlx_plastic.packs.format.pack import (
    Factors,
    Pack,
    RunCard,
    Storage,
    make_manifest,
    stored_bytes,
    stored_factors,
)
from mlx_plastic.packs.ranks.allocate import Offer, allocate
from mlx_plastic.packs.ranks.sizes import HEADER_BYTES, Shapes, entry_bytes, file_bytes
from mlx_plastic.packs.ranks.taps import layer_inputs
from mlx_plastic.packs.train.train import TrainConfig, data_card, train
from mlx_plastic.samples import Encoded

log = logging.getLogger(__name__)

Array = NDArray[Any]
Metric = Literal["update", "inputs", "loss"]

MORE_THAN_FITS = 1.2  # times the rank that a budget holds, to choose from
ROUNDS = 6  # of allocation, until the file is as large as allowed
GROUP_SIZES = (64, 128)  # of int8 and int4
WEIGHING = 48  # samples, on which the parts are weighed


@dataclass(frozen=True)
class Parts:
    """One module's update as rank-1 parts, the most valuable first: sum_k b[..., k] a[k].

    b: (out, k), a: (k, in), float32; with stacked experts (E, out, k) and (E, k, in). gains: (k,) what the
    parts are worth, falling, in one unit over all modules.
    """

    b: Array
    a: Array
    gains: Array

    def reordered(self, gains: Array) -> Parts:
        order = np.argsort(-gains, kind="stable")
        return Parts(self.b[..., order], self.a[..., order, :], gains[order])


@dataclass(frozen=True)
class Candidate:
    """One way to store an update in a budget, and how well it does.

    file_bytes: of pack.safetensors, header and all. nll: nats per target; None if not measured.
    """

    storage: Storage
    group_size: int
    metric: Metric
    ranks: dict[str, int]
    file_bytes: int
    nll: float | None = None


@dataclass(frozen=True)
class Fitted:
    """factors: of the best candidate, as a reader of its storage gets them. full_nll: of the uncut update."""

    factors: dict[str, Factors]
    best: Candidate
    candidates: tuple[Candidate, ...]
    full_nll: float


def fit(
    base: Base,
    factors: Mapping[str, Factors],
    valid: Sequence[Encoded],
    *,
    budget_bytes: int,
    weigh: Sequence[Encoded] = (),
    storages: Sequence[Storage] = get_args(Storage),
    on_progress: Callable[[int, int], None] | None = None,
) -> Fitted:
    """The update cut to `budget_bytes` of pack.safetensors, in the way that does best on `valid`.

    valid: samples to choose by, not trained on. weigh: samples, training ones will do, on which parts are
    weighed by what they do to the loss; without any only their size counts.
    Packs that the model wears act meanwhile, and are worn again afterwards. on_progress: told (done, total).
    Raises PlasticError if not even one part fits, ValueError if there is nothing to choose by.
    """
    if not any(sample.supervised for sample in valid):
        raise ValueError("no valid sample has a target to choose by")
    kinds = [(s, g) for s in storages for g in (GROUP_SIZES if s != "float16" else GROUP_SIZES[:1])]
    told = thinned([s for s in weigh if s.supervised and not s.soft], WEIGHING)
    metric: Metric = "loss" if told else "update"
    full_nll = measure(base, factors, valid)
    parts = weighed(base, factors, metric, told)
    found: list[tuple[Candidate, dict[str, Factors]]] = []
    for storage, group_size in kinds:
        candidate, cut = cut_to(parts, budget_bytes, storage, group_size, metric=metric)
        nll = measure(base, cut, valid)
        found.append((dataclasses.replace(candidate, nll=nll), cut))
        log.info(
            "%s in groups of %d: %d parts in %d modules, %d bytes, %.4f nats (uncut %.4f)",
            *(storage, group_size, sum(candidate.ranks.values()), len(candidate.ranks)),
            *(candidate.file_bytes, nll, full_nll),
        )
        if on_progress:
            on_progress(1 + len(found), 1 + len(kinds))
    best, cut = min(found, key=lambda one: math.inf if one[0].nll is None else one[0].nll)
    return Fitted(cut, best, tuple(candidate for candidate, _ in found), full_nll)


def heal(
    base: Base,
    fitted: Fitted,
    samples: Sequence[Encoded],
    valid: Sequence[Encoded],
    config: TrainConfig,
) -> Fitted:
    """The cut update, trained on with `config` at the ranks it kept, and stored again in the same bytes.

    It makes up for a deep cut. What it gives is taken only if it does better on `valid`; else `fitted` comes
    back as it is. Raises TrainingFailed as `train` does.
    """
    best = fitted.best
    start = _as_pack(base, fitted.factors)
    trained = train(base, samples, valid, config, ranks=best.ranks, start=start)
    healed = stored_factors(trained.factors, best.storage, best.group_size)
    nll = measure(base, healed, valid)
    log.info("healed in %d steps: %.4f -> %.4f nats", trained.report.steps, best.nll or math.nan, nll)
    if best.nll is not None and nll >= best.nll:
        return fitted
    better = dataclasses.replace(best, nll=nll)
    return Fitted(healed, better, (*fitted.candidates, better), fitted.full_nll)


def weighed(
    base: Base, factors: Mapping[str, Factors], metric: Metric, samples: Sequence[Encoded] = ()
) -> dict[str, Parts]:
    """The update of each module as parts, worth what `metric` says.

    "update": their squared size. "inputs": the squared size of what they add to the layer's output on
    `samples`. "loss": that, times the mean squared derivative of the loss by the part's size, under a root.
    The derivative (twice what dropping the part costs, to second order: LeCun et al. 1989) is noisy with few
    samples, the output says nothing of what comes after: their geometric mean did better than either.
    """
    if metric == "update":
        return {path: split(f) for path, f in factors.items()}
    with _wearing(base.model, {path: _layer_factors(f) for path, f in factors.items()}):
        rows = layer_inputs(base.model, list(factors), samples)
    parts = {path: split(f, rows.get(path)) for path, f in factors.items()}
    if metric == "loss":
        slopes = _squared_slopes(base, parts, samples)
        parts = {path: p.reordered(np.sqrt(p.gains * slopes[path])) for path, p in parts.items()}
    return parts


def split(factors: Factors, inputs: Array | None = None) -> Parts:
    """The parts of one update by its SVD; with inputs (n, in) those of its output on them.

    The first k parts are then the best rank-k fit of the update, or of update @ inputs.T.
    """
    b = factors.b.astype(np.float32) * np.float32(factors.scale)
    a = factors.a.astype(np.float32)
    if inputs is None:
        u, s, vt = product_svd(b, a)
        right = s[..., :, None] * vt
    else:
        u, s, _ = product_svd(b, a @ (inputs.T / np.float32(len(inputs) ** 0.5)))
        right = np.swapaxes(u, -1, -2) @ b @ a
    gains = np.sum(np.square(s, dtype=np.float64).reshape(-1, s.shape[-1]), axis=0)
    return Parts(u, right, gains)


def cut_to(
    parts: Mapping[str, Parts],
    budget_bytes: int,
    storage: Storage,
    group_size: int = 64,
    *,
    metric: Metric = "update",
) -> tuple[Candidate, dict[str, Factors]]:
    """The best parts within `budget_bytes` of file as a reader of `storage` gets them, not yet measured.

    Raises PlasticError if not even one part fits.
    """
    shapes = {path: (*p.b.shape[:-1], p.a.shape[-1]) for path, p in parts.items()}
    offers = {
        path: _offer(path, p, shapes[path], storage, group_size, budget_bytes) for path, p in parts.items()
    }
    room = budget_bytes - HEADER_BYTES
    ranks: dict[str, int] = {}
    size = 0
    for _ in range(ROUNDS):
        found = allocate(offers, room).ranks
        found_size = file_bytes(found, shapes, storage, group_size) if found else 0
        if size < found_size <= budget_bytes:
            ranks, size = found, found_size
        elif ranks:
            break
        room += budget_bytes - found_size  # entries in the header are shorter than they could be
    if not ranks:
        least = min(offer.bytes_at(1) for offer in offers.values()) + HEADER_BYTES
        raise PlasticError(
            f"a budget of {budget_bytes} bytes holds no part of this update",
            hint=f"the smallest in {storage} takes up to {least} bytes; give more",
        )
    cut = {path: join(parts[path], rank) for path, rank in ranks.items()}
    return Candidate(storage, group_size, metric, ranks, size), stored_factors(cut, storage, group_size)


def join(parts: Parts, rank: int) -> Factors:
    """The first `rank` parts as factors with scale 1; b and a of each part have the same norm."""
    b, a = parts.b[..., :rank], parts.a[..., :rank, :]
    b_norm, a_norm = np.linalg.norm(b, axis=-2), np.linalg.norm(a, axis=-1)
    tilt = np.sqrt(a_norm / np.maximum(b_norm, 1e-30))
    left, right = b * tilt[..., None, :], a / np.maximum(tilt, 1e-30)[..., :, None]
    return Factors(right.astype(np.float16), left.astype(np.float16), float(rank))


def measure(base: Base, factors: Mapping[str, Factors], samples: Sequence[Encoded]) -> float:
    """Nats per target with this update, beside whatever the model wears."""
    with _wearing(base.model, {path: _layer_factors(f) for path, f in factors.items()}):
        found = base.nll(samples)
    return sum(nats for nats, _ in found) / sum(n for _, n in found)


def rank_to_train(shapes: Shapes, budget_bytes: int) -> int:
    """The rank to train all modules at for a budget: a fifth more than it holds as int4, at least 1.

    More is slower, and what must then be cut costs more than was gained (docs/rank-and-bytes.md).
    """
    one, two = (file_bytes(dict.fromkeys(shapes, rank), shapes, "int4") for rank in (1, 2))
    holds = 1 + (budget_bytes - one) / max(1, two - one)
    smallest = min((min(shape[-2:]) for shape in shapes.values()), default=1)
    return max(1, min(smallest, int(MORE_THAN_FITS * holds)))


def _as_pack(base: Base, factors: Mapping[str, Factors]) -> Pack:
    manifest = make_manifest(
        factors,
        name="cut",
        base_id=base.ref,
        base_fingerprint=base.fingerprint,
        training={},
        data=data_card([]),
        run=RunCard(0, 0.0, 0.0, 0.0),
    )
    return Pack(manifest, dict(factors))


def _offer(
    path: str, parts: Parts, shape: Sequence[int], storage: Storage, group_size: int, budget_bytes: int
) -> Offer:
    *stack, out, width = shape
    empty, one = (
        stored_bytes(out, width, rank, storage, math.prod(stack), group_size=group_size) for rank in (0, 1)
    )
    entries = entry_bytes(path, shape, storage, digits=len(str(budget_bytes)))
    return Offer(parts.gains.tolist(), one - empty, empty + entries)


def _layer_factors(factors: Factors) -> tuple[Array, Array]:
    return factors.a.astype(np.float32), factors.b.astype(np.float32) * np.float32(factors.scale)


@contextmanager
def _wearing(model: Any, factors: Mapping[str, tuple[Array, Array]]) -> Iterator[dict[str, Any]]:
    """Inside, the model wears these (a, b) on top of what it wears."""
    linear = linear_layers(model)
    layers = {p: updated(linear[p], mx.array(a), mx.array(b)) for p, (a, b) in factors.items()}
    with wrapped(model, layers):
        yield layers


def _squared_slopes(base: Base, parts: Mapping[str, Parts], samples: Sequence[Encoded]) -> dict[str, Array]:
    """(k,) per module: the mean over the samples of (d loss / d size of the part)^2, in nats^2 per target."""
    model = base.model
    targets = sum(s.supervised for s in samples)
    if not targets or any(s.soft or not s.supervised for s in samples):
        raise ValueError("parts are weighed on samples with targets, none of them soft")
    was_training = model.training
    with quick_activations(), _wearing(model, {path: (p.a, p.b) for path, p in parts.items()}) as layers:
        model.train()  # some models have other kernels for it, ones with a gradient
        whole = [layer.a for layer in layers.values()]

        def loss(sizes: list[mx.array], sample: Encoded) -> mx.array:
            for layer, a, size in zip(layers.values(), whole, sizes, strict=True):
                layer.a = a * size[:, None]
            at = [i for i, counts in enumerate(sample.targets) if counts]
            logits = model(mx.array(sample.tokens)[None])[0][mx.array(at) - 1]
            return summed_nll(logits, mx.array([sample.tokens[i] for i in at]))

        found = [mx.zeros(len(p.gains)) for p in parts.values()]
        ones = [mx.ones(len(p.gains)) for p in parts.values()]
        try:
            for sample in samples:
                slopes = mx.grad(loss)(ones, sample)
                found = [total + slope * slope for total, slope in zip(found, slopes, strict=True)]
                mx.eval(found)
        finally:
            model.train(was_training)
    return {path: np.array(total, np.float64) / targets for path, total in zip(parts, found, strict=True)}
