"""How a pack is trained: the settings, and what follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mlx_plastic.errors import TrainingFailed
from mlx_plastic.samples import LossMode

LOWEST = {
    "rank": 1,
    "batch_tokens": 1,
    "max_tokens": 2,
    "accumulate": 1,
    "cache_mb": 0,
    "start_rank": 0,
    "valid_every": 1,
    "checkpoint_every": 1,
}


@dataclass(frozen=True)
class TrainConfig:
    """How a pack is trained. In config.toml: [train]."""

    rank: int = 8  # rows of a
    alpha: float = 0.0  # the update is alpha / rank * B A; 0: twice the rank
    rs_lora: bool = False  # alpha / sqrt(rank) instead (Kalajdzievski 2023): for ranks from about 32 up
    dropout: float = 0.0  # share of the inputs the update does not see
    roles: str = ""  # such as "attn.q_proj, mlp"; empty: every linear layer of the blocks
    learning_rate: float = 1e-4  # peak, after warm-up
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # after warm-up, down to a tenth of the peak
    warmup_fraction: float = 0.1  # of all steps
    epochs: float = 3.0
    steps: int = 0  # if not 0, instead of epochs
    batch_tokens: int = 512  # per forward pass, padding included
    packing: Literal["auto", "on", "off"] = "auto"  # several samples a row; auto: where a GPU computes
    accumulate: int = 1  # forward passes per step; every target weighs the same
    max_tokens: int = 1024  # per sample; longer ones are cut into windows
    loss_mode: LossMode = "answer"  # what of a sample is learned
    anchor: float = 1.0  # weight of a soft target, where a word weighs 1
    weight_decay: float = 0.0
    clip: float = 1.0  # largest norm of the gradient; 0: any
    seed: int = 0
    grad_checkpoint: bool = False  # compute inner activations twice: less memory, about a third slower
    cache_mb: int = 256  # memory for what the frozen blocks make of the samples; 0: compute it each epoch
    dynamic_rank: bool = False  # grow where it pays, then park what does not: as many numbers as `rank` takes
    start_rank: int = 0  # of updates whose ranks change; 0: as `rank`, which did better than 1
    rank_policy: Literal["gradient", "spectral", "activation"] = "gradient"  # which layers grow
    valid_every: int = 50  # steps between two losses on the valid samples
    keep: Literal["best", "last"] = "best"  # the factors with the lowest of these losses, or the last ones
    checkpoint_every: int = 50  # steps

    @property
    def role_list(self) -> list[str] | None:
        return [role.strip() for role in self.roles.split(",") if role.strip()] or None

    def scale(self, rank: int) -> float:
        """What an update of that rank is multiplied with."""
        alpha = self.alpha or 2.0 * rank
        return alpha / math.sqrt(rank) if self.rs_lora else alpha / rank

    def rate(self, step: int, steps: int) -> float:
        """The learning rate after `step` of `steps` are done: a linear warm-up, then the schedule."""
        warmup = self.warmup_fraction * steps
        if step < warmup:
            return self.learning_rate * (step + 1) / (math.floor(warmup) + 1)
        done = (step - warmup) / max(1.0, steps - warmup)
        left = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}
        return self.learning_rate * (0.1 + 0.9 * left[self.schedule])

    def check(self) -> None:
        """Raises TrainingFailed with everything that is out of bounds."""
        faults = [
            f"{name} is {getattr(self, name)}, less than {least}"
            for name, least in LOWEST.items()
            if getattr(self, name) < least
        ]
        if self.steps <= 0 and self.epochs <= 0:
            faults.append("neither steps nor epochs is above 0")
        if not math.isfinite(self.epochs):
            faults.append(f"epochs is {self.epochs}, no number of times")
        if not 0 <= self.dropout < 1:
            faults.append(f"dropout is {self.dropout}, not in [0, 1)")
        if not 0 <= self.warmup_fraction <= 1:
            faults.append(f"warmup_fraction is {self.warmup_fraction}, not in [0, 1]")
        if not 0 <= self.seed < 2**32:
            faults.append(f"seed is {self.seed}, not in [0, 2^32)")
        for name in ("alpha", "anchor", "weight_decay", "clip"):
            if not 0 <= getattr(self, name) < math.inf:
                faults.append(f"{name} is {getattr(self, name)}, not 0 or more")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            faults.append(f"learning_rate is {self.learning_rate}, not above 0")
        if faults:
            raise TrainingFailed("; ".join(faults), hint="mend [train] in config.toml, or the option")
