"""The packs of one home: which there are, which is worn, what was worn before, and the way back.

All decisions live in one small file, `packs/state.json`, replaced whole under a lock; pack folders never
change once they are there, save the eval results in a manifest. So whatever is killed in the middle leaves
the active set as it was, and a folder that the state does not know yet is simply a candidate.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mlx_plastic.errors import BadPack, PackNotFound, PlasticError
from mlx_plastic.home import Home, locked, sync_folder, write_json
from mlx_plastic.packs.format import (
    MANIFEST,
    Factors,
    Manifest,
    Pack,
    check_name,
    read_manifest,
    read_pack,
    write_pack,
)

log = logging.getLogger(__name__)

Status = Literal["candidate", "active", "retired", "quarantined"]
Worn = tuple[str, ...]  # names of the packs attached together; () is the bare base

BARE = "base"
STATE_VERSION = 1
WAIT_S = 10.0  # for another command's short write


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
class Entry:
    """One pack of the store, as a list shows it. manifest is None, and fault says why, if it is broken."""

    name: str
    status: Status
    manifest: Manifest | None
    verdict: dict[str, Any] | None = None  # why it is quarantined
    fault: str = ""


@dataclass(frozen=True)
class State:
    """What state.json holds.

    trail: what was worn, oldest first, the last being worn now; a rollback shortens it.
    marks: candidates have none. digests: sha256 of the tensors of each pack that was ever worn.
    """

    trail: tuple[Worn, ...] = ((),)
    marks: dict[str, Status] = field(default_factory=dict)
    verdicts: dict[str, dict[str, Any]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    history: tuple[Change, ...] = ()

    @property
    def worn(self) -> Worn:
        return self.trail[-1]

    def status(self, name: str) -> Status:
        return "active" if name in self.worn else self.marks.get(name, "candidate")


def worn_name(worn: Worn) -> str:
    return "+".join(worn) or BARE


class Store:
    """The one door to a home's packs."""

    def __init__(self, home: Home) -> None:
        self.home = home

    @property
    def state_file(self) -> Path:
        return self.home.packs / "state.json"

    def folder(self, name: str) -> Path:
        """Where the pack of that name lies. Raises BadPack for a name that could lead elsewhere."""
        return self.home.packs / check_name(name)

    def active(self) -> Worn:
        """The names of the packs worn now; () is the bare base. One small file is read."""
        return self._state().worn

    def names(self) -> list[str]:
        """Every pack in the store, sorted."""
        if not self.home.packs.is_dir():
            return []
        return sorted(p.name for p in self.home.packs.iterdir() if p.is_dir() and not p.name.startswith("."))

    def entries(self) -> list[Entry]:
        """Every pack with its status; a broken one is listed with its fault."""
        state = self._state()
        return [self._entry(name, state) for name in self.names()]

    def _entry(self, name: str, state: State) -> Entry:
        try:
            manifest = read_manifest(self.folder(name))
        except BadPack as error:
            return Entry(name, state.status(name), None, state.verdicts.get(name), error.message)
        return Entry(name, state.status(name), manifest, state.verdicts.get(name))

    def status(self, name: str) -> Status:
        self._require(name)
        return self._state().status(name)

    def verdict(self, name: str) -> dict[str, Any] | None:
        """Why the pack is quarantined; None if it is not."""
        self._require(name)
        return self._state().verdicts.get(name)

    def history(self) -> tuple[Change, ...]:
        """Every activation and rollback, oldest first."""
        return self._state().history

    def read(self, name: str) -> Pack:
        """The pack, verified, and still the one that was activated under that name.

        Raises PackNotFound or BadPack.
        """
        pack = read_pack(self._require(name))
        known = self._state().digests.get(name, pack.manifest.sha256)
        if pack.manifest.name != name or pack.manifest.sha256 != known:
            raise BadPack(
                f"the folder of pack {name!r} holds another pack now ({pack.manifest.name!r})",
                hint="put the old folder back, or wear another: plastic rollback",
            )
        return pack

    def open(self, ref: str) -> Pack:
        """The pack of that name, or the one that lies in a folder elsewhere: a path with a slash in it."""
        return read_pack(Path(ref).expanduser()) if os.sep in ref else self.read(ref)

    def add(self, factors: Mapping[str, Factors], manifest: Manifest, *, replace: bool = False) -> Path:
        """Put a new pack into the store as a candidate and return its folder.

        replace: an earlier pack of the name that was never worn makes room. Raises PlasticError if the
        name is taken.
        """
        name = manifest.name
        with self._locked():
            self._sweep()
            state = self._state()
            folder = self.folder(name)
            if folder.exists() or name in state.digests:
                self._make_room(name, state, replace)
            # the mark goes first: a crash in between leaves a name with no folder, which is nothing
            if name in state.marks or name in state.verdicts:
                self._write(_forget(state, name))
            write_pack(folder, factors, manifest)
        log.info(
            "pack %s: %d modules, rank %s, alpha %s, dropout %s, %.2f MB, candidate",
            name,
            len(factors),
            _range(manifest.rank_map.values()),
            _range(manifest.alpha_map.values()),
            manifest.training.get("dropout", 0.0),
            manifest.sizes.tensor_bytes / 1e6,
        )
        return folder

    def require_free(self, name: str) -> None:
        """Raises PlasticError if `add` would: to be asked before hours are spent on a pack of that name."""
        state = self._state()
        if self.folder(name).exists() or name in state.digests:
            raise _taken(name, state)

    def _make_room(self, name: str, state: State, replace: bool) -> None:
        if not replace or name in state.digests:
            raise _taken(name, state)
        gone = self.home.packs / f".{name}.{os.getpid()}.part"
        os.replace(self.folder(name), gone)
        shutil.rmtree(gone)

    def record(self, name: str, evals: Mapping[str, Any]) -> Manifest:
        """Write eval results into the pack's manifest; its tensors stay as they are."""
        with self._locked():
            folder = self._require(name)
            manifest = dataclasses.replace(read_manifest(folder), evals=dict(evals))
            # beside the folder, not in it: a crash must not leave a foreign file in a sound pack
            beside = self.home.packs / f".{name}.{os.getpid()}.part"
            write_json(beside, dataclasses.asdict(manifest))
            os.replace(beside, folder / MANIFEST)
            sync_folder(folder)
        return manifest

    def plan_activate(self, name: str, *, force: bool = False) -> Change:
        """What `activate` would do, with all its checks. Raises PackNotFound, BadPack or PlasticError."""
        state = self._state()
        self._wearable(name, state, force=force)
        return Change("activate", state.worn, (name,), _now())

    def _wearable(self, name: str, state: State, *, force: bool) -> None:
        self.read(name)
        if state.status(name) == "quarantined" and not force:
            raise PlasticError(
                f"pack {name!r} is quarantined",
                hint=f"see why: plastic packs inspect {name}; to wear it all the same: "
                f"plastic packs activate {name} --force",
            )

    def activate(self, name: str, *, force: bool = False) -> Change:
        """Wear this pack; the one before it is retired. A quarantined pack needs `force`."""
        with self._locked():
            change = self.plan_activate(name, force=force)
            state = self._state()
            if change.now != change.before:
                self._write(_changed(state, change, (*state.trail, change.now), self._digests(change.now)))
        log.info("wearing %s, before it %s", change.name, change.name_before)
        return change

    def quarantine(self, name: str, verdict: Mapping[str, Any]) -> None:
        """Set a pack apart with the verdict that failed it; if it is worn, go back to what was before it."""
        with self._locked():
            self._require(name)
            state = self._state()
            trail = _without(state.trail, name)
            if name in state.worn:
                state = _changed(state, Change("rollback", state.worn, trail[-1], _now()), trail, {})
            self._write(
                dataclasses.replace(
                    state,
                    trail=trail,
                    marks=state.marks | {name: "quarantined"},
                    verdicts=state.verdicts | {name: dict(verdict)},
                )
            )
        log.info("pack %s is quarantined", name)

    def plan_rollback(self, tag: str | None = None) -> Change:
        """What `rollback` would do. Raises PackNotFound if there is nothing to go back to."""
        state = self._state()
        target = _target(state, tag)
        for name in target:
            self._wearable(name, state, force=False)
        return Change("rollback", state.worn, target, _now())

    def rollback(self, tag: str | None = None) -> Change:
        """Wear again what was worn before the present pack, or TAG; "base" is the bare base.

        Each rollback without a tag goes one step further back. The packs left behind are retired, not
        deleted. Raises PackNotFound, or BadPack if what to go back to is damaged.
        """
        with self._locked():
            change = self.plan_rollback(tag)
            state = self._state()
            if change.now != change.before:
                trail = _shortened(state.trail, change.now)
                self._write(_changed(state, change, trail, self._digests(change.now)))
        log.info("back to %s from %s", change.name, change.name_before)
        return change

    def _digests(self, worn: Worn) -> dict[str, str]:
        return {name: read_manifest(self.folder(name)).sha256 for name in worn}

    def _require(self, name: str) -> Path:
        folder = self.folder(name)
        if not folder.is_dir():
            near = difflib.get_close_matches(name, self.names(), n=1)
            raise PackNotFound(
                f"no pack {name!r} in {self.home.packs}",
                hint=f"did you mean {near[0]!r}?" if near else "see which there are: plastic packs list",
            )
        return folder

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with locked(self.home, "packs", hint="wait for the other command to end", wait_s=WAIT_S):
            self.home.packs.mkdir(parents=True, exist_ok=True)
            yield

    def _sweep(self) -> None:
        """Remove what a crash left half written; we hold the lock, so nobody is writing it now."""
        for leftover in self.home.packs.glob(".*.part"):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    def _state(self) -> State:
        try:
            return _parse_state(json.loads(self.state_file.read_text("utf-8")))
        except FileNotFoundError:
            return State()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PlasticError(
                f"{self.state_file} cannot be read: {type(error).__name__}",
                hint="move it away: the bare base is worn then, and every pack is a candidate again",
            ) from error

    def _write(self, state: State) -> None:
        write_json(self.state_file, {"format_version": STATE_VERSION, **dataclasses.asdict(state)})


def _taken(name: str, state: State) -> PlasticError:
    return PlasticError(
        f"there is a pack {name!r} already ({state.status(name)})",
        hint="choose another name; a pack that was worn is never replaced",
    )


def _parse_state(value: Any) -> State:
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
    )


def _changed(state: State, change: Change, trail: tuple[Worn, ...], digests: Mapping[str, str]) -> State:
    """The state after `change`: what is no longer worn is retired, unless it is quarantined."""
    marks = {name: mark for name, mark in state.marks.items() if name not in change.now}
    marks |= {name: "retired" for name in change.before if name not in change.now}
    return State(
        trail=trail,
        marks=marks,
        verdicts={name: v for name, v in state.verdicts.items() if name not in change.now},
        digests={**state.digests, **digests},
        history=(*state.history, change),
    )


def _forget(state: State, name: str) -> State:
    return dataclasses.replace(
        state,
        marks={n: mark for n, mark in state.marks.items() if n != name},
        verdicts={n: verdict for n, verdict in state.verdicts.items() if n != name},
    )


def _target(state: State, tag: str | None) -> Worn:
    if tag == BARE:
        return ()
    if tag is not None:
        return (check_name(tag),)
    if len(state.trail) < 2:
        raise PackNotFound(
            f"nothing was worn before {worn_name(state.worn)}", hint="see what there is: plastic packs list"
        )
    return state.trail[-2]


def _shortened(trail: tuple[Worn, ...], target: Worn) -> tuple[Worn, ...]:
    """The trail back to where `target` was last worn before now; one step longer if it never was."""
    for i in range(len(trail) - 2, -1, -1):
        if trail[i] == target:
            return trail[: i + 1]
    return (*trail, target)


def _without(trail: tuple[Worn, ...], name: str) -> tuple[Worn, ...]:
    """The trail as if `name` had never been worn."""
    kept: list[Worn] = []
    for worn in ((), *trail):  # it begins at the bare base
        if name not in worn and kept[-1:] != [worn]:
            kept.append(worn)
    return tuple(kept)


def _range(values: Any) -> str:
    found = sorted(set(values))
    return f"{found[0]:g}" if len(found) == 1 else f"{found[0]:g}-{found[-1]:g}" if found else "-"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
