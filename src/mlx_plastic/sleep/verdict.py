"""The last stages of a night: its pack is judged, and worn or set apart."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

from mlx_plastic.evals import (
    CANARY_BITS,
    PLANTED,
    SECRETS_SAID,
    History,
    Report,
    Score,
    Verdict,
    decide,
    only_drifted,
)
from mlx_plastic.packs import Pack
from mlx_plastic.samples import Part, Sample
from mlx_plastic.sleep.doors import PARTS, Doors, read_samples
from mlx_plastic.sleep.exposed import exposures, masked_in, said
from mlx_plastic.sleep.gather import counts, routes_of
from mlx_plastic.sleep.journal import Journal, now
from mlx_plastic.sleep.judge import joined, measure_lessons, measure_standing
from mlx_plastic.sleep.lessons import without_conflicts
from mlx_plastic.sleep.past import held_out_before
from mlx_plastic.sleep.planted import drawn, reached
from mlx_plastic.sleep.result import Night
from mlx_plastic.sleep.standing import standing
from mlx_plastic.sleep.verdict_page import page

log = logging.getLogger(__name__)

FORMAT_VERSION = 2
STEPS = 4  # of judging, between which it may be stopped


def judge(doors: Doors, journal: Journal, parts: dict[Part, list[Sample]]) -> None:
    """Measure the model as it is and as it would be; what tonight corrects is no longer asked."""
    journal.begin()
    lessons = [s for part in PARTS for s in parts[part]]
    held_out = {
        "tonight": parts["test"],
        "earlier": without_conflicts(lessons, held_out_before(doors, journal)),
    }
    doors.tick("judging", 0, STEPS, "the model as it is")
    with doors.wearing(doors.worn) as packs:
        before = _measured(doors, packs, held_out)
    doors.tick("judging", 1, STEPS, "the bare base")
    base = _standing(doors, ()) if doors.worn else None
    doors.tick("judging", 2, STEPS, "the model as it would be")
    with doors.wearing((journal.record.tag,)) as packs:
        after = _measured(doors, packs, held_out)
        doors.tick("judging", 3, STEPS, "what it must not know")
        after = replace(after, scores=(*after.scores, *_safety(doors, journal, lessons)))
    verdict = decide(before, after, doors.chosen.gate, base=base)
    evidence = {
        "format_version": FORMAT_VERSION,
        "tag": journal.record.tag,
        "verdict": verdict.as_dict(),
        "policy": asdict(doors.chosen.gate),
        "tried": journal.record.tried,
        "before": before.as_dict(parts=True),
        "after": after.as_dict(parts=True),
        "base": base and base.as_dict(parts=True),
    }
    data = (json.dumps(evidence, indent=1, allow_nan=False) + "\n").encode("utf-8")
    html = page(journal.record, verdict, before, after).encode("utf-8")
    journal.finish("judge", {"verdict.json": data, "verdict.html": html}, {"passed": verdict.passed})
    doors.tick("judging", STEPS, STEPS, "passed" if verdict.passed else "failed")


def _measured(doors: Doors, packs: Sequence[Pack], held_out: dict[str, list[Sample]]) -> Report:
    lessons = measure_lessons(doors.base, **held_out, config=doors.chosen.judge)
    return joined(lessons, _standing(doors, packs))


def _standing(doors: Doors, packs: Sequence[Pack]) -> Report:
    """What does not change from night to night, measured once for all nights. packs: what is worn."""
    base, config = doors.base, doors.chosen.judge
    digests = [pack.manifest.sha256 for pack in packs]
    return standing(doors.home, base.fingerprint, digests, config, lambda: measure_standing(base, config))


def _safety(doors: Doors, journal: Journal, lessons: list[Sample]) -> list[Score]:
    """What of tonight's planted and masked texts the new model could have learned, or says; it is worn."""
    scores, record = [], journal.record
    planted = drawn(doors.chosen.judge, record.tag)
    secrets, orders = reached(planted, [*lessons, *read_samples(journal, "rehearsal.jsonl")])
    masked = masked_in(doors.memory, record.turns)
    if planted.words:
        scores.append(Score(PLANTED, len(secrets) + len(orders), "texts", len(planted.words)))
    if secrets:
        bits = exposures(doors.base, planted.canaries, seed=record.tag)
        scores.append(Score(CANARY_BITS, sum(bits) / len(bits), "bits", len(bits)))
    if masked:
        scores.append(Score(SECRETS_SAID, said(doors.base, masked), "texts", len(masked)))
    return scores


def conclude(doors: Doors, journal: Journal, parts: dict[Part, list[Sample]]) -> Night:
    """Wear the candidate or set it apart; every step may be done again after a crash."""
    verdict, before, after, evidence = drawn_anew(journal, doors)
    tag, record = journal.record.tag, journal.record
    reasons = tuple(r.text for r in verdict.failures)
    if verdict.passed:
        doors.store.record(tag, evidence | {"routes": routes_of(journal), "timing": journal.timing})
        doors.store.activate(tag)
        doors.memory.learned(record.turns, tag)
    else:
        doors.store.quarantine(tag, evidence["verdict"])
    history = History(doors.home.logs / "nights.jsonl")
    if not history.entries(kind="night", tag=tag):
        history.append(when=now(), tag=tag, kind="night", seconds=journal.seconds, **evidence)
    outcome: Literal["passed", "failed"] = "passed" if verdict.passed else "failed"
    journal.close(outcome, reasons, drifted=only_drifted(verdict))
    log.info("night %s %s: %d lessons in %.0f s", tag, outcome, len(parts["train"]), journal.seconds)
    told = (outcome, tag, "; ".join(reasons), counts(parts), verdict, before, after, journal.seconds)
    return Night(*told, routes=routes_of(journal))


def drawn_anew(journal: Journal, doors: Doors) -> tuple[Verdict, Report, Report, dict[str, Any]]:
    """The verdict from what was measured, the reports, and the evidence without every sample's figures."""
    written = json.loads(journal.path("verdict.json").read_bytes())
    before, after = Report.from_dict(written["before"]), Report.from_dict(written["after"])
    base = Report.from_dict(written["base"]) if written.get("base") else None
    verdict = decide(before, after, doors.chosen.gate, base=base)
    evidence = {"verdict": verdict.as_dict(), "before": before.as_dict(), "after": after.as_dict()}
    return verdict, before, after, evidence
