"""What each matrix could be stored as, what that takes, and what it costs: by texts, or by its role alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_plastic.base.roles import role_of
from mlx_plastic.compress.calibrate import Curvatures
from mlx_plastic.compress.gptq import gptq, metric
from mlx_plastic.compress.schemes import Dtype, Scheme, nearest, rounded, schemes_for
from mlx_plastic.errors import BadCheckpoint
from mlx_plastic.lowrank.svd import Array

SAMPLED = 256  # rows that a scheme is tried on; they do not depend on each other
ROUNDS = 1  # of refinement, while only trying
CHECKED = 1 << 20  # numbers checked at once, so that checking holds no copy of a matrix
TRIED_BITS = 6  # with more there is little left to gain

# how much worse than others an equal relative error is; a rule of thumb for want of texts, not a measurement
PRIORS = {
    "head": 4.0,
    "embedding": 4.0,
    "attn.v_proj": 2.0,
    "attn.o_proj": 2.0,
    "mlp.down_proj": 2.0,
    "experts.down_proj": 2.0,
    "shared": 2.0,
    "router": 16.0,
}
ENDS = 2.0  # times that for the first and the last block


@dataclass(frozen=True)
class Offer:
    """One way to store a matrix. kl_nats: what it costs per token; without texts a weight of no unit.

    rtn_nats: the same with plain rounding instead of GPTQ.
    """

    scheme: Scheme
    gptq: bool
    nbytes: int
    kl_nats: float
    rtn_nats: float


@dataclass(frozen=True)
class Row:
    """A matrix, or a stack of experts that share a scheme, and its offers: what a plan is made from.

    errors: scheme -> ||W - rounded W|| / ||W|| with plain rounding.
    """

    module: str
    role: str
    experts: int  # 1 for a single matrix
    rows: int
    cols: int
    offers: tuple[Offer, ...]
    errors: dict[str, float]

    @property
    def parameters(self) -> int:
        return self.experts * self.rows * self.cols

    def bits_per_weight(self, scheme: Scheme) -> float:
        return 8 * scheme.nbytes((self.experts, self.rows, self.cols)) / self.parameters


Allowed = Callable[[Scheme], bool]


def row(
    module: str,
    w: Array,
    curvatures: Curvatures | None,
    *,
    dtype: Dtype,
    floor: int,
    floating: bool = False,
    allowed: Allowed = lambda scheme: True,
    blocks: int = 0,
    seed: int = 0,
) -> Row:
    """w: (out, in), or (E, out, in) with a curvature for each expert. curvatures: None prices by role.

    Raises BadCheckpoint for weights that are not finite, or are too large for `dtype`.
    """
    check(module, w, dtype)
    stack = w.reshape(-1, *w.shape[-2:])
    found = [s for s in schemes_for(w.shape[-1], floor=floor, floating=floating) if s.is_whole or allowed(s)]
    if not found:
        found = schemes_for(w.shape[-1])[-1:]
    role, weight = prior(module, blocks)
    experts, rows, cols = stack.shape
    picked = _picked(rows, experts, seed)
    errors = {s.name: _relative(stack, s, dtype) for s in found}
    if curvatures is None:
        offers = [
            Offer(s, False, s.nbytes(w.shape), weight * errors[s.name] ** 2, weight * errors[s.name] ** 2)
            for s in found
        ]
    else:
        offers = _priced(stack, curvatures, found, picked, w.shape, dtype)
    return Row(module, role, experts, rows, cols, tuple(offers), errors)


def check(module: str, w: Array, dtype: Dtype) -> None:
    """Raises BadCheckpoint for weights that cannot be stored in 16 bits."""
    parts = np.array_split(w.reshape(-1), max(1, w.size // CHECKED))
    bad = sum(int(np.count_nonzero(~np.isfinite(part))) for part in parts)
    if bad:
        raise BadCheckpoint(
            f"{module} holds {bad} values that are not finite", hint="fetch the checkpoint again, or mend it"
        )
    if not all(np.isfinite(rounded(part, dtype)).all() for part in parts):
        raise BadCheckpoint(f"{module} holds values too large for {dtype}", hint="use --dtype bfloat16")


def _picked(rows: int, experts: int, seed: int) -> Array:
    """Rows to try schemes on: all of them, or some of each expert."""
    most = max(32, SAMPLED // experts)
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _priced(
    stack: Array,
    curvatures: Curvatures,
    found: Sequence[Scheme],
    picked: Array,
    shape: Sequence[int],
    dtype: Dtype,
) -> list[Offer]:
    metrics = [metric(c.metric) for c in curvatures]
    offers = []
    for scheme in found:
        plain = best = 0.0
        for w, curvature, m in zip(stack, curvatures, metrics, strict=True):
            some = w[picked]
            rounding = curvature.nats(some - nearest(some, scheme, dtype), picked)
            better = rounding
            if scheme.mode == "affine" and scheme.bits <= TRIED_BITS:
                coded = gptq(some, scheme, m, dtype, rounds=ROUNDS)
                better = curvature.nats(some - coded.decoded(), picked)
            plain, best = plain + rounding, best + min(better, rounding)
        offers.append(Offer(scheme, best < plain, scheme.nbytes(shape), best, plain))
    return offers


def _relative(stack: Array, scheme: Scheme, dtype: Dtype) -> float:
    lost = sum(float(np.sum(np.square(w - nearest(w, scheme, dtype), dtype=np.float64))) for w in stack)
    whole = float(np.sum(np.square(stack, dtype=np.float64)))
    return (lost / whole) ** 0.5 if whole else 0.0


def prior(module: str, blocks: int) -> tuple[str, float]:
    """The role of a module, and what an equal relative error weighs there, for want of texts."""
    role = role_of(module) or "embedding"
    known = PRIORS.get(role) or PRIORS.get(role.split(".")[0]) or 1.0
    at = next((int(part) for part in module.split(".") if part.isdigit()), None)
    return role, known * (ENDS if at is not None and at in (0, blocks - 1) else 1.0)


def scaled(row: Row, times: float) -> Row:
    """The row with all its costs times that."""
    offers = tuple(
        dataclasses.replace(o, kl_nats=o.kl_nats * times, rtn_nats=o.rtn_nats * times) for o in row.offers
    )
    return dataclasses.replace(row, offers=offers)


def allowed_by(model: Any, module: str, layer: Any) -> Allowed:
    """What the model's own predicate leaves of the schemes of a layer.

    mlx-lm's models may say no (then it stays whole) or name a scheme, such as 8 bits for a router (then no
    fewer bits than that are offered).
    """
    predicate = getattr(model, "quant_predicate", None)
    said = True if predicate is None else predicate(module, layer)
    if isinstance(said, dict):
        least = int(said.get("bits", 0))
        return lambda scheme: scheme.bits >= least
    return lambda scheme: bool(said)
