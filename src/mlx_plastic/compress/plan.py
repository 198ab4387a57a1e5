"""A plan: how each matrix of a checkpoint is to be stored. A JSON file that a person can read and change."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mlx_plastic.compress.offers import Offer, Row
from mlx_plastic.compress.schemes import FLOATING, WHOLE, Dtype, Scheme
from mlx_plastic.compress.solve import Solution, solve
from mlx_plastic.errors import BadConfig
from mlx_plastic.home import write_json
from mlx_plastic.survey.schemes import AFFINE_BITS, AFFINE_GROUPS

FORMAT_VERSION = 1
UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True)
class Stored:
    """One matrix of a plan. bits 16: as it is, in 16 bits. rank: directions that are kept; None for all.

    kl_nats: what it is expected to cost; rtn_nats: with plain rounding. Without calibration weights of no
    unit.
    """

    module: str
    rows: int
    cols: int
    experts: int
    bits: int
    group_size: int
    mode: str
    gptq: bool
    nbytes: int
    kl_nats: float
    rtn_nats: float
    rank: int | None = None

    @property
    def scheme(self) -> Scheme:
        return Scheme(self.bits, self.group_size, self.mode)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Plan:
    """nbytes: of all weights as they will be stored. parameters: of the model.

    cost: expected, the sum over matrices; bound: what no plan of these offers and bytes can go under. by:
    "texts" or "roles". calibration: digest, texts and tokens.
    """

    base: str
    base_fingerprint: str
    dtype: Dtype
    budget_bytes: int
    nbytes: int
    parameters: int
    by: Literal["texts", "roles"]
    cost: float
    bound: float
    exact: bool
    matrices: tuple[Stored, ...]
    calibration: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    format_version: int = FORMAT_VERSION

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / self.parameters

    @property
    def gap(self) -> float:
        return max(0.0, (self.cost - self.bound) / self.cost) if self.cost > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        value = asdict(self)
        matrices = value.pop("matrices")
        told = {"bits_per_weight": round(self.bits_per_weight, 4), "gap": self.gap}
        return {**value, **told, "matrices": [dict(m) for m in matrices]}


def budget_bytes(text: str, parameters: int) -> int:
    """ "4.0bpw" of so many parameters, "2.5GB", "300MB" or a number of bytes. Raises BadConfig otherwise."""
    given = text.strip().lower().replace(" ", "")
    try:
        if given.endswith("bpw"):
            found = float(given.removesuffix("bpw")) * parameters / 8
        else:
            unit = next(u for u in sorted(UNITS, key=len, reverse=True) if given.endswith(u) or u == "b")
            found = float(given.removesuffix(unit)) * UNITS[unit]
        if not 0 < found < 2**62:
            raise ValueError
    except ValueError:
        raise BadConfig(
            f"a budget of {text!r} is no number of bytes", hint="write 4.0bpw, 2.5GB or 300MB"
        ) from None
    return int(found)


def planned(rows: Sequence[Row], *, budget: int, rest: int, exact: bool | None = None) -> Solution:
    """The offer of each row that costs least together within `budget` bytes. rest: bytes of all else.

    Raises BadConfig for a budget that nothing fits, saying what would.
    """
    options = [[(offer.nbytes, offer.kl_nats) for offer in row.offers] for row in rows]
    least = rest + sum(min(nbytes for nbytes, _ in some) for some in options)
    parameters = sum(row.parameters for row in rows)
    if least > budget:
        bits = math.ceil(800 * least / (parameters + rest / 2)) / 100
        stuck = _stuck(rows)
        raise BadConfig(
            f"{budget} bytes are too few: what cannot be quantized takes {rest}, and the matrices at least "
            f"{least - rest}",
            hint=f"the smallest budget is {least} bytes ({bits}bpw)" + (stuck and f"; {stuck}"),
        )
    return solve(options, budget - rest, exact=exact)


def _stuck(rows: Sequence[Row]) -> str:
    """Matrices that no scheme fits, and how much of the model they are."""
    stuck = [row for row in rows if len(row.offers) == 1]
    if not stuck:
        return ""
    widths = sorted({row.cols for row in stuck})
    return (
        f"{len(stuck)} matrices with rows of {', '.join(map(str, widths))} numbers stay whole: MLX cuts rows "
        f"into groups of {', '.join(map(str, AFFINE_GROUPS))}, or the model itself keeps them"
    )


def stored(row: Row, offer: Offer) -> Stored:
    s = offer.scheme
    return Stored(
        *(row.module, row.rows, row.cols, row.experts, s.bits, s.group_size, s.mode),
        *(offer.gptq, offer.nbytes, offer.kl_nats, offer.rtn_nats),
    )


def write_plan(path: Path, plan: Plan) -> None:
    write_json(path, plan.as_dict())


def read_plan(path: Path) -> Plan:
    """The plan in a file, checked. Raises BadConfig naming everything that is wrong in it."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadConfig(f"cannot read {path}: {error.strerror}", hint="make one: compress plan") from error
    except ValueError as error:
        raise BadConfig(f"{path} is not JSON: {error}", hint="mend it, or make it anew") from error
    if not isinstance(value, dict) or value.get("format_version") != FORMAT_VERSION:
        raise BadConfig(f"{path} is no plan of format {FORMAT_VERSION}", hint="make one: compress plan")
    given = {k: v for k, v in value.items() if k not in ("bits_per_weight", "gap", "matrices", "notes")}
    try:
        matrices = tuple(Stored(**m) for m in value["matrices"])
        plan = Plan(**given, matrices=matrices, notes=tuple(value["notes"]))
    except (TypeError, KeyError) as error:
        raise BadConfig(f"{path} is no plan: {error}", hint="make it anew: compress plan") from error
    faults = [fault for m in matrices if (fault := _fault(m))]
    if faults:
        bits, groups = (", ".join(map(str, known)) for known in (AFFINE_BITS, AFFINE_GROUPS))
        raise BadConfig(
            f"{path} asks for what cannot be:" + "".join(f"\n  - {fault}" for fault in faults[:20]),
            hint=f"bits {bits} or {WHOLE}, groups {groups}",
        )
    return recounted(plan)


def _fault(m: Stored) -> str:
    if m.bits == WHOLE and m.mode == "affine":
        legal = True
    elif m.mode == "affine":
        legal = m.bits in AFFINE_BITS and m.group_size in AFFINE_GROUPS
    else:
        legal = m.scheme in FLOATING
    if not legal:
        return f"{m.module}: {m.bits} bits in groups of {m.group_size}, {m.mode}"
    if not m.scheme.fits(m.cols):
        return f"{m.module}: rows of {m.cols} numbers in groups of {m.group_size}"
    if m.rank is not None and not 1 <= m.rank <= min(m.rows, m.cols):
        return f"{m.module}: rank {m.rank} of a matrix of {m.rows} x {m.cols}"
    return ""


def recounted(plan: Plan) -> Plan:
    """The plan with the bytes that its matrices really take: a person may have changed them."""
    matrices = tuple(replace(m, nbytes=m.scheme.nbytes((m.experts, m.rows, m.cols))) for m in plan.matrices)
    change = sum(m.nbytes for m in matrices) - sum(m.nbytes for m in plan.matrices)
    return replace(plan, matrices=matrices, nbytes=plan.nbytes + change)


def explained(plan: Plan) -> list[str]:
    """What a person may want to know of a plan, in sentences."""
    unit = "nats per token" if plan.by == "texts" else "(a weight of no unit: no texts were given)"
    plain = sum(m.rtn_nats for m in plan.matrices)
    widths: dict[str, int] = {}
    for m in plan.matrices:
        widths[m.scheme.name] = widths.get(m.scheme.name, 0) + m.experts * m.rows * m.cols
    whole = sum(widths.values())
    shares = ", ".join(
        f"{name} {100 * n / whole:.0f} %" for name, n in sorted(widths.items(), key=lambda kv: -kv[1])
    )
    lines = [
        f"{plan.nbytes} of {plan.budget_bytes} bytes, {plan.bits_per_weight:.3f} bits per weight",
        f"expected cost {plan.cost:.4g} {unit}: the sum over matrices; plain rounding would cost {plain:.4g}",
        (
            "no choice from these offers within these bytes costs less"
            if plan.exact
            else f"at most {100 * plan.gap:.3g} % above the best choice within these bytes"
        )
        + f" (bound {plan.bound:.4g})",
        f"of the numbers in matrices: {shares}",
    ]
    if plan.by == "roles":
        lines.append("without texts the shares follow rules of thumb by role; --data makes them measured")
    return [*lines, *plan.notes]


def by_module(plan: Plan) -> Mapping[str, Stored]:
    return {m.module: m for m in plan.matrices}
