"""A forget from its beginning to its proof: what leaves at once, what is learned again, what is left."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlx_plastic.home import SEEN_S, Home, consent, locked
from mlx_plastic.memory import Memory
from mlx_plastic.packs import Store
from mlx_plastic.sleep.config import Settings
from mlx_plastic.sleep.doors import Doors, Tick, wearing
from mlx_plastic.sleep.forget import Erased, Plan, erase, erase_again, rebuild
from mlx_plastic.sleep.night import fitted_within
from mlx_plastic.sleep.pending import pending
from mlx_plastic.sleep.recalled import Proof, Witness, exposed, proof, surprises, witnesses
from mlx_plastic.sleep.relearn import relearn
from mlx_plastic.sleep.stop import Stop, Stopped

if TYPE_CHECKING:
    from mlx_plastic.base import Base

HINT = "end the night that is running; it would learn what is to be forgotten"


@dataclass(frozen=True)
class Forgetting:
    """How a forget went. rebuilt: what became of each night that was to be learned again.

    left: nights that are still to be. proof: None where nothing worn had learned the turns, or their answers
    were deleted before this began.
    """

    erased: Erased
    rebuilt: dict[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    proof: Proof | None = None
    stopped: str = ""


def forget(
    home: Home,
    base: Base | None,
    found: Plan | None,
    *,
    chosen: Settings,
    purge: bool = False,
    stop: Stop | None = None,
    tick: Tick | None = None,
) -> Forgetting:
    """Forget what `found` plans; None: go on with a forget that was broken off.

    base: the bare base that the packs learned on; None: they are only set apart, and rebuilt by the next
    night or by another call; so too where nights may not learn. Raises Busy while a night runs, and whatever
    the rooms below raise; then the same call goes on where it was.
    """
    tell: Tick = tick or (lambda *_: None)
    base = base if consent(home).train else None
    with locked(home, "night", hint=HINT, wait_s=SEEN_S), Memory(home) as memory:
        seen = witnesses(home, found.turns) if base and found and found.rebuild else []
        bare, before = ([], 0.0) if base is None else _measured(home, base, seen, tell)
        erased = erase(home, memory, found, purge=purge) if found else erase_again(home, memory)
        if base is None:
            return Forgetting(erased, left=_left(home))
        settings = dataclasses.replace(chosen, night=fitted_within(chosen, base))
        make = functools.partial(Doors, home, base, memory, settings, tell, stop=stop)
        try:
            rebuilt = rebuild(home, functools.partial(relearn, make), base=base.fingerprint)
        except Stopped as stopped:
            return Forgetting(erased, left=_left(home), stopped=stopped.reason)
        shown = proof(before, exposed(_worn(home, base, seen), bare), len(seen)) if seen else None
        return Forgetting(erased, rebuilt, _left(home), shown)


def _left(home: Home) -> tuple[str, ...]:
    found = pending(home)
    return found.left if found else ()


def _measured(home: Home, base: Base, seen: list[Witness], tell: Tick) -> tuple[list[list[float]], float]:
    """What the bare base finds of the answers, and their exposure under what is worn now."""
    if not seen:
        return [], 0.0
    tell("what it knows", 0, 2, f"{len(seen)} answers")
    bare = surprises(base, seen)
    tell("what it knows", 1, 2, "")
    before = exposed(_worn(home, base, seen), bare)
    tell("what it knows", 2, 2, "")
    return bare, before


def _worn(home: Home, base: Base, seen: list[Witness]) -> list[list[float]]:
    store = Store(home)
    with wearing(base, store, store.active()):
        return surprises(base, seen)
