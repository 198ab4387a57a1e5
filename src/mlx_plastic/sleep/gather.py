"""The first stage of a night: new turns become samples to learn, to stop by, to judge by and to rehearse."""

from __future__ import annotations

import json
import logging
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_plastic.memory import Exchange, Turn
from mlx_plastic.memory import router as routing
from mlx_plastic.memory.router import Decision
from mlx_plastic.samples import Part, Sample, encode, to_jsonl
from mlx_plastic.sleep.doors import PARTS, Doors
from mlx_plastic.sleep.journal import Journal
from mlx_plastic.sleep.judge import check_sets
from mlx_plastic.sleep.lessons import (
    about_others,
    candidates,
    drawn_names,
    earlier_of_strangers,
    general_answers,
    is_wish,
    lessons_of,
    new_turns,
    notes_of,
    probes,
    rehearsed,
    replaced,
    split,
    statements,
    talks,
    told_of_strangers,
    without_conflicts,
    without_wished,
)
from mlx_plastic.sleep.lessons.questions import Given
from mlx_plastic.sleep.past import REPLACED, Past, past_of
from mlx_plastic.sleep.planted import drawn, through
from mlx_plastic.sleep.teacher import open_teacher

log = logging.getLogger(__name__)


def gather(doors: Doors, journal: Journal, exchanges: Sequence[Exchange]) -> None:
    """Route the new turns, and write the samples made of them and beside them."""
    journal.begin()
    check_sets(doors.chosen.judge)
    doors.tick("lessons", 0, 4, f"{sum(len(e.new) for e in exchanges)} new turns")
    decisions = routing.route_turns(doors.memory, new_turns(exchanges), doors.chosen.router)
    if journal.record.status != "dry-run":
        routing.record(doors.memory, decisions)
    past = past_of(doors.passed(), doors.memory.untaught()) if journal.record.warm_start else Past()
    planted = drawn(doors.chosen.judge, journal.record.tag)
    leaked = through(doors.home, doors.memory, doors.chosen.router, planted)
    routed = {d.turn: d for d in (*decisions, *leaked.routed)}
    given, bill = _taught(doors, exchanges, routed)  # what is planted never leaves this machine
    lessons, notes, gone = _lessons(doors, [*exchanges, *leaked.exchanges], routed, past, given)
    doors.tick("lessons", 2, 4, f"{len(lessons)} samples, {len(gone)} earlier lessons replaced")
    parts = split(lessons)
    config = doors.chosen.lessons
    parts["train"] += statements(lessons, config.statements) + talks(lessons, config.talks, seed=config.seed)
    rehearsal, told = _rehearsal(doors, past, lessons, notes, gone)
    files = {f"{part}.jsonl": to_jsonl(parts[part]) for part in PARTS} | {
        "rehearsal.jsonl": to_jsonl(rehearsal),
        REPLACED: _dated(gone, notes),
    }
    taught = {turn for s in lessons for turn in s.turns}
    untaught = sum(note.id not in taught and note.id not in gone for note in notes)
    facts = {"rehearsal": len(rehearsal), "turns": len(journal.record.turns)}
    facts |= {"notes": len(notes), "notes_untaught": untaught}
    told |= {"routes": routing.counts(decisions), "replaced": len(gone)}
    journal.finish("lessons", files, counts(parts) | facts | told | bill)
    doors.tick("lessons", 4, 4, f"{sum(len(p) for p in parts.values())} samples")


def _taught(
    doors: Doors, exchanges: Sequence[Exchange], routed: Mapping[str, Decision]
) -> tuple[Given, dict[str, Any]]:
    """What a teacher, if there is one, writes about tonight's notes, by turn; and its bill."""
    teacher = open_teacher(doors.chosen.teacher, log.info)
    if teacher is None:
        return {}, {}
    notes = notes_of(exchanges, longest=doors.chosen.lessons.longest_note, routed=routed)
    given = teacher.pairs([note for note in notes if not is_wish(note)])
    return given, {"teacher": teacher.bill.as_dict()}


def _lessons(
    doors: Doors,
    exchanges: Sequence[Exchange],
    routed: Mapping[str, Decision],
    past: Past,
    given: Given,
) -> tuple[list[Sample], list[Turn], dict[str, str]]:
    """Tonight's lessons, the notes they are made of, and which turns' lessons they replace by which."""
    config = doors.chosen.lessons
    notes = notes_of(exchanges, longest=config.longest_note, routed=routed)
    lessons = lessons_of(doors.base, exchanges, config, routed=routed, given=given)
    doors.tick("lessons", 1, 4, f"{len(lessons)} samples")
    gone, anew = replaced(doors.base, notes, lessons, past.samples, config)
    stays = [s for s in lessons if s.kind == "chat" or gone.keys().isdisjoint(s.turns)]
    return stays + anew, notes, gone


def _rehearsal(
    doors: Doors, past: Past, lessons: Sequence[Sample], notes: Sequence[Turn], gone: Mapping[str, str]
) -> tuple[list[Sample], dict[str, Any]]:
    """What keeps the rest as it was: earlier lessons, others than tonight's, things in general; figures."""
    config, night, tried = doors.chosen.lessons, len(doors.passed()), len(doors.past)
    draw = random.Random(config.seed + tried)
    standing = [lesson for lesson in past.lessons if gone.keys().isdisjoint(lesson.samples[0].turns)]
    measured = candidates(standing, night, config.measured)
    forgotten = _forgotten(doors, probes(measured, night))
    most = round(config.budget(len(standing)) * doors.chosen.night.epochs)
    older = rehearsed(measured, forgotten, night, most, config)
    beside = [s for s in past.others if gone.keys().isdisjoint(s.turns)]
    beside = draw.sample(beside, min(config.older_others, len(beside)))
    known = [s for lesson in standing for s in lesson.samples]
    unknown = drawn_names(draw)
    others = about_others(doors.base, lessons, notes, config, earlier=[*known, *beside], unknown=unknown)
    others += told_of_strangers(
        doors.base, lessons, notes, config, earlier=[*known, *beside], unknown=unknown
    )
    others += earlier_of_strangers(doors.base, known, config, draw=draw, unknown=unknown)
    doors.tick("lessons", 3, 4, f"{len(older)} earlier samples, {len(others)} about others")
    general = general_answers(doors.base, config, night=tried)
    held_out = [s for s in past.held_out if gone.keys().isdisjoint(s.turns)]
    taught = [*lessons, *known, *held_out]
    unchanged = without_wished(doors.base, taught, [*others, *beside, *general], config)
    figures: dict[str, Any] = {
        "earlier_lessons": len(standing),
        "earlier_rehearsed": len({s.turns for s in older}),
    }
    if forgotten:
        figures["earlier_nats"] = round(sum(forgotten) / len(forgotten), 4)
    return without_conflicts(lessons, older + without_conflicts(taught, unchanged)), figures


def _forgotten(doors: Doors, samples: Sequence[Sample]) -> list[float]:
    """Nats/token of each sample's answer under what is worn now."""
    encoded = [encode(s, doors.base.tokenizer, max_tokens=sys.maxsize) for s in samples]
    with doors.wearing(doors.worn):
        return [nats / count for nats, count in doors.base.nll(encoded)]


def _dated(gone: Mapping[str, str], notes: Sequence[Turn]) -> bytes:
    """Which turn's lesson was replaced by which, and when that was said: ids and times, no words."""
    times = {note.id: note.created_at.isoformat(timespec="seconds") for note in notes}
    found = {old: {"by": later, "at": times.get(later)} for old, later in sorted(gone.items())}
    return (json.dumps(found, indent=2) + "\n").encode("utf-8")


def counts(parts: dict[Part, list[Sample]]) -> dict[str, int]:
    kinds = Counter(s.kind for samples in parts.values() for s in samples)
    return {part: len(samples) for part, samples in parts.items()} | dict(kinds)


def routes_of(journal: Journal) -> dict[str, Any]:
    """How many of the night's turns went where; {} for a night of an older version."""
    found: dict[str, Any] = journal.record.stages["lessons"].facts.get("routes", {})
    return found
