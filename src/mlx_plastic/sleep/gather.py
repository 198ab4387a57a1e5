"""The first stage of a night: new turns become samples to learn, to stop by, to judge by and to rehearse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mlx_plastic.memory import Exchange
from mlx_plastic.memory import router as routing
from mlx_plastic.samples import Part, Sample, to_jsonl
from mlx_plastic.sleep.doors import PARTS, Doors, read_samples
from mlx_plastic.sleep.journal import Journal
from mlx_plastic.sleep.lessons import (
    about_others,
    general_answers,
    lessons_of,
    new_turns,
    notes_of,
    older_lessons,
    split,
    without_conflicts,
)


def gather(doors: Doors, journal: Journal, exchanges: Sequence[Exchange]) -> None:
    """Route the new turns, and write the samples made of them and beside them."""
    journal.begin()
    config = doors.chosen.lessons
    doors.tick("lessons", 0, 1, f"{sum(len(e.new) for e in exchanges)} new turns")
    decisions = routing.route_turns(doors.memory, new_turns(exchanges), doors.chosen.router)
    if journal.record.status != "dry-run":
        routing.record(doors.memory, decisions)
    routed = {d.turn: d for d in decisions}
    lessons = lessons_of(doors.base, exchanges, config, routed=routed)
    parts = split(lessons)
    turns = {t for e in exchanges for t in e.new}
    notes = notes_of(exchanges, longest=config.longest_note, routed=routed)
    earlier = _earlier(doors, journal.record.warm_start)
    number = len(doors.past)
    older = older_lessons(earlier, config.older, seed=config.seed + number)
    others = about_others(doors.base, lessons, notes, config, earlier=earlier)
    general = general_answers(doors.base, config, night=number)
    rehearsal = without_conflicts(lessons, older + others + general)
    files = {f"{part}.jsonl": to_jsonl(parts[part]) for part in PARTS} | {
        "rehearsal.jsonl": to_jsonl(rehearsal)
    }
    journal.save(turns=tuple(sorted(turns)))
    facts = {"rehearsal": len(rehearsal), "turns": len(turns), "routes": routing.counts(decisions)}
    journal.finish("lessons", files, counts(parts) | facts)
    doors.tick("lessons", 1, 1, f"{sum(len(p) for p in parts.values())} samples")


def _earlier(doors: Doors, warm: bool) -> list[Sample]:
    """Lessons of the nights that the pack grew from, and what was asked about others beside them."""
    if not warm:
        return []
    passed = doors.passed()
    return [
        sample
        for journal in passed
        for name in ("train.jsonl", "rehearsal.jsonl")
        for sample in read_samples(journal, name)
        if sample.turns and (sample.kind == "rehearsal") == (name == "rehearsal.jsonl")
    ]


def counts(parts: dict[Part, list[Sample]]) -> dict[str, int]:
    kinds = Counter(s.kind for samples in parts.values() for s in samples)
    return {part: len(samples) for part, samples in parts.items()} | dict(kinds)


def routes_of(journal: Journal) -> dict[str, Any]:
    """How many of the night's turns went where; {} for a night of an older version."""
    found: dict[str, Any] = journal.record.stages["lessons"].facts.get("routes", {})
    return found
