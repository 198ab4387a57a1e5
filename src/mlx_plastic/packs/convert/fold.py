"""Updates as foreign files hold them, and how they become float16 factors and back without a lost bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mlx_plastic.errors import BadPack
from mlx_plastic.packs.algebra.updates import norm
from mlx_plastic.packs.format.tensors import Array, Factors

WORST_ERROR = 0.01  # relative, of one module's update: beyond it float16 cannot hold that module


@dataclass(frozen=True)
class Update:
    """One module's update scale * b @ a, as it was read.

    a: (rank, in), b: (out, rank), float16 or float32; with stacked experts (E, rank, in), (E, out, rank).
    """

    a: Array
    b: Array
    scale: float

    @property
    def rank(self) -> int:
        return int(self.a.shape[-2])


Hint = tuple[int, float]  # rank and alpha that a module had in the pack it was exported from


def folded(factors: Mapping[str, Factors]) -> dict[str, Update]:
    """The same updates with scale 1: each scale is multiplied into its b.

    Everything is float16 if that loses nothing, as where every scale is a power of two; else everything is
    float32, from which `halved` finds the very same float16 factors again.
    """
    b = {path: _times(f.b, f.scale) for path, f in factors.items()}
    with np.errstate(over="ignore"):
        exact = all(np.array_equal(x.astype(np.float16).astype(np.float32), x) for x in b.values())
    dtype = np.float16 if exact else np.float32
    return {path: Update(f.a.astype(dtype), b[path].astype(dtype), 1.0) for path, f in factors.items()}


def _times(b: Array, scale: float) -> Array:
    return (b.astype(np.float64) * scale).astype(np.float32)


def halved(
    updates: Mapping[str, Update], hints: Mapping[str, Hint]
) -> tuple[dict[str, Factors], dict[str, float]]:
    """The updates as float16 factors, and by how much each module's update differs then.

    The difference is relative, in the Frobenius norm, and 0 where no bit changes. hints: what `folded`
    started from; one is followed only where it leads back to the same numbers exactly. Raises BadPack with
    every module that float16 cannot hold.
    """
    factors, errors = {}, {}
    for path, update in updates.items():
        back = _unfolded(update, hints.get(path))
        factors[path] = back or _nearest(update)
        errors[path] = 0.0 if back else relative_error(update, factors[path])
    lost = [f"{path} would change by {error:.1%}" for path, error in errors.items() if error > WORST_ERROR]
    if lost:
        raise BadPack(
            "float16 cannot hold these updates:" + "".join(f"\n  - {fault}" for fault in lost[:40]),
            hint="their values span too many orders of magnitude: train that adapter again with weight decay",
        )
    return factors, errors


def _unfolded(update: Update, hint: Hint | None) -> Factors | None:
    """The factors that were folded into this update, if it is certain that they were."""
    if hint is None or update.scale != 1.0:
        return None
    rank, alpha = hint
    a, b = update.a[..., :rank, :], update.b[..., :, :rank]
    if update.a[..., rank:, :].any() or update.b[..., :, rank:].any():
        return None
    with np.errstate(all="ignore"):
        back = Factors(
            a.astype(np.float16), (b.astype(np.float64) / (alpha / rank)).astype(np.float16), alpha
        )
    same = np.array_equal(back.a, a) and np.array_equal(_times(back.b, back.scale), b.astype(np.float32))
    return back if same else None


def _nearest(update: Update) -> Factors:
    """The float16 factors nearest to the update: as they are, or balanced where that saves range."""
    best, least = None, np.inf
    for factors in _castings(update):
        error = relative_error(update, factors)
        if error < 0.9 * least:  # a later one moves numbers about: it has to be worth it
            best, least = factors, error
        if error == 0.0:
            break
    if best is None:
        return Factors(np.zeros_like(update.a, np.float16), np.zeros_like(update.b, np.float16), 1.0)
    return best


def _castings(update: Update) -> Iterator[Factors]:
    """The update in float16: plainly; with each row of a as large as its column of b; and with both about 1.

    Only powers of two are moved, so that the numbers themselves are rounded once.
    """
    sign = -1.0 if update.scale < 0 else 1.0  # an alpha of ours is above zero
    alpha = abs(update.scale) * update.rank or 1.0
    a, b = update.a.astype(np.float64), update.b.astype(np.float64) * (sign if update.scale else 0.0)
    yield _cast(a, b, alpha)
    high_a, high_b = np.abs(a).max(-1), np.abs(b).max(-2)  # (rank,), or (E, rank)
    alive = (high_a > 0) & (high_b > 0)
    if not alive.any():
        return
    exponent_a, exponent_b = (np.frexp(np.where(alive, high, 1.0))[1] for high in (high_a, high_b))
    shift = (exponent_b - exponent_a) // 2
    a, b = np.ldexp(a, shift[..., None]), np.ldexp(b, -shift[..., None, :])
    yield _cast(a, b, alpha)
    up = -int((exponent_a + shift)[alive].max())
    yield _cast(np.ldexp(a, up), np.ldexp(b, up), float(np.ldexp(alpha, -2 * up)))


def _cast(a: Array, b: Array, alpha: float) -> Factors:
    with np.errstate(over="ignore"):
        return Factors(a.astype(np.float16), b.astype(np.float16), float(np.float32(alpha)))


def relative_error(update: Update, factors: Factors) -> float:
    """||what was read - what is kept|| / ||what was read||, Frobenius, without forming either matrix.

    0 only if they are the same to the bit; infinite if what is kept overflows.
    """
    if not (np.isfinite(factors.a).all() and np.isfinite(factors.b).all() and 0 < factors.alpha < np.inf):
        return np.inf
    alike = factors.scale == update.scale and factors.a.shape == update.a.shape
    if alike and np.array_equal(factors.a, update.a) and np.array_equal(factors.b, update.b):
        return 0.0
    b, a = update.scale * update.b.astype(np.float64), update.a.astype(np.float64)
    kept_b, kept_a = factors.scale * factors.b.astype(np.float64), factors.a.astype(np.float64)
    whole = norm(b, a)
    if whole == 0:
        return np.inf if factors.a.any() and factors.b.any() else 0.0
    return norm(np.concatenate([b, -kept_b], -1), np.concatenate([a, kept_a], -2)) / whole
