"""One pack from several: exactly, or cut by SVD to a rank or a byte budget, or merged by TIES or DARE."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from mlx_plastic.base.roles import natural
from mlx_plastic.errors import BadConfig, BadPack, BaseMismatch, Quarantined
from mlx_plastic.lowrank.svd import product_svd
from mlx_plastic.packs.algebra.concat import concatenated
from mlx_plastic.packs.algebra.cut import Whole, cut
from mlx_plastic.packs.algebra.ledger import Comparison, compare, misfit
from mlx_plastic.packs.algebra.merge import DENSITY, merged_svd
from mlx_plastic.packs.algebra.updates import Part, distance, norm, relative, side_by_side
from mlx_plastic.packs.format.pack import (
    DataCard,
    Factors,
    Manifest,
    Pack,
    RunCard,
    Storage,
    check_name,
    make_manifest,
    stored_factors,
)
from mlx_plastic.packs.store.store import Store

log = logging.getLogger(__name__)

Method = Literal["concat", "svd", "ties", "dare"]
METHODS: tuple[Method, ...] = ("concat", "svd", "ties", "dare")
Tick = Callable[[int, int, str], None]  # done, total, detail
UNDONE = 1e-9  # of the parts' norm: what float64 leaves of a sum that is zero


@dataclass(frozen=True)
class Parent:
    """A pack to take in, and the factor on its update; a negative one takes it out."""

    pack: Pack
    weight: float = 1.0


@dataclass(frozen=True)
class Composing:
    """How packs become one."""

    method: Method = "concat"
    rank: int | None = None  # of every module, at most; None: the sum of the parents' ranks
    budget_bytes: int | None = None  # of the pack's file
    storage: Storage = "float16"
    compact: bool = False  # concat: round weights rather than carry the remainder in further columns
    density: float | None = None  # ties, dare: the share of single weights kept; None: 0.2, 0.5
    seed: int = 0  # dare: of the draw

    @classmethod
    def chosen(cls, method: Method | None, **settings: Any) -> Composing:
        """The settings given; without a method "svd" where something is to be cut, else "concat"."""
        cuts = settings.get("rank") is not None or settings.get("budget_bytes") is not None
        return cls(method or ("svd" if cuts else "concat"), **settings)


@dataclass(frozen=True)
class Composed:
    """errors: per module, ||pack - what was asked for|| / ||what was asked for||; error: over all of them."""

    factors: dict[str, Factors]
    manifest: Manifest
    errors: dict[str, float]
    error: float
    overlaps: tuple[Comparison, ...]  # of each two parents that share modules


def open_parents(
    store: Store, refs: Sequence[str], weights: Sequence[float] | None = None, *, force: bool = False
) -> list[Parent]:
    """The packs `refs` (names or folders) of the store, with their weights (1 unless given).

    Raises Quarantined for quarantined ones unless `force`, BadConfig for weights that are not one per pack.
    """
    if weights is not None and len(weights) != len(refs):
        raise BadConfig(
            f"{len(weights)} weights for {len(refs)} packs", hint="give one weight per pack: --weights 1,0.5"
        )
    packs = [store.open(ref) for ref in refs]
    names = set(store.names())
    bad = [ref for ref in refs if ref in names and store.status(ref) == "quarantined"]
    if bad and not force:
        raise Quarantined(
            f"quarantined: {', '.join(bad)}",
            hint=f"see why: plastic packs inspect {bad[0]}; to take it in all the same: --force",
        )
    return [Parent(pack, weight) for pack, weight in zip(packs, weights or [1.0] * len(packs), strict=True)]


def compose(
    parents: Sequence[Parent],
    name: str,
    how: Composing = Composing(),
    *,
    on_progress: Tick | None = None,
) -> Composed:
    """The pack `name` that does what its `parents` do together. No model is needed, and no full matrix is
    formed but by "ties" and "dare", which look at the single weights of one module at a time.

    Raises BaseMismatch for parents of different bases, BadPack where modules differ in shape or nothing is
    left of them, BadConfig for settings that do not go together.
    """
    check_name(name)
    _check_settings(parents, how)
    _check_parents(parents)
    started = time.perf_counter()
    wanted = [(path, parts) for path, parts in _modules(parents) if not _undone(parts)]
    if not wanted:
        raise BadPack("the packs undo each other: nothing is left", hint="give other weights")
    make = _concatenate if how.method == "concat" else _recompress
    factors, lost, norms = make(wanted, how, on_progress or _silent)
    errors = {path: lost[path] / norms[path] if norms[path] else 0.0 for path in norms}
    error = relative(lost.values(), norms.values())
    manifest = _manifest(parents, name, how, factors, error, time.perf_counter() - started)
    pairs = combinations([parent.pack for parent in parents], 2)
    overlaps = tuple(compare(one, other) for one, other in pairs if one.factors.keys() & other.factors.keys())
    log.info("composed %s of %s by %s: error %.2g", name, ", ".join(manifest.parents), how.method, error)
    return Composed(factors, manifest, errors, error, overlaps)


Modules = list[tuple[str, list[Part]]]
Made = tuple[dict[str, Factors], dict[str, float], dict[str, float]]  # factors, errors, norms; both absolute


def _modules(parents: Sequence[Parent]) -> Modules:
    """Per module, the updates that add up there."""
    paths = sorted({path for parent in parents for path in parent.pack.factors}, key=natural)
    return [
        (path, [(p.pack.factors[path], p.weight) for p in parents if path in p.pack.factors])
        for path in paths
    ]


def _undone(parts: Sequence[Part]) -> bool:
    """Whether nothing but rounding is left of the sum."""
    return norm(*side_by_side(parts)) <= UNDONE * math.hypot(*(norm(*side_by_side([p])) for p in parts))


def _concatenate(wanted: Modules, how: Composing, tick: Tick) -> Made:
    factors, lost, norms = {}, {}, {}
    for done, (path, parts) in enumerate(wanted):
        tick(done, len(wanted), path)
        made = concatenated(parts, compact=how.compact)
        most = min(made.b.shape[-2], made.a.shape[-1])
        if made.rank > most:  # more columns than the matrix has: they fit into fewer without loss
            made = _whole(parts).cut(most)
        made = stored_factors({path: made}, how.storage)[path]
        factors[path] = made
        lost[path], norms[path] = distance(made, parts), norm(*side_by_side(parts))
    return factors, lost, norms


def _recompress(wanted: Modules, how: Composing, tick: Tick) -> Made:
    wholes = {}
    for done, (path, parts) in enumerate(wanted):
        tick(done, len(wanted), path)
        wholes[path] = _whole(parts) if how.method == "svd" else _merged(path, parts, how)
    factors = cut(wholes, rank=how.rank, budget_bytes=how.budget_bytes, storage=how.storage)
    norms = {path: whole.norm for path, whole in wholes.items()}
    lost = {p: whole.lost(factors[p]) if p in factors else whole.norm for p, whole in wholes.items()}
    return factors, lost, norms


def _whole(parts: Sequence[Part]) -> Whole:
    b, a = side_by_side(parts)
    u, s, vt = product_svd(b.astype(np.float32), a.astype(np.float32))
    return Whole(u, s, vt, float(np.linalg.norm(s.astype(np.float64))))


def _merged(path: str, parts: Sequence[Part], how: Composing) -> Whole:
    assert how.method in ("ties", "dare")
    rank = how.rank or sum(factors.rank for factors, _ in parts)
    density = DENSITY[how.method] if how.density is None else how.density
    return Whole(*merged_svd(parts, rank, how.method, density=density, seed=how.seed, path=path))


def _silent(done: int, total: int, detail: str) -> None:
    pass


def _check_settings(parents: Sequence[Parent], how: Composing) -> None:
    if how.method not in METHODS:
        raise BadConfig(f"no method {how.method!r}", hint=f"use one of {', '.join(METHODS)}")
    if how.method == "concat" and (how.rank is not None or how.budget_bytes is not None):
        raise BadConfig("concat keeps every rank", hint="to cut to a rank or a budget: --method svd")
    if how.density is not None and (how.method not in DENSITY or not 0 < how.density <= 1):
        raise BadConfig(
            f"density {how.density:g} with method {how.method}",
            hint="a density is above 0 and at most 1, and belongs to ties and dare",
        )
    if not parents:
        raise BadConfig("no pack to compose", hint="name one or more: plastic packs compose P1 P2 --name N")
    idle = [p.pack.manifest.name for p in parents if p.weight == 0 or not math.isfinite(p.weight)]
    if idle:
        raise BadConfig(
            f"no weight for {', '.join(idle)}", hint="leave such a pack out, or weigh it otherwise"
        )


def _check_parents(parents: Sequence[Parent]) -> None:
    bases = {p.pack.manifest.base_fingerprint for p in parents}
    if len(bases) > 1:
        learned = (
            f"{m.name!r} on {m.base_fingerprint[:12]} ({m.base_id})"
            for m in (p.pack.manifest for p in parents)
        )
        raise BaseMismatch(
            f"the packs learned on different bases: {', '.join(learned)}",
            hint="compose packs of one base; see them by base: plastic packs list",
        )
    faults = []
    seen: dict[str, tuple[str, Factors]] = {}
    for parent in parents:
        for path, factors in parent.pack.factors.items():
            first, known = seen.setdefault(path, (parent.pack.manifest.name, factors))
            if fault := misfit(path, known, factors):
                faults.append(f"{fault}: {first} and {parent.pack.manifest.name}")
    if faults:
        raise BadPack(
            "the packs do not fit each other: " + "; ".join(faults), hint="compose packs of one base"
        )


def _manifest(
    parents: Sequence[Parent],
    name: str,
    how: Composing,
    factors: dict[str, Factors],
    error: float,
    seconds: float,
) -> Manifest:
    known = [parent.pack.manifest for parent in parents]
    settings: dict[str, Any] = {
        "made_by": "compose",
        **dataclasses.asdict(how),
        "weights": [parent.weight for parent in parents],
        "parent_sha256": [m.sha256 for m in known],
    }
    return make_manifest(
        factors,
        name=name,
        base_id=known[0].base_id,
        base_fingerprint=known[0].base_fingerprint,
        training=settings,
        data=_data([m.data for m in known]),
        run=RunCard(steps=0, seconds=round(seconds, 3), tokens_per_s=0.0, peak_memory_mb=0.0),
        parents=tuple(dict.fromkeys(m.name for m in known)),
        lineage=tuple(dict.fromkeys(turn for m in known for turn in m.lineage)),
        evals={"relative_error": error},
        storage=how.storage,
    )


def _data(cards: Sequence[DataCard]) -> DataCard:
    """The parents' data together; samples that several learned from count for each."""
    kinds: Counter[str] = Counter()
    for card in cards:
        kinds.update(card.kinds)
    return DataCard(
        hashlib.sha256("".join(card.digest for card in cards).encode()).hexdigest(),
        samples=sum(card.samples for card in cards),
        tokens=sum(card.tokens for card in cards),
        supervised_tokens=sum(card.supervised_tokens for card in cards),
        kinds=dict(kinds),
    )
