"""A checkpoint and a budget -> a plan."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlx_plastic.base.weights import Weights
from mlx_plastic.compress.cuts import with_cuts
from mlx_plastic.compress.offers import Offer, Row, allowed_by
from mlx_plastic.compress.plan import Plan, budget_bytes, planned, stored
from mlx_plastic.compress.price import Priced, Pricing, Tick, opened, price, rest_bytes
from mlx_plastic.compress.schemes import schemes_for
from mlx_plastic.compress.solve import Solution
from mlx_plastic.compress.swaps import swapped
from mlx_plastic.compress.taps import storable
from mlx_plastic.errors import BadConfig

log = logging.getLogger(__name__)

DEEP_BITS = 3  # a number: under it the real KL of a few changes is measured; above it only fits the texts


@dataclass(frozen=True)
class Planning:
    """How a plan is made. floor: the fewest bits of any matrix; None: 3, or 2 if the budget asks for it.

    swaps: changes scored by the KL of the whole, where matrices have few bits. cut: find and cut
    directions that do nothing; it needs texts.
    """

    budget: str = "4.0bpw"
    floor: int | None = None
    swaps: int = 24
    cut: bool = False
    pricing: Pricing = field(default_factory=Pricing)


def make_plan(
    ref: str,
    how: Planning,
    *,
    data: Path | None = None,
    survey: Iterable[Mapping[str, Any]] | None = None,
    metrics: Path | None = None,
    cache: Path | None = None,
    tick: Tick | None = None,
) -> Plan:
    """The plan for checkpoint `ref`; data, survey, metrics: see `price`.

    Raises BadConfig for a budget that nothing fits, before anything is priced; PlasticError for a checkpoint
    that is quantized already without consent; and what `price` raises.
    """
    weights = opened(ref, dequantize=how.pricing.dequantize, cache=cache)
    _check_possible(weights, how)
    priced = price(weights, how.pricing, data=data, survey=survey, metrics=metrics, cache=cache, tick=tick)
    return choose(priced, how, tick=tick)


def choose(priced: Priced, how: Planning, *, tick: Tick | None = None) -> Plan:
    """The offers that cost least together within the budget. Raises BadConfig if none fit."""
    budget = budget_bytes(how.budget, priced.parameters)
    rows, solution, notes = _chosen(list(priced.rows), budget, priced.rest, how.floor)
    choice, cost = list(solution.choice), solution.cost
    if priced.base is not None and how.swaps and _is_deep(rows, choice):
        room = budget - priced.rest - solution.nbytes
        choice, history = swapped(
            *(priced.base, rows, choice, room, priced.held, priced.dtype, priced.store),
            tries=how.swaps,
            tick=tick or (lambda *_: None),
        )
        cost = sum(r.offers[k].kl_nats for r, k in zip(rows, choice, strict=True))
        notes.append(f"swaps scored by the KL of the whole: {history[0]:.4g} -> {history[-1]:.4g} nats")
    chosen = tuple(stored(r, r.offers[k]) for r, k in zip(rows, choice, strict=True))
    plan = Plan(
        *(priced.ref, priced.fingerprint, priced.dtype, budget),
        nbytes=priced.rest + sum(m.nbytes for m in chosen),
        parameters=priced.parameters,
        by=priced.by,
        cost=cost,
        bound=solution.bound,
        exact=solution.exact and choice == list(solution.choice),
        matrices=chosen,
        calibration=priced.calibration,
        notes=(*priced.notes, *notes),
    )
    if how.cut and priced.base is not None:
        plan, _ = with_cuts(plan, priced.base, priced.held, tick=tick or (lambda *_: None))
    log.info("plan for %s: %.3f bits per weight, cost %.4g", plan.base, plan.bits_per_weight, plan.cost)
    return plan


def _check_possible(weights: Weights, how: Planning) -> None:
    """Raises BadConfig, from shapes alone, for a budget that nothing fits."""
    rows = []
    for path, layer in storable(weights.model).items():
        shape = weights.shapes[f"{path}.weight"]
        *stack, out, width = shape
        allowed = allowed_by(weights.model, path, layer)
        found = [
            s
            for s in schemes_for(width, floor=how.floor or 2, floating=how.pricing.floating)
            if s.is_whole or allowed(s)
        ]
        offers = tuple(Offer(s, False, s.nbytes(shape), 0.0, 0.0) for s in found)
        rows.append(Row(path, "", math.prod(stack), out, width, offers, {}))
    parameters = sum(math.prod(shape) for shape in weights.shapes.values())
    planned(rows, budget=budget_bytes(how.budget, parameters), rest=rest_bytes(weights), exact=False)


def _chosen(
    rows: list[Row], budget: int, rest: int, floor: int | None
) -> tuple[list[Row], Solution, list[str]]:
    """With the floor asked for, or with 3 bits if that fits, else 2.

    the rows' offers from there on, chosen.
    """
    for least in (floor,) if floor else (3, 2):
        kept = [replace(r, offers=tuple(o for o in r.offers if o.scheme.bits >= least)) for r in rows]
        try:
            solution = planned(kept, budget=budget, rest=rest)
        except BadConfig:
            if least in (2, floor):
                raise
            continue
        deep = ["the budget asks for 2 bits: expect more loss than is told here"]
        return kept, solution, deep if least == 2 and not floor else []
    raise AssertionError("the loop returns or raises")


def _is_deep(rows: Sequence[Row], choice: Sequence[int]) -> bool:
    """Whether the matrices have so few bits a number, scales left aside, that the sum over them misleads."""
    bits = sum(r.parameters * r.offers[k].scheme.bits for r, k in zip(rows, choice, strict=True))
    return bits < DEEP_BITS * sum(r.parameters for r in rows)
