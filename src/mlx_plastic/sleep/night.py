"""The night: collect -> augment -> split -> train -> judge -> decide.

Every stage is written to the night's folder before the next begins, so a night that was killed goes on where
it stopped, and the pack that was worn stays worn until the very last step.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

from mlx_plastic.base import targets
from mlx_plastic.errors import PlasticError
from mlx_plastic.evals import History, Policy, Report, Verdict, decide
from mlx_plastic.home import Home, locked, settings
from mlx_plastic.lowrank.layers import dims, stack_size
from mlx_plastic.memory import Exchange, Memory
from mlx_plastic.memory import router as routing
from mlx_plastic.memory.router import RouterConfig
from mlx_plastic.packs import Pack, Store, make_manifest
from mlx_plastic.packs.format.pack import LITE_ATTENTION_RANK, LITE_BYTES
from mlx_plastic.packs.train.train import TrainConfig, Trained, data_card, train
from mlx_plastic.packs.wear.attach import attached
from mlx_plastic.samples import Encoded, Part, Sample, encode, from_jsonl, to_jsonl
from mlx_plastic.sleep.journal import Journal, Record, free_tag, nights, now
from mlx_plastic.sleep.judge import JudgeConfig, measure
from mlx_plastic.sleep.lessons import (
    LessonConfig,
    about_others,
    general_answers,
    lessons_of,
    new_turns,
    notes_of,
    older_lessons,
    split,
    without_conflicts,
)

if TYPE_CHECKING:
    from mlx_plastic.base import Base

log = logging.getLogger(__name__)

Outcome = Literal["nothing", "dry-run", "passed", "failed"]
Tick = Callable[[str, float, float, str], None]  # stage, done, of how many, detail
PARTS: tuple[Part, ...] = ("train", "valid", "test")


RATE_TIMES_WIDTH = 1.0  # the peak rate that learns in one night is about this over the hidden size


@dataclass(frozen=True)
class NightConfig(TrainConfig):
    """[night] of config.toml: how a night trains, where that differs from a pack's own training."""

    rank: int = 0  # rows of a; 0: the largest up to 8 whose pack stays within 10 MB
    learning_rate: float = 0.0  # peak; 0: 1 over the base's hidden size
    epochs: float = 6.0
    anchor: float = 4.0
    batch_tokens: int = 768
    valid_every: int = 40


@dataclass(frozen=True)
class Settings:
    """All that a night depends on, section by section of config.toml."""

    router: RouterConfig = field(default_factory=RouterConfig)
    lessons: LessonConfig = field(default_factory=LessonConfig)
    night: NightConfig = field(default_factory=NightConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    gate: Policy = field(default_factory=Policy)


@dataclass(frozen=True)
class Night:
    """How a night ended. counts: samples by kind and part. routes: turns by where they went, and shares.

    before, after: what was measured; may be empty.
    """

    outcome: Outcome
    tag: str = ""
    reason: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    verdict: Verdict | None = None
    before: Report | None = None
    after: Report | None = None
    seconds: float = 0.0
    routes: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "tag": self.tag,
            "reason": self.reason,
            "counts": self.counts,
            "routes": self.routes,
            "seconds": self.seconds,
            "verdict": self.verdict and self.verdict.as_dict(),
            "before": self.before and self.before.as_dict(),
            "after": self.after and self.after.as_dict(),
        }


def read_settings(home: Home) -> Settings:
    return Settings(
        router=settings(home, "router", RouterConfig),
        lessons=settings(home, "lessons", LessonConfig),
        night=settings(home, "night", NightConfig),
        judge=settings(home, "judge", JudgeConfig),
        gate=settings(home, "gate", Policy),
    )


def fitted(config: NightConfig, base: Base) -> NightConfig:
    """The settings with a rank and a learning rate that suit the base, where none was given.

    A wide layer adds up more small steps than a narrow one, so the rate goes with 1 / width (Yang et al.
    2022, "Tensor Programs V").
    """
    modules = targets(base.model, config.role_list).values()
    bytes_per_rank = sum(2 * sum(dims(m)) * math.prod(stack_size(m)) for m in modules)  # float16
    largest = min(LITE_ATTENTION_RANK, LITE_BYTES // max(1, bytes_per_rank))
    width = (
        base.config.get("hidden_size") or (base.config.get("text_config") or {}).get("hidden_size") or 2048
    )
    return dataclasses.replace(
        config,
        rank=config.rank or max(1, largest),
        learning_rate=config.learning_rate or RATE_TIMES_WIDTH / width,
    )


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
        run = _Run(home, base, memory, settings_, tick or (lambda *_: None))
        return run.night(tag=tag, dry_run=dry_run, reset=reset_adapter, retry=retry)


class _Run:
    """One call of sleep, with the doors it needs."""

    def __init__(self, home: Home, base: Base, memory: Memory, chosen: Settings, tick: Tick) -> None:
        self.home, self.base, self.memory, self.chosen, self.tick = home, base, memory, chosen, tick
        self.store = Store(home)
        worn = self.store.active()
        if len(worn) > 1:
            raise PlasticError(
                f"a night grows from one pack, and {len(worn)} are worn", hint="activate one of them"
            )
        self.worn = worn
        self.past = [j for j in nights(home) if j.record.status in ("passed", "failed")]

    def night(self, *, tag: str | None, dry_run: bool, reset: bool, retry: bool) -> Night:
        with self._wearing(self.worn):
            pass  # a pack of another base is told now, not after hours of training
        journal = None if dry_run else self._broken_off(reset)
        if journal is None:
            exchanges = self._collected(retry)
            if not any(t.id in e.new and t.role == "user" for e in exchanges for t in e.turns):
                return Night("nothing", reason="nothing new was said since the last night")
            journal = self._new(tag, dry_run=dry_run, reset=reset)
            self._write_lessons(journal, exchanges)
        elif not journal.has("lessons"):
            self._write_lessons(journal, self._collected(retry))
        parts = {part: self._read(journal, f"{part}.jsonl") for part in PARTS}
        routes = _routes(journal)
        if not parts["train"] or not parts["test"]:
            journal.close("abandoned")
            return Night("nothing", journal.record.tag, _too_little(parts), _counts(parts), routes=routes)
        if dry_run:
            where = f"the data is in {journal.folder}"
            return Night("dry-run", journal.record.tag, where, _counts(parts), routes=routes)
        if not journal.has("train"):
            self._train(journal, parts)
        if not journal.has("judge"):
            self._judge(journal, parts)
        return self._decide(journal, parts)

    def _broken_off(self, reset: bool) -> Journal | None:
        """The night that did not come to its end, if it can still go on; others are given up."""
        for journal in nights(self.home):
            record = journal.record
            if record.status != "running":
                continue
            same = record.base_fingerprint == self.base.fingerprint and record.worn_before == self.worn
            decided = journal.has("judge") and self.worn == (
                record.tag,
            )  # killed between activating and noting it
            if (
                same and record.warm_start == (not reset) and record.settings == asdict(self.chosen)
            ) or decided:
                log.info("night %s was broken off; it goes on", record.tag)
                return journal
            log.info("night %s was broken off and cannot go on; it is given up", record.tag)
            journal.close("abandoned")
        return None

    def _collected(self, retry: bool) -> list[Exchange]:
        """What no passed night has learned; without `retry` also not what a failed night tried."""
        if retry:
            family = self._ancestors()
            for journal in self.past:
                if journal.record.status == "passed" and journal.record.tag not in family:
                    self.memory.unlearn(journal.record.tag)
            return self.memory.unlearned()
        tried = {t for j in self.past if j.record.status == "failed" for t in j.record.turns}
        exchanges = (dataclasses.replace(e, new=e.new - tried) for e in self.memory.unlearned())
        return [e for e in exchanges if e.new]

    def _ancestors(self) -> set[str]:
        """The pack worn now and those it grew from, by name."""
        return self.store.ancestors(self.worn)  # also those that were removed: their samples are still there

    def _new(self, tag: str | None, *, dry_run: bool, reset: bool) -> Journal:
        name = free_tag(self.home, tag, set(self.store.names()), date.today().isoformat())
        record = Record(
            tag=name,
            status="dry-run" if dry_run else "running",
            started=now(),
            base_id=self.base.ref,
            base_fingerprint=self.base.fingerprint,
            worn_before=self.worn,
            warm_start=not reset,
            settings=asdict(self.chosen),
        )
        return Journal(self.home.nights / (f"{name}.dry-run" if dry_run else name), record)

    def _write_lessons(self, journal: Journal, exchanges: Sequence[Exchange]) -> None:
        journal.begin()
        config = self.chosen.lessons
        self.tick("lessons", 0, 1, f"{sum(len(e.new) for e in exchanges)} new turns")
        decisions = routing.route_turns(self.memory, new_turns(exchanges), self.chosen.router)
        if journal.record.status != "dry-run":
            routing.record(self.memory, decisions)
        routed = {d.turn: d for d in decisions}
        lessons = lessons_of(self.base, exchanges, config, routed=routed)
        parts = split(lessons)
        turns = {t for e in exchanges for t in e.new}
        notes = notes_of(exchanges, longest=config.longest_note, routed=routed)
        earlier = self._earlier(journal.record.warm_start)
        number = len(self.past)
        older = older_lessons(earlier, config.older, seed=config.seed + number)
        others = about_others(self.base, lessons, notes, config, earlier=earlier)
        general = general_answers(self.base, config, night=number)
        rehearsal = without_conflicts(lessons, older + others + general)
        files = {f"{part}.jsonl": to_jsonl(parts[part]) for part in PARTS} | {
            "rehearsal.jsonl": to_jsonl(rehearsal)
        }
        journal.save(turns=tuple(sorted(turns)))
        facts = {"rehearsal": len(rehearsal), "turns": len(turns), "routes": routing.counts(decisions)}
        journal.finish("lessons", files, _counts(parts) | facts)
        self.tick("lessons", 1, 1, f"{sum(len(p) for p in parts.values())} samples")

    def _earlier(self, warm: bool) -> list[Sample]:
        """Lessons of the nights that the pack grew from, and what was asked about others beside them."""
        if not warm:
            return []
        passed = self._passed(self._ancestors())
        return [
            sample
            for journal in passed
            for name in ("train.jsonl", "rehearsal.jsonl")
            for sample in self._read(journal, name)
            if sample.turns and (sample.kind == "rehearsal") == (name == "rehearsal.jsonl")
        ]

    def _passed(self, family: set[str]) -> list[Journal]:
        return [j for j in self.past if j.record.status == "passed" and j.record.tag in family]

    def _read(self, journal: Journal, name: str) -> list[Sample]:
        return from_jsonl(journal.path(name).read_bytes())

    def _start(self, journal: Journal) -> Pack | None:
        return self.store.read(self.worn[0]) if self.worn and journal.record.warm_start else None

    def _train(self, journal: Journal, parts: dict[Part, list[Sample]]) -> None:
        journal.begin()
        config = self.chosen.night
        wishes = [s for s in parts["train"] if s.kind == "wish"] * (self.chosen.lessons.wish_repeats - 1)
        data = self._encoded(parts["train"] + wishes + self._read(journal, "rehearsal.jsonl"))
        trained = train(
            self.base,
            data,
            self._encoded(parts["valid"]),
            config,
            start=self._start(journal),
            checkpoint=journal.path("checkpoint"),
            on_progress=lambda p: self.tick(
                "training",
                p.step,
                p.steps,
                f"loss {p.loss:.3f}, {p.tokens_per_s:.0f} tokens/s, {p.eta_s:.0f} s left",
            ),
        )
        self._keep(journal, trained, data)
        report = trained.report
        losses = [asdict(point) for point in report.losses]
        journal.finish("train", {}, asdict(report.card()) | {"best_step": report.best_step, "losses": losses})

    def _encoded(self, samples: Sequence[Sample]) -> list[Encoded]:
        """Whole, however long: the trainer cuts what is longer than its window.

        What the bare base said is not learned as words but, at each of them, as the base's own distribution.
        """
        mode = self.chosen.night.loss_mode
        found = (encode(s, self.base.tokenizer, max_tokens=sys.maxsize, loss_mode=mode) for s in samples)
        return [
            dataclasses.replace(e, soft=s.kind == "rehearsal") for e, s in zip(found, samples, strict=True)
        ]

    def _keep(self, journal: Journal, trained: Trained, data: Sequence[Encoded]) -> None:
        """Put what was trained into the store, as a candidate named like the night."""
        record, start = journal.record, self._start(journal)
        turns = {t for e in data if e.sample for t in e.sample.turns}
        manifest = make_manifest(
            trained.factors,
            name=record.tag,
            base_id=record.base_id,
            base_fingerprint=record.base_fingerprint,
            training=record.settings["night"],
            data=data_card(data),
            run=trained.report.card(),
            parents=self.worn if start else (),
            lineage=tuple(sorted(turns | set(start.manifest.lineage if start else ()))),
        )
        self.store.add(trained.factors, manifest, replace=True)

    def _judge(self, journal: Journal, parts: dict[Part, list[Sample]]) -> None:
        """Measure the model as it is and as it would be; what tonight corrects is no longer asked."""
        journal.begin()
        tonight = parts["test"]
        earlier = [s for j in self._passed(self._ancestors()) for s in self._read(j, "test.jsonl")]
        earlier = without_conflicts([s for part in PARTS for s in parts[part]], earlier)
        self.tick("judging", 0, 2, "the model as it is")
        with self._wearing(self.worn):
            before = measure(self.base, tonight=tonight, earlier=earlier, config=self.chosen.judge)
        self.tick("judging", 1, 2, "the model as it would be")
        with self._wearing((journal.record.tag,)):
            after = measure(self.base, tonight=tonight, earlier=earlier, config=self.chosen.judge)
        verdict = decide(before, after, self.chosen.gate)
        evidence = {"verdict": verdict.as_dict(), "before": before.as_dict(), "after": after.as_dict()}
        data = (json.dumps(evidence, indent=2, allow_nan=False) + "\n").encode("utf-8")
        journal.finish("judge", {"verdict.json": data}, {"passed": verdict.passed})
        self.tick("judging", 2, 2, "passed" if verdict.passed else "failed")

    def _wearing(self, names: tuple[str, ...]) -> AbstractContextManager[Any]:
        packs = {name: self.store.read(name) for name in names}
        return attached(self.base.model, packs, fingerprint=self.base.fingerprint)

    def _decide(self, journal: Journal, parts: dict[Part, list[Sample]]) -> Night:
        """Wear the candidate or set it apart; every step may be done again after a crash."""
        evidence = json.loads(journal.path("verdict.json").read_bytes())
        before, after = Report.from_dict(evidence["before"]), Report.from_dict(evidence["after"])
        verdict = decide(before, after, self.chosen.gate)
        tag, record = journal.record.tag, journal.record
        reasons = tuple(r.text for r in verdict.failures)
        if verdict.passed:
            self.store.record(tag, evidence | {"routes": _routes(journal)})
            self.store.activate(tag)
            self.memory.learned(record.turns, tag)
        else:
            self.store.quarantine(tag, evidence["verdict"])
        seconds = round(sum(s.seconds for s in record.stages.values()), 2)
        history = History(self.home.logs / "nights.jsonl")
        if not history.entries(kind="night", tag=tag):
            history.append(when=now(), tag=tag, kind="night", seconds=seconds, **evidence)
        outcome: Literal["passed", "failed"] = "passed" if verdict.passed else "failed"
        journal.close(outcome, reasons)
        log.info("night %s %s: %d lessons in %.0f s", tag, outcome, len(parts["train"]), seconds)
        told = (outcome, tag, "; ".join(reasons), _counts(parts), verdict, before, after, seconds)
        return Night(*told, routes=_routes(journal))


def _counts(parts: dict[Part, list[Sample]]) -> dict[str, int]:
    kinds = Counter(s.kind for samples in parts.values() for s in samples)
    return {part: len(samples) for part, samples in parts.items()} | dict(kinds)


def _routes(journal: Journal) -> dict[str, Any]:
    """How many of the night's turns went where; {} for a night of an older version."""
    found: dict[str, Any] = journal.record.stages["lessons"].facts.get("routes", {})
    return found


def _too_little(parts: dict[Part, list[Sample]]) -> str:
    found = sum(len(samples) for samples in parts.values())
    return f"{found} samples are too little, for one must be held out; what was said waits for the next night"
