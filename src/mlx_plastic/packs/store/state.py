"""What the store decided: which packs are worn, were worn, are set apart or pinned."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mlx_plastic.errors import PackNotFound
from mlx_plastic.packs.format.manifest import check_name

Status = Literal["candidate", "active", "retired", "quarantined"]
Worn = tuple[str, ...]  # names of the packs attached together; () is the bare base

BARE = "base"
STATE_VERSION = 1


@dataclass(frozen=True)
class Change:
    """One change of what is worn."""

    action: str  # "activate" or "rollback"
    before: Worn
    now: Worn
    at: str  # ISO 8601, UTC

    @property
    def name(self) -> str:
        """What is worn after it, in one word: a pack's name, several joined by +, or "base"."""
        return worn_name(self.now)

    @property
    def name_before(self) -> str:
        return worn_name(self.before)


@dataclass(frozen=True)
class Removed:
    """What is still known of a pack that left the store."""

    at: str  # ISO 8601, UTC
    parents: tuple[str, ...]


@dataclass(frozen=True)
class State:
    """What state.json holds.

    trail: what was worn, oldest first, the last being worn now; a rollback shortens it.
    marks: candidates have none. digests: sha256 of the tensors of each pack that was ever worn.
    pins: never removed. removed: packs that left the store, by name.
    """

    trail: tuple[Worn, ...] = ((),)
    marks: dict[str, Status] = field(default_factory=dict)
    verdicts: dict[str, dict[str, Any]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    history: tuple[Change, ...] = ()
    pins: tuple[str, ...] = ()
    removed: dict[str, Removed] = field(default_factory=dict)

    @property
    def worn(self) -> Worn:
        return self.trail[-1]

    def status(self, name: str) -> Status:
        return "active" if name in self.worn else self.marks.get(name, "candidate")

    def recent(self) -> Iterator[str]:
        """Every pack that was worn, the latest first, each once."""
        latest = [name for change in reversed(self.history) for name in change.now]
        yield from dict.fromkeys([*self.worn, *latest])


def worn_name(worn: Worn) -> str:
    return "+".join(worn) or BARE


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def state_value(state: State) -> dict[str, Any]:
    """The state as state.json holds it."""
    return {"format_version": STATE_VERSION, **dataclasses.asdict(state)}


def parse_state(value: Any) -> State:
    """The state in a parsed state.json, also an older one, which had no pins.

    Raises ValueError, KeyError, TypeError, AttributeError or BadPack (a name that leads elsewhere).
    """
    if value["format_version"] != STATE_VERSION:
        raise ValueError(f"format_version {value['format_version']}")
    trail = tuple(tuple(map(check_name, worn)) for worn in value["trail"])
    if not trail:
        raise ValueError("an empty trail")
    return State(
        trail=trail,
        marks=dict(value["marks"]),
        verdicts=dict(value["verdicts"]),
        digests=dict(value["digests"]),
        history=tuple(
            Change(c["action"], tuple(c["before"]), tuple(c["now"]), c["at"]) for c in value["history"]
        ),
        pins=tuple(map(check_name, value.get("pins", ()))),
        removed={n: Removed(r["at"], tuple(r["parents"])) for n, r in value.get("removed", {}).items()},
    )


def changed(state: State, change: Change, trail: tuple[Worn, ...], digests: Mapping[str, str]) -> State:
    """The state after `change`: what is no longer worn is retired, unless it is quarantined."""
    marks = {name: mark for name, mark in state.marks.items() if name not in change.now}
    marks |= {name: "retired" for name in change.before if name not in change.now}
    return dataclasses.replace(
        state,
        trail=trail,
        marks=marks,
        verdicts={name: v for name, v in state.verdicts.items() if name not in change.now},
        digests={**state.digests, **digests},
        history=(*state.history, change),
    )


def forgotten(state: State, name: str) -> State:
    """The state before anything was decided about `name`: another pack of that name begins."""
    return dataclasses.replace(
        state,
        marks={n: mark for n, mark in state.marks.items() if n != name},
        verdicts={n: verdict for n, verdict in state.verdicts.items() if n != name},
        removed={n: when for n, when in state.removed.items() if n != name},
    )


def target(state: State, tag: str | None) -> Worn:
    """What a rollback to `tag` leads to: "base", a pack, several joined by +, or (None) what was before."""
    if tag == BARE:
        return ()
    if tag is not None:
        return tuple(map(check_name, tag.split("+")))
    if len(state.trail) < 2:
        raise PackNotFound(
            f"nothing was worn before {worn_name(state.worn)}", hint="see what there is: plastic packs list"
        )
    return state.trail[-2]


def shortened(trail: tuple[Worn, ...], target: Worn) -> tuple[Worn, ...]:
    """The trail back to where `target` was last worn before now; one step longer if it never was."""
    for i in range(len(trail) - 2, -1, -1):
        if trail[i] == target:
            return trail[: i + 1]
    return (*trail, target)


def without(trail: tuple[Worn, ...], name: str) -> tuple[Worn, ...]:
    """The trail as if `name` had never been worn."""
    kept: list[Worn] = []
    for worn in ((), *trail):  # it begins at the bare base
        if name not in worn and kept[-1:] != [worn]:
            kept.append(worn)
    return tuple(kept)


def ending_in(trail: tuple[Worn, ...], there: Iterable[str]) -> tuple[Worn, ...]:
    """The trail up to the last step whose packs are all `there`; the bare base always is."""
    known = set(there)
    for i in range(len(trail), 0, -1):
        if known.issuperset(trail[i - 1]):
            return trail[:i]
    return ((),)
