"""The night: gather -> learn -> judge -> conclude.

Every stage is written to the night's folder before the next begins, so a night that was killed goes on where
it stopped, and the pack that was worn stays worn until the very last step.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING

from mlx_plastic.home import Home, locked
from mlx_plastic.memory import Exchange, Memory
from mlx_plastic.samples import Part, Sample
from mlx_plastic.sleep.config import NightConfig, Settings, fitted, read_settings
from mlx_plastic.sleep.doors import PARTS, Doors, Tick, read_samples
from mlx_plastic.sleep.gather import counts, gather, routes_of
from mlx_plastic.sleep.journal import Journal, Record, free_tag, nights, now
from mlx_plastic.sleep.learn import learn
from mlx_plastic.sleep.result import Night
from mlx_plastic.sleep.verdict import conclude, judge

if TYPE_CHECKING:
    from mlx_plastic.base import Base

__all__ = ["Night", "NightConfig", "Settings", "Tick", "read_settings", "sleep"]

log = logging.getLogger(__name__)


def sleep(
    home: Home,
    base: Base,
    *,
    chosen: Settings | None = None,
    tag: str | None = None,
    dry_run: bool = False,
    reset_adapter: bool = False,
    retry: bool = False,
    tick: Tick | None = None,
) -> Night:
    """Learn what was said since the last night, and wear it only if the gate lets it pass.

    The base must be bare. tag: the night's and its pack's name; the date by default. dry_run: write the data
    and train nothing. reset_adapter: start from the bare base, not from the pack worn now. retry: take also
    turns of nights that failed or were rolled back. A night that was broken off goes on, if the base and the
    pack worn are still the same; else it is given up and a new one begins.
    Raises Busy if a night is running already, and whatever the rooms below raise; then nothing is worn anew.
    """
    with locked(home, "night", hint="wait for the running night to end"), Memory(home) as memory:
        settings_ = chosen or read_settings(home)
        settings_ = dataclasses.replace(settings_, night=fitted(settings_.night, base))
        doors = Doors(home, base, memory, settings_, tick or (lambda *_: None))
        return _night(doors, tag=tag, dry_run=dry_run, reset=reset_adapter, retry=retry)


def _night(doors: Doors, *, tag: str | None, dry_run: bool, reset: bool, retry: bool) -> Night:
    with doors.wearing(doors.worn):
        pass  # a pack of another base is told now, not after hours of training
    journal = None if dry_run else _broken_off(doors, reset)
    if journal is None:
        exchanges = _collected(doors, retry)
        if not any(t.id in e.new and t.role == "user" for e in exchanges for t in e.turns):
            return Night("nothing", reason="nothing new was said since the last night")
        journal = _new(doors, tag, dry_run=dry_run, reset=reset)
        gather(doors, journal, exchanges)
    elif not journal.has("lessons"):
        gather(doors, journal, _collected(doors, retry))
    parts = {part: read_samples(journal, f"{part}.jsonl") for part in PARTS}
    routes = routes_of(journal)
    if not parts["train"] or not parts["test"]:
        journal.close("abandoned")
        return Night("nothing", journal.record.tag, _too_little(parts), counts(parts), routes=routes)
    if dry_run:
        where = f"the data is in {journal.folder}"
        return Night("dry-run", journal.record.tag, where, counts(parts), routes=routes)
    if not journal.has("train"):
        learn(doors, journal, parts)
    if not journal.has("judge"):
        judge(doors, journal, parts)
    return conclude(doors, journal, parts)


def _broken_off(doors: Doors, reset: bool) -> Journal | None:
    """The night that did not come to its end, if it can still go on; others are given up."""
    for journal in nights(doors.home):
        record = journal.record
        if record.status != "running":
            continue
        same = record.base_fingerprint == doors.base.fingerprint and record.worn_before == doors.worn
        decided = journal.has("judge") and doors.worn == (
            record.tag,
        )  # killed between activating and noting it
        if (same and record.warm_start == (not reset) and record.settings == asdict(doors.chosen)) or decided:
            log.info("night %s was broken off; it goes on", record.tag)
            return journal
        log.info("night %s was broken off and cannot go on; it is given up", record.tag)
        journal.close("abandoned")
    return None


def _collected(doors: Doors, retry: bool) -> list[Exchange]:
    """What no passed night has learned; without `retry` also not what a failed night tried."""
    if retry:
        family = doors.ancestors()
        for journal in doors.past:
            if journal.record.status == "passed" and journal.record.tag not in family:
                doors.memory.unlearn(journal.record.tag)
        return doors.memory.unlearned()
    tried = {t for j in doors.past if j.record.status == "failed" for t in j.record.turns}
    exchanges = (dataclasses.replace(e, new=e.new - tried) for e in doors.memory.unlearned())
    return [e for e in exchanges if e.new]


def _new(doors: Doors, tag: str | None, *, dry_run: bool, reset: bool) -> Journal:
    name = free_tag(doors.home, tag, set(doors.store.names()), date.today().isoformat())
    record = Record(
        tag=name,
        status="dry-run" if dry_run else "running",
        started=now(),
        base_id=doors.base.ref,
        base_fingerprint=doors.base.fingerprint,
        worn_before=doors.worn,
        warm_start=not reset,
        settings=asdict(doors.chosen),
    )
    return Journal(doors.home.nights / (f"{name}.dry-run" if dry_run else name), record)


def _too_little(parts: dict[Part, list[Sample]]) -> str:
    found = sum(len(samples) for samples in parts.values())
    return f"{found} samples are too little, for one must be held out; what was said waits for the next night"
