"""The packs of one home: which there are, which is worn, what was worn before, and the way back.

All decisions live in one small file, `packs/state.json`, replaced whole under a lock; pack folders never
change once they are there, save the eval results in a manifest and a signature that is added. So whatever is
killed in the middle leaves the active set as it was, and a folder that the state does not know yet is simply
a candidate.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_plastic.errors import BadPack, BaseMismatch, PackNotFound, PlasticError, Quarantined, Taken
from mlx_plastic.home import Home, locked, sync_folder, write_json
from mlx_plastic.packs.format.manifest import checked_bytes
from mlx_plastic.packs.format.pack import (
    MANIFEST,
    Factors,
    Manifest,
    Pack,
    check_name,
    put_file,
    read_files,
    read_manifest,
    read_pack,
    write_files,
    write_pack,
)
from mlx_plastic.packs.format.sign import SIGNATURE, Signature, sign, signature_bytes
from mlx_plastic.packs.store import link, shelf
from mlx_plastic.packs.store.gc import DAYS, KEEP, Fate, fates
from mlx_plastic.packs.store.state import (
    BARE,
    Change,
    Removed,
    State,
    Status,
    Worn,
    changed,
    ending_in,
    forgotten,
    now,
    parse_state,
    shortened,
    state_value,
    target,
    without,
    worn_name,
)

__all__ = ["BARE", "Change", "Entry", "Fate", "Status", "Store", "Worn", "worn_name"]

log = logging.getLogger(__name__)

WAIT_S = 10.0  # for another command's short write


@dataclass(frozen=True)
class Entry:
    """One pack of the store, as a list shows it. manifest is None, and fault says why, if it is broken."""

    name: str
    status: Status
    manifest: Manifest | None
    verdict: dict[str, Any] | None = None  # why it is quarantined
    fault: str = ""
    pinned: bool = False
    signed: bool = False  # there is a signature; whether it is genuine `verify` says


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
        return shelf.folders(self.home.packs)

    def entries(self) -> list[Entry]:
        """Every pack with its status; a broken one is listed with its fault."""
        state = self._state()
        return [self._entry(name, state) for name in self.names()]

    def _entry(self, name: str, state: State) -> Entry:
        manifest, fault, signed = None, "", False
        try:
            manifest = read_manifest(self.folder(name))
            signed = (self.folder(name) / SIGNATURE).exists()
        except BadPack as error:
            fault = error.message
        pinned = name in state.pins
        return Entry(name, state.status(name), manifest, state.verdicts.get(name), fault, pinned, signed)

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

    def ancestors(self, names: Iterable[str]) -> set[str]:
        """These packs and all they grew from, by name, also those that were removed."""
        state, found, todo = self._state(), set[str](), list(names)
        while todo:
            if (name := todo.pop()) not in found:
                found.add(name)
                todo += self._parents(name, state)
        return found

    def _parents(self, name: str, state: State) -> tuple[str, ...]:
        try:
            return read_manifest(self.folder(name)).parents
        except BadPack:
            return state.removed[name].parents if name in state.removed else ()

    def open(self, ref: str) -> Pack:
        """The pack of that name, or the one that lies in a folder elsewhere: a path with a slash in it."""
        return read_pack(Path(ref).expanduser()) if os.sep in ref else self.read(ref)

    def add(self, factors: Mapping[str, Factors], manifest: Manifest, *, replace: bool = False) -> Path:
        """Put a new pack into the store as a candidate and return its folder.

        replace: an earlier pack of the name that was never worn makes room. Raises Taken if the
        name is.
        """
        with self._room(manifest.name, replace=replace) as folder:
            write_pack(folder, factors, manifest)
        _tell(manifest, len(factors))
        return folder

    def take(
        self,
        folder: Path,
        name: str | None = None,
        *,
        check: Callable[[Pack], None] | None = None,
        dry_run: bool = False,
    ) -> Manifest:
        """Copy a pack that lies elsewhere into the store, as a candidate: the very bytes that were verified.

        name: another than its own; the manifest is written anew then, and nothing else. check: raises if the
        pack is not to be taken. Raises BadPack, or Taken if the name is.
        """
        pack, files = read_files(folder)
        if check is not None:
            check(pack)
        manifest, given = pack.manifest, files.named
        if name is not None and name != manifest.name:
            manifest = dataclasses.replace(manifest, name=check_name(name))
            given[MANIFEST] = checked_bytes(manifest)
        if dry_run:
            self.require_free(manifest.name)
            return manifest
        with self._room(manifest.name) as place:
            write_files(place, given)
        _tell(manifest, len(pack.factors))
        return manifest

    @contextmanager
    def _room(self, name: str, *, replace: bool = False) -> Iterator[Path]:
        """Where a new pack of that name is to be written, under the lock."""
        with self._locked():
            shelf.sweep(self.home.packs)
            state = self._state()
            folder = self.folder(name)
            if folder.exists() or name in state.digests:
                self._make_room(name, state, replace)
            # the mark goes first: a crash in between leaves a name with no folder, which is nothing
            if forgotten(state, name) != state:
                self._write(forgotten(state, name))
            yield folder

    def require_free(self, name: str) -> None:
        """Raises Taken if `add` would: to be asked before hours are spent on a pack of that name."""
        state = self._state()
        if self.folder(name).exists() or name in state.digests:
            raise _taken(name, state)

    def _make_room(self, name: str, state: State, replace: bool) -> None:
        if not replace or name in state.digests or name in state.pins:
            raise _taken(name, state)
        shelf.delete(shelf.set_aside(self.folder(name)))

    def record(self, name: str, evals: Mapping[str, Any]) -> Manifest:
        """Write eval results into the pack's manifest; its tensors stay, and a signature stays true.

        Raises ValueError for results that no manifest can hold.
        """
        with self._locked():
            folder = self._require(name)
            manifest = dataclasses.replace(read_manifest(folder), evals=dict(evals))
            put_file(folder, MANIFEST, checked_bytes(manifest))
        return manifest

    def sign(self, ref: str, key_file: Path, *, dry_run: bool = False) -> Signature:
        """Sign a pack of the store or one in a folder elsewhere, after verifying it; an older signature goes.

        Raises PackNotFound, BadPack, or PlasticError for a key of no use.
        """
        with self._locked():
            signature = sign(self.open(ref).manifest, key_file)
            folder = Path(ref).expanduser() if os.sep in ref else self.folder(ref)
            if not dry_run:
                put_file(folder, SIGNATURE, signature_bytes(signature))
                log.info("pack %s signed by %s", signature.name, signature.public_key[:16])
        return signature

    def plan_pins(self, *names: str, pinned: bool) -> tuple[str, ...]:
        """Every pin there will be once these packs are pinned, or no longer. Raises PackNotFound."""
        pins = self._state().pins
        for name in names:
            if pinned or name not in pins:  # a pin may outlive its pack
                self._require(name)
        others = tuple(n for n in pins if n not in names)
        return (*others, *dict.fromkeys(names)) if pinned else others

    def pin(self, *names: str, pinned: bool = True) -> tuple[str, ...]:
        """Never let `gc` remove these packs, or (pinned false) let it judge them again; returns every pin."""
        with self._locked():
            state, pins = self._state(), self.plan_pins(*names, pinned=pinned)
            if set(pins) != set(state.pins):
                self._write(dataclasses.replace(state, pins=pins))
        return pins

    def plan_gc(self, *, keep: int = KEEP, days: float = DAYS) -> list[Fate]:
        """What `gc` would keep and remove, and why. days: how old a pack must be that was never worn.

        The age of a pack is that of its folder: since when it is in this store, whatever it says of itself.
        """
        names = shelf.own(self.home.packs)
        ages = {name: shelf.age_days(self.folder(name)) for name in names}
        sizes = {name: shelf.size(self.folder(name)) for name in names}
        return fates(self._state(), ages, sizes, keep=keep, days=days)

    def plan_remove(self, *names: str) -> list[Fate]:
        """What `remove` would do. Raises PackNotFound or PlasticError if it would."""
        state = self._state()
        self._removable(names, state)
        return [Fate(n, False, state.status(n), shelf.size(self.folder(n))) for n in dict.fromkeys(names)]

    def _removable(self, names: Sequence[str], state: State) -> None:
        for name in names:
            self._require(name)
            if name in state.worn:
                raise PlasticError(f"pack {name!r} is worn", hint="wear another first: plastic rollback")
            if name in state.pins:
                raise PlasticError(f"pack {name!r} is pinned", hint=f"first: plastic packs unpin {name}")

    def remove(self, *names: str) -> None:
        """Delete packs that are neither worn nor pinned. What was worn when stays in the history.

        Each leaves the store by one rename before its files are deleted, so a crash leaves it whole or gone.
        Raises PackNotFound or PlasticError before anything is removed.
        """
        with self._locked():
            shelf.sweep(self.home.packs)
            state = self._state()
            self._removable(names, state)
            # the note goes first: of what is there in spite of it nobody asks for the note
            gone = {name: Removed(now(), self._parents(name, state)) for name in names}
            self._write(dataclasses.replace(state, removed=state.removed | gone))
            aside = [shelf.set_aside(self.folder(name)) for name in gone]
            sync_folder(self.home.packs)
            for folder in aside:
                shelf.delete(folder)
        log.info("removed %d packs: %s", len(names), ", ".join(names))

    def plan_activate(self, *names: str, force: bool = False) -> Change:
        """What `activate` would do, with all its checks.

        Raises PackNotFound, BadPack, PlasticError, or BaseMismatch for packs of different bases.
        """
        if not names or len(set(names)) < len(names):
            raise PlasticError(f"to wear {worn_name(names)!r}", hint="name one pack or several, each once")
        state = self._state()
        bases = {name: self._wearable(name, state, force=force).base_fingerprint for name in names}
        if len(set(bases.values())) > 1:
            raise BaseMismatch(
                "these packs learned on different bases: "
                + ", ".join(f"{n} {b[:12]}" for n, b in bases.items()),
                hint="wear packs of one base together",
            )
        return Change("activate", state.worn, names, now())

    def _wearable(self, name: str, state: State, *, force: bool) -> Manifest:
        pack = self.read(name)
        if state.status(name) == "quarantined" and not force:
            raise Quarantined(
                f"pack {name!r} is quarantined",
                hint=f"see why: plastic packs inspect {name}; to wear it all the same: "
                f"plastic packs activate {name} --force",
            )
        return pack.manifest

    def activate(self, *names: str, force: bool = False) -> Change:
        """Wear this pack, or these together; what was worn before is retired.

        A quarantined one needs `force`. Raises as `plan_activate`.
        """
        with self._locked():
            change, state = self.plan_activate(*names, force=force), self._state()
            self._wear(change, state, (*state.trail, change.now))
        log.info("wearing %s, before it %s", change.name, change.name_before)
        return change

    def quarantine(self, name: str, verdict: Mapping[str, Any]) -> None:
        """Set a pack apart with the verdict that failed it; if it is worn, go back to what was before it.

        What was before it may have left the store: then to the last that is there.
        """
        with self._locked():
            self._require(name)
            state = self._state()
            trail = without(state.trail, name)
            if name in state.worn:
                trail = ending_in(trail, self.names())
                state = changed(state, Change("rollback", state.worn, trail[-1], now()), trail, {})
            self._write(
                dataclasses.replace(
                    state,
                    trail=trail,
                    marks=state.marks | {name: "quarantined"},
                    verdicts=state.verdicts | {name: dict(verdict)},
                )
            )
            self._publish(state.worn)
        log.info("pack %s is quarantined", name)

    def plan_rollback(self, tag: str | None = None) -> Change:
        """What `rollback` would do. Raises PackNotFound if there is nothing to go back to, or no more."""
        state = self._state()
        wanted = target(state, tag)
        if tag is None and (lost := sorted(set(wanted) - set(self.names()))):
            raise self._lost(lost, state)
        for name in wanted:
            self._wearable(name, state, force=False)
        return Change("rollback", state.worn, wanted, now())

    def _lost(self, lost: Sequence[str], state: State) -> PackNotFound:
        there = set(self.names())
        back = [worn_name(worn) for worn in reversed(state.trail[:-2]) if worn and there.issuperset(worn)]
        when = "".join(f", {name} removed {state.removed[name].at}" for name in lost if name in state.removed)
        return PackNotFound(
            f"before {worn_name(state.worn)} was worn {worn_name(state.trail[-2])}, "
            f"which is no longer in the store{when}",
            hint=f"further back: plastic rollback {back[0] if back else BARE}",
        )

    def rollback(self, tag: str | None = None) -> Change:
        """Wear again what was worn before the present pack, or TAG; "base" is the bare base.

        Each rollback without a tag goes one step further back. The packs left behind are retired, not
        deleted. Raises PackNotFound, or BadPack if what to go back to is damaged.
        """
        with self._locked():
            change, state = self.plan_rollback(tag), self._state()
            self._wear(change, state, shortened(state.trail, change.now))
        log.info("back to %s from %s", change.name, change.name_before)
        return change

    def _wear(self, change: Change, state: State, trail: tuple[Worn, ...]) -> None:
        if change.now != change.before:
            digests = {name: read_manifest(self.folder(name)).sha256 for name in change.now}
            self._write(changed(state, change, trail, digests))
        self._publish(change.now)

    def publish(self) -> Path | None:
        """Make `adapters/nightly_update` lead to what is worn, as every change of it does; returns the link.

        To be called after a crash: what is worn was decided then, and the link may not have followed.
        """
        with self._locked():
            return self._publish(self._state().worn)

    def _publish(self, worn: Worn) -> Path | None:
        try:
            packs = [self.read(name) for name in worn]
        except (BadPack, PackNotFound):  # whoever wears it is told; the link must not lead to an older one
            packs = []
        return link.publish(self.home, packs)

    def _require(self, name: str) -> Path:
        folder = self.folder(name)
        if not folder.is_dir():
            if gone := self._state().removed.get(name):
                raise PackNotFound(
                    f"pack {name!r} was removed from the store on {gone.at}",
                    hint="see which there are: plastic packs list",
                )
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

    def _state(self) -> State:
        try:
            return parse_state(json.loads(self.state_file.read_text("utf-8")))
        except FileNotFoundError:
            return State()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PlasticError(
                f"{self.state_file} cannot be read: {type(error).__name__}",
                hint="move it away: the bare base is worn then, and every pack is a candidate again",
            ) from error

    def _write(self, state: State) -> None:
        write_json(self.state_file, state_value(state))


def _taken(name: str, state: State) -> Taken:
    gone = state.removed.get(name)
    return Taken(
        f"there was a pack {name!r}, removed {gone.at}"
        if gone
        else f"there is a pack {name!r} already ({state.status(name)})",
        hint="choose another name; a pack that was worn is never replaced",
    )


def _tell(manifest: Manifest, modules: int) -> None:
    log.info(
        "pack %s: %d modules, rank %s, alpha %s, dropout %s, %.2f MB, candidate",
        manifest.name,
        modules,
        _range(manifest.rank_map.values()),
        _range(manifest.alpha_map.values()),
        manifest.training.get("dropout", 0.0),
        manifest.sizes.tensor_bytes / 1e6,
    )


def _range(values: Any) -> str:
    found = sorted(set(values))
    return f"{found[0]:g}" if len(found) == 1 else f"{found[0]:g}-{found[-1]:g}" if found else "-"
