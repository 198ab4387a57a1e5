"""What the nights so far were and brought: one in full, all in lines, two against each other. Reads only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mlx_plastic.home import Home
from mlx_plastic.packs import Store
from mlx_plastic.packs.store.store import Entry
from mlx_plastic.sleep.journal import Journal, nights

VERDICT = "verdict.json"
PRIVATE = ("turns",)  # ids of turns: many, and of no use in a list


@dataclass(frozen=True)
class Line:
    """One night in a list. pack: what became of its pack; "" if there is none. learned: samples to learn."""

    tag: str
    status: str
    started: str
    pack: str
    pinned: bool
    turns: int
    learned: int
    seconds: float
    tokens_per_s: float
    peak_memory_mb: float
    reasons: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def lines(home: Home) -> list[Line]:
    """Every night, oldest first."""
    entries = {entry.name: entry for entry in Store(home).entries()}
    return [_line(journal, entries.get(journal.record.tag)) for journal in nights(home)]


def _line(journal: Journal, entry: Entry | None) -> Line:
    record = journal.record
    lessons, train = (_facts(journal, stage) for stage in ("lessons", "train"))
    dry = record.status == "dry-run"  # its name may have become another night's since
    return Line(
        tag=journal.folder.name,
        status=record.status,
        started=record.started,
        pack="" if dry or entry is None else entry.status,
        pinned=not dry and entry is not None and entry.pinned,
        turns=len(record.turns),
        learned=int(lessons.get("train", 0)),
        seconds=journal.seconds,
        tokens_per_s=float(train.get("tokens_per_s", 0.0)),
        peak_memory_mb=float(train.get("peak_memory_mb", 0.0)),
        reasons=record.reasons,
    )


def _facts(journal: Journal, stage: str) -> Mapping[str, Any]:
    found = journal.record.stages.get(stage)
    return found.facts if found else {}


def whole(home: Home, journal: Journal) -> dict[str, Any]:
    """Everything about one night but what was said: its record, its stages, its evidence, its pack."""
    record = {key: value for key, value in asdict(journal.record).items() if key not in PRIVATE}
    entry = next((e for e in Store(home).entries() if e.name == journal.record.tag), None)
    pack = None
    if entry and entry.manifest and journal.record.status != "dry-run":
        sizes, run = asdict(entry.manifest.sizes), asdict(entry.manifest.run)
        pack = {"status": entry.status, "pinned": entry.pinned, **sizes, **run}
    evidence = evidence_of(journal)
    return record | {"turns": len(journal.record.turns), "pack": pack, "evidence": evidence}


def evidence_of(journal: Journal) -> dict[str, Any]:
    """Its verdict.json; {} before it was judged."""
    try:
        found: dict[str, Any] = json.loads(journal.path(VERDICT).read_bytes())
        return found
    except (OSError, ValueError):
        return {}


def scores(evidence: Mapping[str, Any], which: str = "after") -> dict[str, float]:
    """What was measured, by name."""
    found = (evidence.get(which) or {}).get("scores", ())
    return {score["name"]: score["value"] for score in found if score.get("value") is not None}


def difference(home: Home, one: Journal, two: Journal) -> dict[str, Any]:
    """What two nights differ in, each value as [one, two]: settings, counts, figures, scores and tasks."""
    first, second = evidence_of(one), evidence_of(two)
    tasks = [(found.get("after") or {}).get("tasks") or {} for found in (first, second)]
    lines_ = [_line(journal, None) for journal in (one, two)]
    figures = ("turns", "learned", "seconds", "tokens_per_s", "peak_memory_mb")
    return {
        "nights": [one.folder.name, two.folder.name],
        "settings": _differing(_flat(one.record.settings), _flat(two.record.settings)),
        "figures": {name: [getattr(line, name) for line in lines_] for name in figures},
        "samples": _differing(*(_counts(journal) for journal in (one, two))),
        "scores": _differing(scores(first), scores(second)),
        "tasks_lost": sorted(t for t, ok in tasks[0].items() if ok and not tasks[1].get(t, True)),
        "tasks_won": sorted(t for t, ok in tasks[1].items() if ok and not tasks[0].get(t, True)),
    }


def _counts(journal: Journal) -> dict[str, Any]:
    return {name: n for name, n in _facts(journal, "lessons").items() if isinstance(n, int)}


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{section}.{key}": value for section, part in settings.items() for key, value in part.items()}


def _differing(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = sorted(one.keys() | two.keys())
    return {name: [one.get(name), two.get(name)] for name in names if one.get(name) != two.get(name)}
