"""Samples -> pack: train low-rank updates on a frozen base, resumably, and leave the base bare."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.numpy

from mlx_plastic.backend import mx, peak_memory_mb, reset_peak_memory
from mlx_plastic.base import Base, targets
from mlx_plastic.errors import BadPack, TrainingFailed
from mlx_plastic.home import write_atomic
from mlx_plastic.lowrank.layers import DeltaLinear, unwrap, wrap
from mlx_plastic.packs.batches import plan, windows
from mlx_plastic.packs.format import DataCard, Factors, Pack, RunCard
from mlx_plastic.packs.learner import Learner, learning, new_layers
from mlx_plastic.samples import Encoded, digest

log = logging.getLogger(__name__)

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
VALID_TOKENS = 2048  # padded tokens in one pass over the valid samples
CHECKPOINT = "training.safetensors"


@dataclass(frozen=True)
class TrainConfig:
    """How a pack is trained. In config.toml: [train]."""

    rank: int = 8  # rows of a
    alpha: float = 0.0  # the update is alpha / rank * B A; 0: twice the rank
    dropout: float = 0.0  # share of the inputs the update does not see
    roles: str = ""  # such as "attn.q_proj, mlp"; empty: every linear layer of the blocks
    learning_rate: float = 1e-4  # peak, after warm-up
    warmup_fraction: float = 0.1  # of all steps; then a cosine to a tenth of the peak
    epochs: float = 3.0
    steps: int = 0  # if not 0, instead of epochs
    batch_tokens: int = 512  # per step, padding included
    max_tokens: int = 1024  # per sample; longer ones are cut into windows
    loss_mode: Literal["answer", "all"] = "answer"  # what of a sample is learned
    anchor: float = 1.0  # weight of a soft target, where a word weighs 1
    weight_decay: float = 0.0
    clip: float = 1.0  # largest norm of the gradient; 0: any
    seed: int = 0
    valid_every: int = 50  # steps between two losses on the valid samples
    checkpoint_every: int = 50  # steps

    @property
    def effective_alpha(self) -> float:
        return self.alpha or 2.0 * self.rank

    @property
    def role_list(self) -> list[str] | None:
        return [role.strip() for role in self.roles.split(",") if role.strip()] or None


@dataclass(frozen=True)
class Progress:
    """After each step. loss: of this step, in nats per target. tokens: so far, padding not counted."""

    step: int
    steps: int
    loss: float
    tokens: int
    tokens_per_s: float
    eta_s: float


@dataclass(frozen=True)
class Point:
    """A place on the loss curve, in nats per target."""

    step: int
    train: float | None  # mean since the point before; None before the first step
    valid: float | None


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

    def card(self) -> RunCard:
        """What the manifest says of it."""
        return RunCard(
            self.steps, round(self.seconds, 3), round(self.tokens_per_s, 1), round(self.peak_memory_mb, 1)
        )


@dataclass(frozen=True)
class Trained:
    factors: dict[str, Factors]
    report: TrainReport


@dataclass
class _State:
    """All that a training is after a step; what a checkpoint holds."""

    flat: mx.array
    m: mx.array
    v: mx.array
    best: mx.array
    step: int = 0
    best_step: int = 0
    best_valid: float = math.inf
    points: list[Point] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)  # losses since the last point
    tokens: int = 0
    supervised: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0


def train(
    base: Base,
    train: Sequence[Encoded],
    valid: Sequence[Encoded],
    config: TrainConfig,
    *,
    start: Pack | None = None,
    checkpoint: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """Learn `train` into low-rank updates of the base, beside whatever packs it wears now.

    valid: decides which step's factors are kept; if empty, the last ones are. start: begin with its
    factors. checkpoint: a folder to go on from after a crash; the end is bit for bit the same. Afterwards,
    also after an exception, the model has exactly the modules it had before.
    Raises TrainingFailed if there is nothing to learn or the loss is no number, PlasticError for a role
    that the base lacks, BadPack if `start` does not fit.
    """
    samples = [piece for s in train for piece in windows(s, config.max_tokens)]
    held_out = [piece for s in valid for piece in windows(s, config.max_tokens)]
    if not samples:
        raise TrainingFailed("no sample has anything to learn", hint="give samples with assistant turns")
    _check(config)
    layers = _layers(base, config, start)
    lengths = [len(s.tokens) for s in samples]
    batches = plan(lengths, config.batch_tokens, seed=config.seed, epochs=config.epochs, steps=config.steps)
    log.info(
        "training rank %d, alpha %g, dropout %g on %d modules: %d samples, %d steps",
        *(config.rank, config.effective_alpha, config.dropout, len(layers), len(samples), len(batches)),
    )
    reset_peak_memory()
    keeper = _Keeper(checkpoint, _identity(base, config, samples, held_out, layers)) if checkpoint else None
    with learning(base.model, layers, anchor=config.anchor) as learner:
        state = (keeper and keeper.load()) or _fresh(learner)
        _run(learner, state, samples, held_out, batches, config, keeper, on_progress)
        factors = _factors(learner, state.best, config)
    report = _report(state)
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


def _check(config: TrainConfig) -> None:
    at_least = {"rank": 1, "batch_tokens": 1, "max_tokens": 2, "valid_every": 1, "checkpoint_every": 1}
    faults = [
        f"{k} is {getattr(config, k)}, less than {n}" for k, n in at_least.items() if getattr(config, k) < n
    ]
    if config.steps <= 0 and config.epochs <= 0:
        faults.append("neither steps nor epochs is above 0")
    if not 0 <= config.dropout < 1:
        faults.append(f"dropout is {config.dropout}, not in [0, 1)")
    if not 0 <= config.warmup_fraction <= 1:
        faults.append(f"warmup_fraction is {config.warmup_fraction}, not in [0, 1]")
    if faults:
        raise TrainingFailed("; ".join(faults), hint="mend [train] in config.toml, or the option")


def _layers(base: Base, config: TrainConfig, start: Pack | None) -> dict[str, DeltaLinear]:
    worn = unwrap(base.model)  # the table of roles knows the paths of a bare model
    try:
        paths = list(targets(base.model, config.role_list))
    finally:
        wrap(base.model, worn)
    if not paths:
        raise TrainingFailed("this base has no linear layer to train", hint="name some with roles = ...")
    scale = config.effective_alpha / config.rank
    layers = new_layers(
        base.model, paths, rank=config.rank, scale=scale, dropout=config.dropout, seed=config.seed
    )
    if start is not None:
        _warm(layers, start, scale)
    return layers


def _warm(layers: dict[str, DeltaLinear], start: Pack, scale: float) -> None:
    """Begin with the factors of `start`. Raises BadPack naming every module that differs."""
    faults = [f"{p} is in only one of the two" for p in sorted(set(layers) ^ set(start.factors))]
    for path in sorted(set(layers) & set(start.factors)):
        f, layer = start.factors[path], layers[path]
        if (f.a.shape, f.b.shape) != (layer.a.shape, layer.b.shape):
            faults.append(f"{path} is {f.a.shape}, {f.b.shape}, not {layer.a.shape}, {layer.b.shape}")
            continue
        layer.a = mx.array(f.a.astype(np.float32))
        layer.b = mx.array(f.b.astype(np.float32) * np.float32(f.scale / scale))
    if faults:
        raise BadPack(
            f"pack {start.manifest.name!r} is not of the shape to begin with:"
            + "".join(f"\n  - {fault}" for fault in faults),
            hint="train with its rank and roles, or from nothing",
        )


def _fresh(learner: Learner) -> _State:
    flat = learner.flat()
    mx.eval(flat)
    return _State(flat, mx.zeros_like(flat), mx.zeros_like(flat), flat)


def _run(
    learner: Learner,
    state: _State,
    samples: Sequence[Encoded],
    valid: Sequence[Encoded],
    batches: Sequence[Sequence[int]],
    config: TrainConfig,
    keeper: _Keeper | None,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    """The steps from where `state` stands to the last."""
    before = state.seconds
    began = time.perf_counter()
    if state.step == 0:
        state.points.append(Point(0, None, _valid_loss(learner, state.flat, valid)))
    while state.step < len(batches):
        batch = [samples[i] for i in batches[state.step]]
        loss = _step(learner, state, batch, config, len(batches))
        at_end = state.step == len(batches)
        if state.step % config.valid_every == 0 or at_end:
            _validate(learner, state, valid)
        state.seconds = before + time.perf_counter() - began
        if keeper and (state.step % config.checkpoint_every == 0 or at_end):
            keeper.save(state)
        if on_progress:
            on_progress(_progress(state, loss, len(batches)))


def _step(
    learner: Learner, state: _State, batch: Sequence[Encoded], config: TrainConfig, steps: int
) -> float:
    """One update; returns the loss before it. Raises TrainingFailed if a number is none."""
    began = time.perf_counter()
    key = mx.random.key((config.seed << 32) + state.step) if config.dropout else None
    loss, gradient = learner.gradient(state.flat, batch, key=key)
    norm = mx.sqrt(mx.sum(gradient * gradient))
    if config.clip:
        gradient = gradient * mx.minimum(1.0, config.clip / (norm + 1e-12))
    rate = learning_rate(config, state.step, steps)
    flat, m, v = _adamw(state, gradient, rate, config.weight_decay)
    mx.eval(loss, norm, flat, m, v)
    value = _number(loss)
    if not math.isfinite(value + _number(norm)):
        raise TrainingFailed(
            f"the loss is {value:g} and its gradient {_number(norm):g} at step {state.step + 1} of {steps}",
            hint=f"try a smaller learning rate than {config.learning_rate:g}",
        )
    state.flat, state.m, state.v = flat, m, v
    state.step += 1
    state.recent.append(value)
    state.tokens += sum(len(s.tokens) - 1 for s in batch)
    state.supervised += sum(s.supervised for s in batch)
    state.step_seconds += time.perf_counter() - began
    return value


def _adamw(state: _State, g: mx.array, rate: float, decay: float) -> tuple[mx.array, mx.array, mx.array]:
    """Loshchilov & Hutter 2019, with bias correction."""
    m = BETA_1 * state.m + (1 - BETA_1) * g
    v = BETA_2 * state.v + (1 - BETA_2) * g * g
    t = state.step + 1
    root = mx.sqrt(v / (1 - BETA_2**t)) + EPSILON
    return state.flat * (1 - rate * decay) - (rate / (1 - BETA_1**t)) * (m / root), m, v


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Of the step after `step` are done: a linear warm-up, then a cosine to a tenth of the peak."""
    warmup = config.warmup_fraction * steps
    if step < warmup:
        return config.learning_rate * (step + 1) / (math.floor(warmup) + 1)
    done = (step - warmup) / max(1.0, steps - warmup)
    return config.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def _validate(learner: Learner, state: _State, valid: Sequence[Encoded]) -> None:
    """A point on the curve, and the best factors so far."""
    loss = _valid_loss(learner, state.flat, valid)
    state.points.append(Point(state.step, float(np.mean(state.recent)), loss))
    state.recent = []
    if loss is None or loss < state.best_valid:
        state.best, state.best_step = state.flat, state.step
        state.best_valid = math.inf if loss is None else loss


def _valid_loss(learner: Learner, flat: mx.array, valid: Sequence[Encoded]) -> float | None:
    """Nats per target over all of `valid`; None if there is none."""
    if not valid:
        return None
    total = 0.0
    for batch in plan([len(s.tokens) for s in valid], VALID_TOKENS, seed=0, epochs=1.0, steps=0):
        total += _number(learner.loss(flat, [valid[i] for i in batch]))
    return total / sum(s.supervised for s in valid)


def _progress(state: _State, loss: float, steps: int) -> Progress:
    left = (steps - state.step) * state.seconds / max(1, state.step)
    speed = state.tokens / max(state.step_seconds, 1e-9)
    return Progress(state.step, steps, loss, state.tokens, speed, left)


def _factors(learner: Learner, flat: mx.array, config: TrainConfig) -> dict[str, Factors]:
    parts = [np.array(part) for part in learner.parts(flat)]
    if not all(np.isfinite(part.astype(np.float16)).all() for part in parts):
        raise TrainingFailed(
            "the factors have grown beyond what float16 holds", hint="try a smaller learning rate"
        )
    return {
        path: Factors(
            parts[2 * i].astype(np.float16), parts[2 * i + 1].astype(np.float16), config.effective_alpha
        )
        for i, path in enumerate(learner.layers)
    }


def _report(state: _State) -> TrainReport:
    return TrainReport(
        steps=state.step,
        tokens=state.tokens,
        supervised_tokens=state.supervised,
        seconds=state.seconds,
        tokens_per_s=state.tokens / max(state.step_seconds, 1e-9),
        peak_memory_mb=peak_memory_mb(),
        losses=tuple(state.points),
        best_step=state.best_step,
    )


def _number(scalar: mx.array) -> float:
    return float(scalar.item())  # type: ignore[arg-type]  # never complex here


def _identity(
    base: Base,
    config: TrainConfig,
    samples: Sequence[Encoded],
    valid: Sequence[Encoded],
    layers: dict[str, DeltaLinear],
) -> str:
    """A digest of everything that decides how the training goes: a checkpoint of another one is not used."""
    data = [[(s.tokens, s.targets, s.soft) for s in part] for part in (samples, valid)]
    found = hashlib.sha256(repr((base.fingerprint, config, data)).encode("utf-8"))
    for path, layer in layers.items():
        found.update(path.encode("utf-8"))
        beneath = [layer.base.a, layer.base.b] if isinstance(layer.base, DeltaLinear) else []
        for array in (layer.a, layer.b, *beneath):
            found.update(np.array(array.astype(mx.float32)).tobytes())
    return found.hexdigest()


class _Keeper:
    """Writes the state of one training to its folder, and reads it back if it is of this training."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.file = folder / CHECKPOINT
        self.identity = identity

    def save(self, state: _State) -> None:
        arrays = {name: np.array(getattr(state, name)) for name in ("flat", "m", "v", "best")}
        rest = {f.name: getattr(state, f.name) for f in dataclasses.fields(state) if f.name not in arrays}
        rest["points"] = [dataclasses.asdict(point) for point in state.points]
        metadata = {"identity": self.identity, "state": json.dumps(rest)}
        write_atomic(self.file, safetensors.numpy.save(arrays, metadata=metadata))

    def load(self) -> _State | None:
        try:
            data = self.file.read_bytes()
            arrays = {name: mx.array(value) for name, value in safetensors.numpy.load(data).items()}
            header: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        except FileNotFoundError:
            return None
        except (safetensors.SafetensorError, ValueError):
            log.warning("%s is damaged: training begins anew", self.file)
            return None
        if header["__metadata__"]["identity"] != self.identity:
            log.warning("%s is of another training: this one begins anew", self.file)
            return None
        rest: dict[str, Any] = json.loads(header["__metadata__"]["state"])
        rest["points"] = [Point(**point) for point in rest["points"]]
        log.info("training goes on after step %d", rest["step"])
        return _State(**(rest | arrays))
