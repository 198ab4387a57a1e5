"""The stages of a night, in their order, and how one that was broken off goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from mlx_plastic.evals import near_miss
from mlx_plastic.samples import Part, Sample
from mlx_plastic.sleep.config import parse_settings
from mlx_plastic.sleep.doors import PARTS, Doors, read_samples
from mlx_plastic.sleep.gather import counts, routes_of
from mlx_plastic.sleep.journal import Journal, Record, free_tag, nights, now
from mlx_plastic.sleep.learn import learn
from mlx_plastic.sleep.result import Night
from mlx_plastic.sleep.verdict import conclude, drawn_anew, judge
from mlx_plastic.sleep.versions import tidy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """What is wanted of one night, beside the settings. See `sleep`."""

    tag: str | None = None
    dry_run: bool = False
    reset: bool = False
    retry: bool = False
    resume: bool = False


def begun(doors: Doors, asked: Asked, turns: Iterable[str], *, rebuilds: str = "") -> Journal:
    """A new night, on the disk from here on. Raises PlasticError if the tag asked for is taken."""
    past = nights(doors.home)
    name = free_tag(past, asked.tag, doors.store.names(), date.today().isoformat())
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
        turns=tuple(sorted(turns)),
        number=1 + max((j.record.number for j in past), default=0),
        rebuilds=rebuilds,
    )
    journal = Journal(doors.home.nights / (f"{name}.dry-run" if asked.dry_run else name), record)
    journal.save()
    return journal


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
    _learned_and_judged(doors, journal, parts)
    while _once_more(doors, journal):
        _learned_and_judged(doors, journal, parts)
    with doors.stop.held():  # it takes a moment, and whoever asks to stop wants to know the outcome
        night = conclude(doors, journal, parts)
        tidy(doors)
    return night


def _learned_and_judged(doors: Doors, journal: Journal, parts: dict[Part, list[Sample]]) -> None:
    if not (journal.has("train") and doors.has_candidate(journal)):
        learn(doors, journal, parts)
    if not journal.has("judge"):
        judge(doors, journal, parts)


def _once_more(doors: Doors, journal: Journal) -> bool:
    """Whether the night is to be trained again; then its record says so, and both stages are open."""
    verdict, *_ = drawn_anew(journal, doors)
    tried = len(journal.record.tried) + 1
    if tried >= doors.chosen.night.tries or not near_miss(verdict) or doors.enough():
        return False
    journal.reopen("; ".join(reason.text for reason in verdict.failures))
    log.info("night %s was refused by little and is trained once more", journal.record.tag)
    return True


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


def _too_little(parts: dict[Part, list[Sample]]) -> str:
    found = sum(len(samples) for samples in parts.values())
    return f"{found} samples are too little, for one must be held out; what was said waits for the next night"
