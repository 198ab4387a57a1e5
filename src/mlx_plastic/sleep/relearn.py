"""A night again, from what of its samples remains after a forget: trained and judged as every night is."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable

from mlx_plastic.home import from_mapping
from mlx_plastic.samples import Sample, from_jsonl, to_jsonl
from mlx_plastic.sleep.config import NightConfig
from mlx_plastic.sleep.doors import PARTS, Doors
from mlx_plastic.sleep.gather import counts, routes_of
from mlx_plastic.sleep.journal import Journal, nights, still_replaced
from mlx_plastic.sleep.lessons import split
from mlx_plastic.sleep.result import Night
from mlx_plastic.sleep.stages import Asked, begun, broken_off, go_on

NUMBERED = re.compile(r"-r\d+$")
LONGEST = 56  # characters of the tag that a number is put behind; a pack's name has up to 64


def relearn(make: Callable[[], Doors], old: Journal, gone: set[str]) -> tuple[str, str]:
    """Learn the night `old` again without the turns `gone`, on what is worn now.

    Returns the tag of the night in its place, empty if it did not pass, and how it ended. The turns of a
    night that did not pass wait for `plastic sleep --retry`; its own samples are deleted in any case.
    """
    doors = make()
    night = _ended(doors, old) or _again(doors, old, gone)
    doors.memory.unlearn(old.record.tag)
    old.discard("forgotten")
    passed = night.outcome == "passed"
    return (night.tag if passed else ""), night.outcome + (f": {night.reason}" if night.reason else "")


def _ended(doors: Doors, old: Journal) -> Night | None:
    """How the night in its place ended, if a crash came right after that."""
    for journal in nights(doors.home):
        record = journal.record
        if record.rebuilds == old.record.tag and record.status in ("passed", "failed"):
            return Night(record.status, record.tag, "; ".join(record.reasons), seconds=journal.seconds)
    return None


def _again(doors: Doors, old: Journal, gone: set[str]) -> Night:
    journal = broken_off(doors, Asked(resume=True), rebuilds=old.record.tag)
    if journal is None:
        night = from_mapping(NightConfig, old.record.settings["night"], where=f"night {old.record.tag}")
        doors.chosen = dataclasses.replace(doors.chosen, night=night)
        asked = Asked(tag=_tag(doors, old.record.tag), reset=not old.record.warm_start)
        turns = (turn for turn in old.record.turns if turn not in gone)
        journal = begun(doors, asked, turns, rebuilds=old.record.tag)
    if not journal.has("lessons"):
        _remaining(journal, old, gone)
    return go_on(doors, journal)


def _tag(doors: Doors, tag: str) -> str:
    root = NUMBERED.sub("", tag)[:LONGEST]
    used = {j.record.tag for j in nights(doors.home)} | set(doors.store.names())
    return next(name for i in range(2, 10_000) if (name := f"{root}-r{i}") not in used)


def _remaining(journal: Journal, old: Journal, gone: set[str]) -> None:
    """The lessons stage: the files of the old night without what was made of the turns `gone`."""
    journal.begin()
    files: dict[str, bytes] = {}
    found: dict[str, list[Sample]] = {}
    for name in old.record.stages["lessons"].files:
        path = old.path(name)
        if path.suffix == ".jsonl":
            found[name] = [s for s in from_jsonl(path.read_bytes()) if gone.isdisjoint(s.turns)]
        elif path.suffix == ".json":
            left = still_replaced(json.loads(path.read_bytes()), gone)
            files[name] = (json.dumps(left, indent=2) + "\n").encode()
    parts = {part: found[f"{part}.jsonl"] for part in PARTS}
    if not (parts["train"] and parts["test"]):  # what is left is divided anew
        parts = split([s for part in PARTS for s in parts[part]])
        found |= {f"{part}.jsonl": parts[part] for part in PARTS}
    files |= {name: to_jsonl(samples) for name, samples in found.items()}
    rehearsal = len(found.get("rehearsal.jsonl", ()))
    facts = {"rehearsal": rehearsal, "turns": len(journal.record.turns), "routes": routes_of(old)}
    journal.finish("lessons", files, counts(parts) | facts)
