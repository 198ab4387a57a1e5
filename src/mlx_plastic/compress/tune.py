"""After rounding: scales and biases of all groups, moved together until the whole says what the base says.

Rounding looks at one matrix at a time, and never at what the others lost. Here the codes stay as they are,
and Adam lowers the KL from the base over the whole vocabulary, on the texts that the plan was made from: the
idea of mlx-lm's DWQ. Ours measures on texts held back from that, and keeps the best that it measured, or
nothing; mlx-lm's prints, only warns if it ends worse, and computes from packed codes, for which a CPU is far
too slow. What is stored takes not a byte more.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_plastic.backend import is_slow_low_precision, mx, optim
from mlx_plastic.backend.hardware import free_memory_bytes
from mlx_plastic.base import Base, load_base
from mlx_plastic.compress.student import Moves, Stored, Student
from mlx_plastic.compress.texts import count, read_texts
from mlx_plastic.errors import PlasticError
from mlx_plastic.lowrank.quick import quick_activations, summed_kl
from mlx_plastic.packs.extract.divergence import Distance, reference
from mlx_plastic.packs.train.batches import plan as batched
from mlx_plastic.packs.train.batches import rows
from mlx_plastic.samples import Encoded

log = logging.getLogger(__name__)

BETAS = (0.9, 0.99)
WARM_STEPS = 8
LAST_RATE = 0.1  # of the highest, at the last step
LOOKS = 6  # measurements on held-out texts while it runs
PATIENCE = 3  # of them without a better one end it
SLOWER = 0.3  # the rate's factor after each of them, from the best moves on
BYTES_A_WEIGHT = {True: 20, False: 8}  # base, codes, weights and their gradients; True: computed densely

Tick = Callable[[int, int, str], None]  # done, total, detail


@dataclass(frozen=True)
class Tuning:
    """rate: how far a scale may move in a step, as a share of its matrix's mean scale.

    tokens: of texts to tune on. batch_tokens: in one step.
    """

    steps: int = 60
    rate: float = 1e-3
    tokens: int = 16_384
    batch_tokens: int = 640
    seed: int = 0


@dataclass(frozen=True)
class Tuned:
    """What came of it. before, after: KL from the base on held-out texts, nats per token.

    kept: whether `stored` is better than nothing by more than the standard error of that. best_step: where
    it was measured. tokens, held_tokens: of texts tuned on, and measured on.
    """

    before: Distance
    after: Distance
    kept: bool
    steps: int
    best_step: int
    tokens: int
    held_tokens: int
    stored: Stored = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        gain, spread = self.after.less(self.before)
        return {
            "kept": self.kept,
            "kl_before": self.before.kl_nats,
            "kl_after": self.after.kl_nats,
            "gain": gain,
            "gain_spread": spread,
            "steps": self.steps,
            "best_step": self.best_step,
            "tokens": self.tokens,
            "held_tokens": self.held_tokens,
        }


def check_memory(parameters: int) -> None:
    """Raises PlasticError if base and student would not fit."""
    need, free = BYTES_A_WEIGHT[is_slow_low_precision()] * parameters, free_memory_bytes()
    if need > free:
        raise PlasticError(
            f"tuning holds base and copy in memory: about {need / 1e6:.0f} MB; {free / 1e6:.0f} MB are free",
            hint="give --no-tune, which holds one tensor, or use a machine with more memory",
        )


def tune_checkpoint(
    folder: Path, ref: str, data: Path, how: Tuning, *, cache: Path | None = None, tick: Tick | None = None
) -> Tuned:
    """Tune the checkpoint in `folder` towards `ref` on `data`; nothing is written.

    Raises BadData for texts that cannot be used.
    """
    base = load_base(ref, cache=cache)
    texts = read_texts(base, data, tokens=how.tokens)
    return tune(base, Student(folder), texts.learned, texts.tried, how, tick=tick)


def tune(
    base: Base,
    student: Student,
    learned: Sequence[Encoded],
    held: Sequence[Encoded],
    how: Tuning,
    *,
    tick: Tick | None = None,
) -> Tuned:
    """The moves that lie nearest to the base on `held`, found on `learned`; the same seed gives the same."""
    tell = tick or (lambda *_: None)
    lengths = [len(piece.tokens) - 1 for piece in learned]
    batches = batched(lengths, how.batch_tokens, seed=how.seed, epochs=0, steps=how.steps)
    moves = student.still()
    optimizer, rate = _adam(), how.rate
    with quick_activations(), reference(base.model, held) as first:
        before = best = first.distance(student.wear(moves, rounded=True))
        found, best_step, since, step = moves, 0, 0, 0
        for step, batch in enumerate(batches, 1):
            tell(step - 1, len(batches), f"tuning: KL {best.kl_nats:.4g} on held-out texts")
            optimizer.learning_rate = rate * _schedule(step, len(batches))
            moves = _stepped(base, student, moves, [learned[i] for i in batch], optimizer)
            if step % max(1, len(batches) // LOOKS) and step < len(batches):
                continue
            now = first.distance(student.wear(moves, rounded=True))
            if now.kl_nats < best.kl_nats:
                best, found, best_step, since = now, moves, step, 0
                continue
            since += 1
            if since == PATIENCE:
                break
            moves, optimizer, rate = found, _adam(), rate * SLOWER
        gain, spread = best.less(before)
    made = Tuned(
        *(before, best, gain > spread, step, best_step, count(learned), count(held)),
        stored=student.stored(found),
    )
    log.info("tuned %d steps: KL %.4g -> %.4g on held-out texts", step, before.kl_nats, best.kl_nats)
    return made


def _adam() -> Any:
    return optim.Adam(learning_rate=0.0, betas=list(BETAS))


def _schedule(step: int, steps: int) -> float:
    """Up in a few steps, then down along a cosine."""
    fall = 0.5 + 0.5 * math.cos(math.pi * step / steps)
    return min(1.0, step / WARM_STEPS) * (LAST_RATE + (1 - LAST_RATE) * fall)


def _stepped(base: Base, student: Student, moves: Moves, pieces: Sequence[Encoded], optimizer: Any) -> Moves:
    some = rows(pieces)
    tokens, asked = mx.array(some.tokens), mx.array(some.positions)
    teacher = _at(base.model(tokens), asked)
    mx.eval(teacher)

    def loss(moves: Moves) -> mx.array:
        said = _at(student.wear(moves)(tokens), asked)
        return summed_kl(said, teacher) / asked.size

    _, slopes = mx.value_and_grad(loss)(moves)
    made: Moves = optimizer.apply_gradients(slopes, moves)
    mx.eval(made, optimizer.state)
    return made


def _at(logits: mx.array, positions: mx.array) -> mx.array:
    """(k, vocab) of (n, length, vocab)."""
    return mx.flatten(logits, 0, 1)[positions]
