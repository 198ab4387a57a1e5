"""How many directions the matrices of a checkpoint have, and whether Pop's identity finds a gap there."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mlx_plastic.base.roles import natural, role_of
from mlx_plastic.base.weights import Weights
from mlx_plastic.errors import BadCheckpoint, BadConfig
from mlx_plastic.lowrank.factors import factorized_lowrank, factors_from_bytes, factors_to_bytes
from mlx_plastic.lowrank.pop import GUIDE, Polynomial, PopCheck, theorem_diagnostic
from mlx_plastic.lowrank.rank import effective_rank, energy_rank, stable_rank
from mlx_plastic.lowrank.svd import Array, Method, relative_residual, singular_values

Tick = Callable[[int, int, str], None]  # done, total, detail


@dataclass(frozen=True)
class Probed:
    """One matrix: the four ranks of the identity and their defect at `tolerance`.

    theorem: the rank that they give. stable, energy, effective: 0 for a matrix of zeros.
    """

    module: str
    rows: int
    cols: int
    stable: float
    energy: int
    effective: float
    theorem: int
    rank_f: int
    rank_g: int
    rank_gcd: int
    rank_lcm: int
    defect: int
    tolerance: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def probe(
    weights: Weights,
    *,
    roles: Sequence[str] = (),
    tolerance: float = 0.1,
    pair: tuple[Polynomial, Polynomial] = GUIDE,
    tick: Tick | None = None,
) -> list[Probed]:
    """Every linear layer of a checkpoint, or those of `roles` ("attn.q_proj", "mlp"), read one by one.

    An expert of a stack is a matrix of its own, `<module>[e]`. tolerance: directions under this share of the
    strongest count as none. Raises BadConfig if no layer has such a role or a polynomial pair says nothing,
    BadCheckpoint for weights that are not finite.
    """
    paths = _chosen(weights, roles)
    found: list[Probed] = []
    for i, path in enumerate(paths):
        if tick:
            tick(i, len(paths), path)
        for name, w in _matrices(path, weights.take(f"{path}.weight")):
            if not np.isfinite(w).all():
                raise BadCheckpoint(f"{name} holds values that are not finite", hint="fetch it again")
            found.append(_probed(name, w, tolerance, pair))
    return found


def _chosen(weights: Weights, roles: Sequence[str]) -> list[str]:
    known = {path: role_of(path) or "" for path in sorted(weights.linear, key=natural)}
    hits = {name: [p for p, role in known.items() if _is_of(name, p, role)] for name in roles}
    if not known or not all(hits.values()):
        raise BadConfig(
            f"{weights.ref} has no linear layer {', '.join(n for n, h in hits.items() if not h) or 'at all'}",
            hint=f"it has {', '.join(sorted({role for role in known.values() if role})) or 'none'}",
        )
    wanted = {path for paths in hits.values() for path in paths}
    return [path for path in known if not roles or path in wanted]


def _is_of(name: str, path: str, role: str) -> bool:
    return name in (path, role) or role.startswith(f"{name}.")


def _matrices(path: str, w: Array) -> Iterator[tuple[str, Array]]:
    if w.ndim == 2:
        yield path, w
    else:
        yield from ((f"{path}[{e}]", one) for e, one in enumerate(w.reshape(-1, *w.shape[-2:])))


def _probed(name: str, w: Array, tolerance: float, pair: tuple[Polynomial, Polynomial]) -> Probed:
    try:
        check: PopCheck = theorem_diagnostic(w, tolerance=tolerance, pair=pair)
    except ValueError as error:
        raise BadConfig(
            f"these polynomials check nothing: {error}", hint="give two of which neither divides the other"
        ) from error
    s = singular_values(w)
    measures = (stable_rank(s), energy_rank(s), effective_rank(s)) if s.any() else (0.0, 0, 0.0)
    theorem = max(1, min(*w.shape, check.rank_f + check.rank_g - check.rank_lcm))
    ranks = check.rank_f, check.rank_g, check.rank_gcd, check.rank_lcm
    rows, cols = w.shape
    return Probed(name, rows, cols, *measures, theorem, *ranks, check.defect, tolerance)


@dataclass(frozen=True)
class Factored:
    """A matrix's factors as the bytes of a file.

    residual: ||w - u s vt|| / ||w||. stored_residual: the same of the factors as they are read back.
    """

    module: str
    shape: tuple[int, ...]
    rank: int
    residual: float
    stored_residual: float
    data: bytes

    def as_dict(self) -> dict[str, Any]:
        return {
            "module": self.module,
            "shape": list(self.shape),
            "rank": self.rank,
            "residual": self.residual,
            "stored_residual": self.stored_residual,
            "bytes": len(self.data),
            "matrix_parameters": int(np.prod(self.shape)),
            "factor_parameters": self.rank * (self.shape[-1] + self.shape[-2]) + self.rank,
        }


def factored(
    weights: Weights, module: str, rank: int, *, method: Method, dtype: str = "float32", seed: int = 0
) -> Factored:
    """The factors of one linear layer. Raises BadConfig for a module or a rank that there is none of."""
    if module not in weights.linear:
        near = difflib.get_close_matches(module, weights.linear, n=1, cutoff=0.3)
        raise BadConfig(f"no linear layer {module!r}", hint=f"did you mean {near[0]}?" if near else "")
    w = weights.take(f"{module}.weight")
    if w.ndim != 2 or not 1 <= rank <= min(w.shape):
        raise BadConfig(
            f"rank {rank} of {module} {list(w.shape)}", hint="give one matrix and a rank within its sides"
        )
    if not np.isfinite(w).all():
        raise BadCheckpoint(f"{module} holds values that are not finite", hint="fetch it again")
    u, s, vt = factorized_lowrank(w, rank, method, seed=seed)
    data = factors_to_bytes({module: (u, s, vt)}, dtype=dtype)
    back = factors_from_bytes(data)[module]
    return Factored(
        *(module, w.shape, rank, relative_residual(w, u, s, vt)),
        *(relative_residual(w, *(x.astype(np.float32) for x in back)), data),
    )
