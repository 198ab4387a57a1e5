"""Forgetting: a turn leaves the log, the index, the nights' data, and every pack that learned from it.

Weights cannot be searched for a sentence. So each pack whose lineage holds the turn is set apart, and the
nights that made the worn one are learned again, from the first that held it, out of the samples that remain.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mlx_plastic.home import Home
from mlx_plastic.home.export import sweep
from mlx_plastic.memory import Memory
from mlx_plastic.packs import Store
from mlx_plastic.sleep.journal import Journal, nights, scrub
from mlx_plastic.sleep.pending import Pending, finish, keep, pending

log = logging.getLogger(__name__)

LearnAgain = Callable[[Journal, set[str]], tuple[str, str]]  # a night, what is forgotten -> tag, outcome


@dataclass(frozen=True)
class Tainted:
    """A pack that learned from what is to be forgotten."""

    name: str
    status: str
    pinned: bool
    turns: int  # of those to be forgotten


@dataclass(frozen=True)
class Plan:
    """What forgetting these turns will do. rebuild: the nights that are learned again, in their order.

    seconds: what these took when they were first learned and judged.
    """

    turns: tuple[str, ...]
    packs: tuple[Tainted, ...]
    rebuild: tuple[str, ...]
    base: str  # the fingerprint of the base that they learned on; empty: nothing is to be rebuilt
    base_id: str
    seconds: float
    unread: tuple[str, ...] = ()  # packs that cannot be read: what they learned from is not known

    def as_dict(self) -> dict[str, Any]:
        return {
            "packs": [dataclasses.asdict(pack) for pack in self.packs],
            "rebuild": list(self.rebuild),
            "rebuild_seconds": self.seconds,
            "unread": list(self.unread),
        }


@dataclass(frozen=True)
class Erased:
    """What left at once, before anything is learned again. samples: of nights, made of the turns."""

    turns: tuple[str, ...]
    conversations: int
    nights: tuple[str, ...]
    samples: int
    quarantined: tuple[str, ...]


def plan(home: Home, turns: Iterable[str]) -> Plan:
    """What forgetting the turns of these ids will do; nothing is changed."""
    gone, store = set(turns), Store(home)
    tainted, unread = [], []
    for entry in store.entries():
        if entry.manifest is None:
            unread.append(entry.name)
        elif held := gone.intersection(entry.manifest.lineage):
            tainted.append(Tainted(entry.name, entry.status, entry.pinned, len(held)))
    affected = _affected(home, store, gone, {pack.name for pack in tainted})
    rest = [j for j in _undone(home) if j.record.tag not in {a.record.tag for a in affected}]
    rebuild = [*affected, *rest]
    return Plan(
        turns=tuple(sorted(gone)),
        packs=tuple(tainted),
        rebuild=tuple(j.record.tag for j in rebuild),
        base=rebuild[0].record.base_fingerprint if rebuild else "",
        base_id=rebuild[0].record.base_id if rebuild else "",
        seconds=round(sum(_again_s(j) for j in rebuild), 1),
        unread=tuple(unread),
    )


def _affected(home: Home, store: Store, gone: set[str], tainted: set[str]) -> list[Journal]:
    """Of the nights that the pack worn now grew from, the first that learned a turn, and all after it.

    A pack tells by its lineage what it learned: a turn that was only held out, or sent elsewhere by the
    router, is not in it. Of packs that left the store the night's own list has to do.
    """
    family, there = store.ancestors(store.active()), set(store.names())
    line = [j for j in nights(home) if j.record.status == "passed" and j.record.tag in family]
    tags = [j.record.tag for j in line]
    if tainted.isdisjoint(tags):
        return []
    holds = [
        t in tainted or (t not in there and not gone.isdisjoint(j.record.turns))
        for t, j in zip(tags, line, strict=True)
    ]
    return line[holds.index(True) :]


def _undone(home: Home) -> list[Journal]:
    """Nights that an earlier forget has still to learn again."""
    before = pending(home)
    return [j for j in nights(home) if before and j.folder.name in before.left]


def _again_s(journal: Journal) -> float:
    return sum(stage.seconds for name, stage in journal.record.stages.items() if name != "lessons")


def erase(home: Home, memory: Memory, found: Plan, *, purge: bool = False) -> Erased:
    """Delete the turns, what nights made of them, and set the packs apart; may be repeated after a crash.

    What is then left to do stands in the home's forgetting.json, before anything is deleted.
    """
    before = pending(home) or Pending(())
    keep(
        home,
        Pending(
            turns=tuple(sorted({*before.turns, *found.turns})),
            packs=tuple(sorted({*before.packs, *(pack.name for pack in found.packs)})),
            nights=found.rebuild,
            base=found.base,
            purge=purge or before.purge,
        ),
    )
    return _erase(home, memory, found.turns)


def forgotten(memory: Memory) -> set[str]:
    """The ids of all turns that were ever forgotten, by whatever door."""
    return {record.turn for record in memory.audit() if record.action == "forget"}


def overdue(home: Home, gone: set[str]) -> Plan | None:
    """What is to be done for turns that left the log while a pack that learned from them is still in use."""
    found = plan(home, gone) if gone else None
    return found if found and any(p.status != "quarantined" for p in found.packs) else None


def erase_again(home: Home, memory: Memory) -> Erased:
    """The same for a forget that was begun: what a crash left undone is done."""
    found = pending(home)
    return _erase(home, memory, found.turns if found else ())


def _erase(home: Home, memory: Memory, turns: Iterable[str]) -> Erased:
    found = pending(home)
    assert found is not None
    sweep(home)  # a killed export may have left a copy of the log
    done = memory.forget(turns)
    samples = scrub(home, found.turns)
    store, gone = Store(home), set(found.turns)
    for entry in store.entries():
        if entry.name in found.packs and entry.status != "quarantined":
            held = gone.intersection(entry.manifest.lineage) if entry.manifest else gone
            store.quarantine(entry.name, {"passed": False, "reasons": [], "forgotten_turns": len(held)})
    if not found.left:
        _purge(home, found)
        finish(home)
    return Erased(done.turns, done.conversations, done.nights, samples, found.packs)


def _purge(home: Home, found: Pending) -> None:
    """Delete the packs that were set apart, if that was asked for; a pin does not hold them."""
    store = Store(home)
    there = [name for name in found.packs if name in store.names() and name not in store.active()]
    if found.purge and there:
        store.pin(*there, pinned=False)
        store.remove(*there)


def rebuild(home: Home, learn_again: LearnAgain, *, base: str) -> dict[str, str]:
    """Learn again what is left to be, night by night; returns what became of each.

    learn_again: given a night and what is forgotten, the tag of the night in its place and how that ended.
    base: the fingerprint of the one at hand; on another one nothing can be done. After a crash it goes on
    with the night that it was at.
    """
    found = pending(home)
    if found is None or (found.nights and found.base != base):
        return {}
    outcomes = {}
    by_tag = {j.record.tag: j for j in nights(home) if j.record.status != "dry-run"}
    for tag in found.left:
        if (old := by_tag.get(tag)) is None:  # its record was removed by hand: there is nothing to learn from
            outcomes[tag] = "its record is gone"
            found = found.after(tag, "")
        else:
            new, outcomes[tag] = learn_again(old, set(found.turns))
            found = found.after(tag, new)
        keep(home, found)
    _purge(home, found)
    finish(home)
    return outcomes
