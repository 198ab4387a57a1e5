"""The night: gather -> learn -> judge -> conclude.

Every stage is written to the night's folder before the next begins, so a night that was killed goes on where
it stopped, and the pack that was worn stays worn until the very last step.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from mlx_plastic.home import Home, locked
from mlx_plastic.memory import Exchange, Memory
from mlx_plastic.packs import BARE
from mlx_plastic.samples import Part, Sample
from mlx_plastic.sleep.config import NightConfig, Settings, fitted, parse_settings, read_settings
from mlx_plastic.sleep.doors import PARTS, Doors, Tick, read_samples
from mlx_plastic.sleep.fit import within
from mlx_plastic.sleep.gather import counts, gather, routes_of
from mlx_plastic.sleep.journal import Journal, Record, free_tag, next_number, nights, now
from mlx_plastic.sleep.learn import learn
from mlx_plastic.sleep.preflight import require_room
from mlx_plastic.sleep.result import Night
from mlx_plastic.sleep.stop import Stop, Stopped
from mlx_plastic.sleep.verdict import conclude, judge
from mlx_plastic.sleep.versions import tidy

if TYPE_CHECKING:
    from mlx_plastic.base import Base

__all__ = ["Night", "NightConfig", "Settings", "Stop", "Tick", "read_settings", "sleep"]

log = logging.getLogger(__name__)

LOCKED = "wait for the running night to end"


@dataclass(frozen=True)
class Asked:
    """What is wanted of one night, beside the settings. See `sleep`."""

    tag: str | None = None
    dry_run: bool = False
    reset: bool = False
    retry: bool = False
    resume: bool = False


def sleep(
    home: Home,
    base: Base,
    *,
    chosen: Settings | None = None,
    tag: str | None = None,
    dry_run: bool = False,
    reset_adapter: bool = False,
    retry: bool = False,
    resume: bool = False,
    adapter_tag: str | None = None,
    stop: Stop | None = None,
    tick: Tick | None = None,
) -> Night:
    """Learn what was said since the last night, and wear it only if the gate lets it pass.

    The base must be bare. tag: the night's and its pack's name; the date by default. dry_run: write the data
    and train nothing. reset_adapter: start from the bare base, not from the pack worn now. retry: take also
    turns of nights that failed or were rolled back. adapter_tag: grow from this pack instead of the one worn
    ("base": from none). stop: ends it at a good place when asked, to go on later.

    A night that was broken off goes on, if the base, the pack worn and the settings are still the same; else
    it is given up and a new one begins. resume: do nothing but that, with the settings that it began with.
    Raises Busy if a night is running already, and whatever the rooms below raise; then nothing is worn anew.
    """
    settings_ = chosen or read_settings(home)
    settings_.budget.check()
    asked = Asked(tag, dry_run, reset_adapter, retry, resume)
    stop = stop or Stop(minutes=settings_.budget.minutes)
    with locked(home, "night", hint=LOCKED), Memory(home) as memory:
        settings_ = dataclasses.replace(settings_, night=_fitted(settings_, base))
        worn = None if adapter_tag is None else tuple(name for name in (adapter_tag,) if name != BARE)
        doors = Doors(home, base, memory, settings_, tick or (lambda *_: None), worn=worn, stop=stop)
        try:
            return _night(doors, asked)
        except Stopped as stopped:
            return _broken(doors, stopped.reason)


def _fitted(chosen: Settings, base: Base) -> NightConfig:
    found, most = fitted(chosen.night, base), chosen.budget.memory_mb
    return within(found, base, most) if most else found


def _night(doors: Doors, asked: Asked) -> Night:
    doors.store.publish()  # a crash may have come between the pack worn and the link to it
    with doors.wearing(doors.worn):
        pass  # a pack of another base is told now, not after hours of training
    journal = None if asked.dry_run else broken_off(doors, asked)
    if journal is None and asked.resume:
        given_up = "; ".join(doors.given_up)
        return Night("nothing", reason=given_up or "no night was broken off: there is nothing to go on with")
    if journal is None:
        exchanges = _collected(doors, asked.retry)
        if not any(t.id in e.new and t.role == "user" for e in exchanges for t in e.turns):
            return Night("nothing", reason="nothing new was said since the last night")
        require_room(doors)
        journal = _new(doors, asked, exchanges)
    elif not journal.has("lessons"):
        exchanges = _same(doors.memory, set(journal.record.turns))
    if not journal.has("lessons"):
        gather(doors, journal, exchanges)
    return go_on(doors, journal)


def go_on(doors: Doors, journal: Journal) -> Night:
    """The stages behind the lessons, as far as they are not done; the end of every night."""
    parts = {part: read_samples(journal, f"{part}.jsonl") for part in PARTS}
    routes = routes_of(journal)
    if not parts["train"] or not parts["test"]:
        journal.close("abandoned")
        return Night("nothing", journal.record.tag, _too_little(parts), counts(parts), routes=routes)
    if journal.record.status == "dry-run":
        where = f"the data is in {journal.folder}"
        return Night("dry-run", journal.record.tag, where, counts(parts), routes=routes)
    if not (journal.has("train") and doors.has_candidate(journal)):
        learn(doors, journal, parts)
    if not journal.has("judge"):
        judge(doors, journal, parts)
    with doors.stop.held():  # it takes a moment, and whoever asks to stop wants to know the outcome
        night = conclude(doors, journal, parts)
        tidy(doors)
    return night


def _broken(doors: Doors, reason: str) -> Night:
    """What is told of a night that was stopped before its end."""
    running = [j for j in nights(doors.home) if j.record.status == "running"]
    if not running:
        return Night("stopped", reason=f"{reason}; nothing was begun")
    journal = running[-1]
    done = ", ".join(journal.record.stages) or "nothing yet"
    told = f"{reason}; done: {done}; the next night goes on from there"
    log.info("night %s stopped: %s", journal.record.tag, reason)
    return Night("stopped", journal.record.tag, told, seconds=journal.seconds)


def broken_off(doors: Doors, asked: Asked, *, rebuilds: str = "") -> Journal | None:
    """The night that did not come to its end, if it can still go on; others are given up and cleaned up.

    What it grows from, and with `resume` its settings, are taken from its record.
    """
    for journal in nights(doors.home):
        record = journal.record
        if record.status != "running" or record.rebuilds != rebuilds:
            continue
        if why := _obstacle(doors, record, asked):
            doors.given_up.append(f"night {record.tag} was broken off and cannot go on: {why}; cleaned up")
            log.info("%s", doors.given_up[-1])
            doors.drop_candidate(journal)
            journal.discard()
            continue
        if asked.resume:
            doors.chosen = parse_settings(record.settings, doors.chosen.budget)
        doors.worn = record.worn_before
        log.info("night %s was broken off; it goes on", record.tag)
        return journal
    return None


def _obstacle(doors: Doors, record: Record, asked: Asked) -> str:
    """Why a night that was broken off cannot go on; empty: it can."""
    active, before = doors.store.active(), record.active_before
    if active == (record.tag,) and "judge" in record.stages:
        return ""  # killed between wearing its pack and noting it
    if record.base_fingerprint != doors.base.fingerprint:
        return "it began on another base"
    if active != (record.worn_before if before is None else before):
        return "another pack is worn since"
    if asked.resume:
        return ""
    if record.worn_before != doors.worn or record.warm_start == asked.reset:
        return "it grew from another pack than is wanted now"
    return "" if record.settings == doors.chosen.deciding() else "the settings were changed since"


def _collected(doors: Doors, retry: bool) -> list[Exchange]:
    """What no passed night has learned, up to the budget; without `retry` not what a failed night tried."""
    most = doors.chosen.budget.turns
    if retry:
        family = doors.ancestors()
        for journal in doors.past:
            if journal.record.status == "passed" and journal.record.tag not in family:
                doors.memory.unlearn(journal.record.tag)
        return doors.memory.unlearned(most=most)
    tried = {t for j in doors.past if j.record.status == "failed" for t in j.record.turns}
    return doors.memory.unlearned(most=most, without=tried)


def _same(memory: Memory, turns: set[str]) -> list[Exchange]:
    """Only what the night began with: what was said since then waits for the next one."""
    found = []
    for e in memory.unlearned(only=turns):
        last = max(i for i, turn in enumerate(e.turns) if turn.id in turns)
        found.append(dataclasses.replace(e, turns=e.turns[: last + 1]))
    return found


def _new(doors: Doors, asked: Asked, exchanges: list[Exchange]) -> Journal:
    name = free_tag(doors.home, asked.tag, set(doors.store.names()), date.today().isoformat())
    record = Record(
        tag=name,
        status="dry-run" if asked.dry_run else "running",
        started=now(),
        base_id=doors.base.ref,
        base_fingerprint=doors.base.fingerprint,
        worn_before=doors.worn,
        active_before=doors.store.active(),
        warm_start=not asked.reset,
        settings=doors.chosen.deciding(),
        turns=tuple(sorted(t for e in exchanges for t in e.new)),
        number=next_number(doors.home),
    )
    journal = Journal(doors.home.nights / (f"{name}.dry-run" if asked.dry_run else name), record)
    journal.save()
    return journal


def _too_little(parts: dict[Part, list[Sample]]) -> str:
    found = sum(len(samples) for samples in parts.values())
    return f"{found} samples are too little, for one must be held out; what was said waits for the next night"
