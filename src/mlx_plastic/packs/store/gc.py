"""Which packs a store may let go: decided from what was worn and how long each has been there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from mlx_plastic.packs.store.state import State

KEEP = 10  # worn packs, and steps back
DAYS = 30  # that a pack which was never worn is left in peace


@dataclass(frozen=True)
class Fate:
    """What becomes of one pack, and why."""

    name: str
    keep: bool
    reason: str
    bytes: int  # of its folder


def fates(
    state: State,
    ages: Mapping[str, float],
    sizes: Mapping[str, int],
    *,
    keep: int = KEEP,
    days: float = DAYS,
) -> list[Fate]:
    """The fate of every pack in `ages` (days since it was put there), by name.

    Kept are: what is worn; what is pinned; the `keep` packs worn last; all that `keep` rollbacks would lead
    to; and packs that wait or are quarantined for less than `days`. The rest goes.
    """
    if keep < 0 or days < 0:
        raise ValueError(f"keep {keep}, days {days}: neither can be negative")
    latest = set(islice((n for n in state.recent() if n not in state.worn and n in ages), keep))
    steps = {name for worn in state.trail[-1 - keep : -1] for name in worn} if keep else set()
    found = []
    for name, age in sorted(ages.items()):
        reason = _why_kept(state, name, age, latest=latest, steps=steps, keep=keep, days=days)
        told = reason or _why_gone(state, name, age)
        found.append(Fate(name, bool(reason), told, sizes.get(name, 0)))
    return found


def _why_kept(
    state: State, name: str, age: float, *, latest: set[str], steps: set[str], keep: int, days: float
) -> str:
    if name in state.worn:
        return "worn now"
    if name in state.pins:
        return "pinned"
    if name in steps:
        return f"within {keep} rollbacks"
    if name in latest:
        return f"among the last {keep} worn"
    if state.status(name) != "retired" and age < days:
        return f"{state.status(name)} for {age:.0f} days, less than {days:g}"
    return ""


def _why_gone(state: State, name: str, age: float) -> str:
    status = state.status(name)
    return "worn longer ago" if status == "retired" else f"{status} for {age:.0f} days"
