"""The last stages of a night: its pack is judged, and worn or set apart."""

from __future__ import annotations

import json
import logging
from typing import Literal

from mlx_plastic.evals import History, Report, decide
from mlx_plastic.samples import Part, Sample
from mlx_plastic.sleep.doors import PARTS, Doors, read_samples
from mlx_plastic.sleep.gather import counts, routes_of
from mlx_plastic.sleep.journal import Journal, now
from mlx_plastic.sleep.judge import measure
from mlx_plastic.sleep.lessons import without_conflicts
from mlx_plastic.sleep.result import Night

log = logging.getLogger(__name__)


def judge(doors: Doors, journal: Journal, parts: dict[Part, list[Sample]]) -> None:
    """Measure the model as it is and as it would be; what tonight corrects is no longer asked."""
    journal.begin()
    tonight = parts["test"]
    earlier = [s for j in doors.passed() for s in read_samples(j, "test.jsonl")]
    earlier = without_conflicts([s for part in PARTS for s in parts[part]], earlier)
    doors.tick("judging", 0, 2, "the model as it is")
    with doors.wearing(doors.worn):
        before = measure(doors.base, tonight=tonight, earlier=earlier, config=doors.chosen.judge)
    doors.tick("judging", 1, 2, "the model as it would be")
    with doors.wearing((journal.record.tag,)):
        after = measure(doors.base, tonight=tonight, earlier=earlier, config=doors.chosen.judge)
    verdict = decide(before, after, doors.chosen.gate)
    evidence = {"verdict": verdict.as_dict(), "before": before.as_dict(), "after": after.as_dict()}
    data = (json.dumps(evidence, indent=2, allow_nan=False) + "\n").encode("utf-8")
    journal.finish("judge", {"verdict.json": data}, {"passed": verdict.passed})
    doors.tick("judging", 2, 2, "passed" if verdict.passed else "failed")


def conclude(doors: Doors, journal: Journal, parts: dict[Part, list[Sample]]) -> Night:
    """Wear the candidate or set it apart; every step may be done again after a crash."""
    evidence = json.loads(journal.path("verdict.json").read_bytes())
    before, after = Report.from_dict(evidence["before"]), Report.from_dict(evidence["after"])
    verdict = decide(before, after, doors.chosen.gate)
    tag, record = journal.record.tag, journal.record
    reasons = tuple(r.text for r in verdict.failures)
    if verdict.passed:
        doors.store.record(tag, evidence | {"routes": routes_of(journal)})
        doors.store.activate(tag)
        doors.memory.learned(record.turns, tag)
    else:
        doors.store.quarantine(tag, evidence["verdict"])
    seconds = round(sum(s.seconds for s in record.stages.values()), 2)
    history = History(doors.home.logs / "nights.jsonl")
    if not history.entries(kind="night", tag=tag):
        history.append(when=now(), tag=tag, kind="night", seconds=seconds, **evidence)
    outcome: Literal["passed", "failed"] = "passed" if verdict.passed else "failed"
    journal.close(outcome, reasons)
    log.info("night %s %s: %d lessons in %.0f s", tag, outcome, len(parts["train"]), seconds)
    told = (outcome, tag, "; ".join(reasons), counts(parts), verdict, before, after, seconds)
    return Night(*told, routes=routes_of(journal))
