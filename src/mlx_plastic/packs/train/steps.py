"""The steps of a training: gradient, AdamW, validation, checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlx_plastic.backend import World, mx
from mlx_plastic.errors import TrainingFailed
from mlx_plastic.packs.train.batches import plan, share
from mlx_plastic.packs.train.config import TrainConfig
from mlx_plastic.packs.train.keeper import Keeper, Point, State
from mlx_plastic.packs.train.learner import Learner
from mlx_plastic.samples import Encoded

if TYPE_CHECKING:
    from mlx_plastic.packs.train.dynamic import Dynamic

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
VALID_TOKENS = 2048  # padded tokens in one pass over the valid samples


@dataclass(frozen=True)
class Progress:
    """After each step. loss: of this step, in nats per target. tokens: so far, padding not counted."""

    step: int
    steps: int
    loss: float
    tokens: int
    tokens_per_s: float
    eta_s: float


@dataclass
class Run:
    """One training, from where `state` stands to its last step.

    samples, valid: in windows. steps: per step the batches, per batch the indices into `samples`. Every
    process of the world takes its share of each batch, and has the same state after each step.
    """

    learner: Learner
    state: State
    samples: Sequence[Encoded]
    valid: Sequence[Encoded]
    steps: Sequence[Sequence[Sequence[int]]]
    config: TrainConfig
    world: World
    dynamic: Dynamic | None = None

    def run(
        self,
        keeper: Keeper | None,
        on_progress: Callable[[Progress], None] | None,
        enough: Callable[[], str] | None = None,
    ) -> str:
        """Take the steps; why they ended early, if they did.

        What `on_progress` or `enough` raises ends them as well: then the step reached is kept to go on from.
        Raises TrainingFailed if a number is none and there is nothing learned to go back to.
        """
        state, config = self.state, self.config
        before = state.seconds
        began = time.perf_counter()
        if state.step == 0:
            state.points.append(Point(0, None, self._valid_loss()))
        with self.world.watched() as dog:
            while state.step < len(self.steps):
                try:
                    loss = self._step()
                except TrainingFailed as error:
                    if not self._has_learned():
                        raise
                    return error.message
                dog.feed()
                at_end = state.step == len(self.steps)
                if state.step % config.valid_every == 0 or at_end:
                    self._validate()
                if self.dynamic and self.dynamic.is_due(state.step):
                    self.dynamic.look(self.learner, state, self._valid_loss(), self.samples)
                state.seconds = before + time.perf_counter() - began
                if keeper and (state.step % config.checkpoint_every == 0 or at_end):
                    keeper.save(state)
                try:
                    if on_progress:
                        on_progress(self._progress(loss))
                    why = "" if at_end or enough is None else enough()
                except BaseException:
                    if keeper:
                        keeper.save(state)
                    raise
                if why:
                    self._end_here(keeper)
                    return why
        return ""

    def _end_here(self, keeper: Keeper | None) -> None:
        """The steps since the last point count as well, so they are measured before the best is taken."""
        if self.state.points[-1].step != self.state.step:
            self._validate()
        if keeper:
            keeper.save(self.state)

    def _has_learned(self) -> bool:
        first = self.state.points[0].valid
        return first is not None and self.state.best_valid < first

    def _step(self) -> float:
        """One update; returns the loss before it. Raises TrainingFailed if a number is none."""
        state, config = self.state, self.config
        began = time.perf_counter()
        batches = [[self.samples[i] for i in batch] for batch in self.steps[state.step]]
        loss, gradient = self._gradient(batches)
        norm = mx.sqrt(mx.sum(gradient * gradient))
        if config.clip:
            gradient = gradient * mx.minimum(1.0, config.clip / (norm + 1e-12))
        rate = config.rate(state.step, len(self.steps))
        flat, m, v = _adamw(state, gradient, rate, config.weight_decay)
        mx.eval(loss, norm, flat, m, v)
        value = number(loss)
        if not math.isfinite(value + number(norm)):
            raise TrainingFailed(
                f"the loss is {value:g} and its gradient {number(norm):g} at step {state.step + 1} of "
                f"{len(self.steps)}",
                hint=f"try a smaller learning rate than {config.learning_rate:g}",
            )
        state.flat, state.m, state.v = flat, m, v
        state.step += 1
        state.recent.append(value)
        state.tokens += sum(len(s.tokens) - 1 for batch in batches for s in batch)
        state.supervised += sum(s.supervised for batch in batches for s in batch)
        state.step_seconds += time.perf_counter() - began
        return value

    def _gradient(self, batches: Sequence[Sequence[Encoded]]) -> tuple[mx.array, mx.array]:
        """The mean loss over the targets of all batches and processes, and its gradient."""
        total, summed = mx.array(0.0), mx.zeros_like(self.state.flat)
        for i, batch in enumerate(batches):
            if mine := self._mine(batch):
                key = self._key(i) if self.config.dropout else None
                loss, gradient = self.learner.gradient(self.state.flat, mine, key=key)
                total, summed = total + loss, summed + gradient
                if len(batches) > 1:
                    mx.eval(total, summed)  # the activations of one batch at a time
        total, summed = self.world.summed(total, summed)
        count = sum(s.supervised for batch in batches for s in batch)
        return total / count, summed / count

    def _mine(self, samples: Sequence[Encoded]) -> Sequence[Encoded]:
        """This process's share of a batch; may be empty."""
        if self.world.size == 1:
            return samples
        return dict(enumerate(share(samples, self.world.size))).get(self.world.rank, [])

    def _key(self, batch: int) -> mx.array:
        step = self.state.step * self.config.accumulate + batch
        key = mx.random.key((self.config.seed << 32) + step)
        return key if self.world.size == 1 else mx.random.split(key, self.world.size)[self.world.rank]

    def _validate(self) -> None:
        """A point on the curve, and the factors to keep so far."""
        state, loss = self.state, self._valid_loss()
        state.points.append(Point(state.step, float(np.mean(state.recent)), loss))
        state.recent = []
        if loss is None or loss < state.best_valid or self.config.keep == "last":
            state.best, state.best_step = state.flat, state.step
            state.best_ranks = self.dynamic.ranks if self.dynamic else {}
            state.best_valid = math.inf if loss is None else loss

    def _valid_loss(self) -> float | None:
        """Nats per target over all of `valid`; None if there is none."""
        if not self.valid:
            return None
        total = mx.array(0.0)
        for batch in plan([len(s.tokens) for s in self.valid], VALID_TOKENS, seed=0, epochs=1.0, steps=0):
            if mine := self._mine([self.valid[i] for i in batch]):
                total = total + self.learner.loss(self.state.flat, mine)
                mx.eval(total)
        (total,) = self.world.summed(total)
        return number(total) / sum(s.supervised for s in self.valid)

    def _progress(self, loss: float) -> Progress:
        state, steps = self.state, len(self.steps)
        left = (steps - state.step) * state.step_seconds / max(1, state.step)
        speed = state.tokens / max(state.step_seconds, 1e-9)
        return Progress(state.step, steps, loss, state.tokens, speed, left)


def _adamw(state: State, g: mx.array, rate: float, decay: float) -> tuple[mx.array, mx.array, mx.array]:
    """Loshchilov & Hutter 2019, with bias correction."""
    m = BETA_1 * state.m + (1 - BETA_1) * g
    v = BETA_2 * state.v + (1 - BETA_2) * g * g
    t = state.step + 1
    root = mx.sqrt(v / (1 - BETA_2**t)) + EPSILON
    return state.flat * (1 - rate * decay) - (rate / (1 - BETA_1**t)) * (m / root), m, v


def number(scalar: mx.array) -> float:
    return float(scalar.item())  # type: ignore[arg-type]  # never complex here
