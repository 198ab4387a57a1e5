"""Samples -> pack: train low-rank updates on a frozen base, resumably, and leave the base bare."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_plastic.backend import device, mx, peak_memory_mb, reset_peak_memory, world
from mlx_plastic.base import Base, targets
from mlx_plastic.errors import BadPack, TrainingFailed
from mlx_plastic.lowrank.layers import DeltaLinear, linear_layers
from mlx_plastic.lowrank.plasticity import Event, PlasticityConfig, PlasticityManager
from mlx_plastic.packs.format.lite import LITE_ATTENTION_RANK, is_attention
from mlx_plastic.packs.format.pack import DataCard, Factors, Pack, RunCard
from mlx_plastic.packs.train.batches import plan, windows
from mlx_plastic.packs.train.config import TrainConfig
from mlx_plastic.packs.train.dynamic import Dynamic, cost, plastic_layers
from mlx_plastic.packs.train.keeper import Keeper, Point, State
from mlx_plastic.packs.train.learner import Learner, learning, new_layers
from mlx_plastic.packs.train.prefix import Activations
from mlx_plastic.packs.train.standins import block_paths
from mlx_plastic.packs.train.steps import Progress, Run
from mlx_plastic.samples import Encoded, digest

__all__ = [
    "Point",
    "Progress",
    "TrainConfig",
    "TrainReport",
    "Trained",
    "data_card",
    "lineage",
    "steps_of",
    "train",
]

log = logging.getLogger(__name__)

CACHE_ON_DISK = 2  # times what is kept in memory
MOST_TIMES = 4  # the given rank: how far one may grow


@dataclass(frozen=True)
class TrainReport:
    steps: int
    tokens: int  # fed in all steps, padding not counted
    supervised_tokens: int  # of them predicted
    seconds: float  # all of it, validation too
    tokens_per_s: float  # of the steps alone
    peak_memory_mb: float
    losses: tuple[Point, ...]
    best_step: int  # whose factors these are
    stopped: str = ""  # why it ended before its last step
    cache_mb: float = 0.0  # memory that held what the frozen blocks made of the samples
    events: tuple[Event, ...] = ()  # how the ranks changed

    @property
    def has_learned(self) -> bool:
        """Whether any step did better on the valid samples than none; without such samples, any will do."""
        measured = [point.valid for point in self.losses if point.valid is not None]
        return min(measured) < measured[0] if measured else self.steps > 0

    def card(self) -> RunCard:
        """What the manifest says of it."""
        return RunCard(
            self.steps, round(self.seconds, 3), round(self.tokens_per_s, 1), round(self.peak_memory_mb, 1)
        )


@dataclass(frozen=True)
class Trained:
    factors: dict[str, Factors]
    report: TrainReport


def train(
    base: Base,
    train: Sequence[Encoded],
    valid: Sequence[Encoded],
    config: TrainConfig,
    *,
    ranks: Mapping[str, int] | None = None,
    start: Pack | None = None,
    checkpoint: Path | None = None,
    cache_folder: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    enough: Callable[[], str] | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Trained:
    """Learn `train` into low-rank updates of the base, beside whatever packs it wears now.

    valid: decides which step's factors are kept; if empty, the last ones are. ranks: by module path, instead
    of one rank for all modules of the roles; with config.dynamic_rank they only say how many numbers the
    factors may hold at the end. on_event: told each change of a rank. start: begin with its factors.
    checkpoint: a folder to go on from after a crash; the end is bit for bit the same. cache_folder: where the
    frozen part's outcomes overflow to, twice `cache_mb` of them, and stay for the next training. enough:
    asked after each step; a reason ends the training there, with the best factors so far. Under mlx.launch
    every process calls this with the same arguments, takes its share of each step and returns the same
    factors.
    Afterwards, also after an exception, the model has exactly the modules it had before.
    Raises TrainingFailed if there is nothing to learn or the loss is no number and no valid loss had fallen
    before, PlasticError for a role that the base lacks, BadPack if `start` does not fit.
    """
    samples = [piece for s in train for piece in windows(s, config.max_tokens)]
    held_out = [piece for s in valid for piece in windows(s, config.max_tokens)]
    if not samples:
        raise TrainingFailed("no sample has anything to learn", hint="give samples with assistant turns")
    config.check()
    layers = _layers(base, config, ranks, start)
    steps = steps_of(samples, config)
    dynamic = _dynamic(layers, config, len(steps), on_event)
    layers = dict(dynamic.layers) if dynamic else layers
    log.info(
        "training rank %s, alpha %s, dropout %g on %d modules: %d samples, %d steps",
        *(_distinct(_rank(layer) for layer in layers.values()), _distinct(map(_alpha, layers.values()))),
        *(config.dropout, len(layers), len(samples), len(steps)),
    )
    reset_peak_memory()
    everyone = world()
    identity = _identity(base, config, samples, held_out, layers)
    keeper = Keeper(checkpoint, identity, everyone) if checkpoint else None
    cache = _cache(base, layers, config, cache_folder)
    job = learning(
        base.model,
        layers,
        anchor=config.anchor,
        cache=cache,
        grad_checkpoint=config.grad_checkpoint,
        packing=config.packing == "on" or (config.packing == "auto" and device().kind != "cpu"),
    )
    with job as learner:
        state = (keeper and keeper.load()) or _fresh(learner)
        if dynamic:
            dynamic.restore(state)
        run = Run(learner, state, samples, held_out, steps, config, everyone, dynamic)
        stopped = run.run(keeper, on_progress, enough)
        factors = _factors(learner, state.best, state.best_ranks)
    report = _report(state, stopped, cache, tuple(dynamic.events) if dynamic else ())
    if stopped:
        log.warning("%s: back to step %d, the best so far", stopped, state.best_step)
    log.info(
        "trained %d steps in %.1f s, %.0f tokens/s, kept step %d",
        *(report.steps, report.seconds, report.tokens_per_s, report.best_step),
    )
    return Trained(factors, report)


def data_card(samples: Sequence[Encoded]) -> DataCard:
    """What a manifest says of the samples: a digest and counts, never text."""
    whole = [s.sample for s in samples if s.sample is not None]
    tokens = hashlib.sha256(repr([(s.tokens, s.targets) for s in samples]).encode("ascii")).hexdigest()
    return DataCard(
        digest=digest(whole) if len(whole) == len(samples) else tokens,
        samples=len(samples),
        tokens=sum(len(s.tokens) for s in samples),
        supervised_tokens=sum(s.supervised for s in samples),
        kinds=dict(sorted(Counter(s.kind for s in whole).items())),
    )


def lineage(samples: Sequence[Encoded], start: Pack | None) -> tuple[str, ...]:
    """The turns that the samples were made from, and those that the pack before them learned."""
    turns = {turn for s in samples if s.sample for turn in s.sample.turns}
    return tuple(sorted(turns | set(start.manifest.lineage if start else ())))


def steps_of(samples: Sequence[Encoded], config: TrainConfig) -> list[list[list[int]]]:
    """The batches of each step, as indices into the samples, which are in windows."""
    batches = plan(
        [len(s.tokens) for s in samples],
        config.batch_tokens,
        seed=config.seed,
        epochs=config.epochs,
        steps=config.steps * config.accumulate,
    )
    return [batches[i : i + config.accumulate] for i in range(0, len(batches), config.accumulate)]


def _layers(
    base: Base, config: TrainConfig, ranks: Mapping[str, int] | None, start: Pack | None
) -> dict[str, DeltaLinear]:
    if ranks is None:
        ranks = dict.fromkeys(targets(base.model, config.role_list), config.rank)
    if not ranks:
        raise TrainingFailed("this base has no linear layer to train", hint="name some with roles = ...")
    known = linear_layers(base.model)
    if unknown := sorted(set(ranks) - set(known)):
        raise ValueError(f"no linear layers of this base: {', '.join(unknown)}")
    layers = new_layers(base.model, ranks, scale=config.scale, dropout=config.dropout, seed=config.seed)
    if start is not None:
        _warm(layers, start)
    return layers


def _dynamic(
    layers: Mapping[str, DeltaLinear],
    config: TrainConfig,
    steps: int,
    on_event: Callable[[Event], None] | None,
) -> Dynamic | None:
    """The layers, to grow and to end with as many numbers as they hold now; None where ranks stay."""
    if not config.dynamic_rank:
        return None
    how = PlasticityConfig(
        policy=config.rank_policy,
        budget=sum(_rank(layer) * cost(layer) for layer in layers.values()),
        seed=config.seed,
        # at once and far over the budget, then back: what grows late learns late (docs/plastic-rank.md)
        delta=math.inf,
        grow_share=1.0,
        grow_by=2,
        overshoot=MOST_TIMES,
        settle_at=0.6,
    )
    most = {path: _most(path, layer) for path, layer in layers.items()}
    small = plastic_layers(layers)
    for layer in small.values():
        if config.start_rank:
            layer.park(layer.ids[config.start_rank :])
            layer.components.parked.clear()  # they have never been anything
    return Dynamic(small, PlasticityManager(how), steps, most, on_event)


def _most(path: str, layer: DeltaLinear) -> int:
    """Components that a layer may have: in attention what the profile `lite` allows, or what was asked."""
    rank = _rank(layer)
    most = max(rank, LITE_ATTENTION_RANK) if is_attention(path) else MOST_TIMES * rank
    return min(most, layer.a.shape[-1], layer.b.shape[-2])


def _warm(layers: dict[str, DeltaLinear], start: Pack) -> None:
    """Begin with the factors of `start`. Raises BadPack naming every module that differs."""
    faults = [f"{p} is in only one of the two" for p in sorted(set(layers) ^ set(start.factors))]
    for path in sorted(set(layers) & set(start.factors)):
        f, layer = start.factors[path], layers[path]
        if (f.a.shape, f.b.shape) != (layer.a.shape, layer.b.shape):
            faults.append(f"{path} is {f.a.shape}, {f.b.shape}, not {layer.a.shape}, {layer.b.shape}")
            continue
        layer.a = mx.array(f.a.astype(np.float32))
        layer.b = mx.array(f.b.astype(np.float32) * np.float32(f.scale / layer.scale))
    if faults:
        raise BadPack(
            f"pack {start.manifest.name!r} is not of the shape to begin with:"
            + "".join(f"\n  - {fault}" for fault in faults),
            hint="train with its rank and roles, or from nothing",
        )


def _cache(
    base: Base, layers: Mapping[str, DeltaLinear], config: TrainConfig, folder: Path | None
) -> Activations | None:
    """Where the outcome of what does not learn is kept; named by the base and what it wears."""
    if not config.cache_mb:
        return None
    first = min((block_paths(list(layers)) or {"": 0}).values())
    found = hashlib.sha256(repr((base.fingerprint, first, str(mx.float32))).encode("utf-8"))
    worn = {path: m for path, m in linear_layers(base.model).items() if isinstance(m, DeltaLinear)}
    for path, layer in worn.items():
        found.update(path.encode("utf-8"))
        _add_factors(found, layer)
    memory = config.cache_mb * 1_000_000
    return Activations(
        found.hexdigest(), most_bytes=memory, folder=folder, most_disk_bytes=CACHE_ON_DISK * memory
    )


def _fresh(learner: Learner) -> State:
    flat = learner.flat()
    mx.eval(flat)
    return State(flat, mx.zeros_like(flat), mx.zeros_like(flat), flat)


def _factors(learner: Learner, flat: mx.array, ranks: Mapping[str, int]) -> dict[str, Factors]:
    """ranks: those that `flat` was made at, where they are others than the layers have now."""
    with np.errstate(over="ignore"):
        parts = [np.array(part).astype(np.float16) for part in learner.parts(flat, ranks)]
    if not all(np.isfinite(part).all() for part in parts):
        raise TrainingFailed(
            "the factors have grown beyond what float16 holds", hint="try a smaller learning rate"
        )
    return {
        path: Factors(parts[2 * i], parts[2 * i + 1], layer.scale * parts[2 * i].shape[-2])
        for i, (path, layer) in enumerate(learner.layers.items())
    }


def _rank(layer: DeltaLinear) -> int:
    return int(layer.a.shape[-2])


def _alpha(layer: DeltaLinear) -> float:
    return layer.scale * _rank(layer)


def _distinct(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(set(values)))


def _report(state: State, stopped: str, cache: Activations | None, events: tuple[Event, ...]) -> TrainReport:
    return TrainReport(
        steps=state.step,
        tokens=state.tokens,
        supervised_tokens=state.supervised,
        seconds=state.seconds,
        tokens_per_s=state.tokens / max(state.step_seconds, 1e-9),
        peak_memory_mb=peak_memory_mb(),
        losses=tuple(state.points),
        best_step=state.best_step,
        stopped=stopped,
        cache_mb=cache.bytes / 1e6 if cache else 0.0,
        events=events,
    )


def _identity(
    base: Base,
    config: TrainConfig,
    samples: Sequence[Encoded],
    valid: Sequence[Encoded],
    layers: Mapping[str, DeltaLinear],
) -> str:
    """A digest of everything that decides how the training goes: a checkpoint of another one is not used."""
    data = [[(s.tokens, s.targets, s.soft) for s in part] for part in (samples, valid)]
    found = hashlib.sha256(repr((base.fingerprint, config, data)).encode("utf-8"))
    for path, layer in layers.items():
        found.update(f"{path} {layer.scale}".encode())
        _add_factors(found, layer)
        if isinstance(layer.base, DeltaLinear):
            _add_factors(found, layer.base)
    return found.hexdigest()


def _add_factors(digest: hashlib._Hash, layer: DeltaLinear) -> None:
    for array in (layer.a, layer.b):
        digest.update(np.array(array.astype(mx.float32)).tobytes())
