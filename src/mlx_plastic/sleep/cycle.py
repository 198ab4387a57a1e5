"""Measure, sleep, measure again: what a night did, in numbers that outlive it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlx_plastic.evals import History, append_csv, load_tasks, measure_loss, run_harness
from mlx_plastic.evals.harness import HarnessResult
from mlx_plastic.evals.ledger import append_summary
from mlx_plastic.evals.loss import LossResult
from mlx_plastic.home import Home
from mlx_plastic.packs import Store
from mlx_plastic.samples import Message, from_jsonl, read_chats
from mlx_plastic.sleep.config import Settings
from mlx_plastic.sleep.doors import Tick, wearing
from mlx_plastic.sleep.journal import Journal, free_tag, nights, now
from mlx_plastic.sleep.night import Night, read_settings, sleep
from mlx_plastic.sleep.stop import Stop

if TYPE_CHECKING:
    from mlx_plastic.base import Base

EARLIER_SAMPLES = 256  # held out of nights that passed, the latest ones: a bound on the time this takes


@dataclass(frozen=True)
class Measured:
    """One model at one time. losses: by set, "general" and, where a night has passed, "lessons"."""

    worn: tuple[str, ...]
    losses: dict[str, LossResult]
    harness: HarnessResult
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "worn": list(self.worn),
            "losses": {name: loss.as_dict() for name, loss in self.losses.items()},
            "harness": self.harness.as_dict(),
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Cycle:
    """before, after: the same measurements around the night; the same one if the night changed nothing."""

    tag: str
    before: Measured
    night: Night
    after: Measured

    @property
    def deltas(self) -> dict[str, float]:
        """After minus before: nats/token by set, tasks passed, and general perplexity in percent."""
        sets = self.before.losses.keys() & self.after.losses.keys()
        found = {f"{name}_nll": self.after.losses[name].nll - self.before.losses[name].nll for name in sets}
        old, new = (found_.losses["general"].perplexity for found_ in (self.before, self.after))
        found["general_ppl_pct"] = 100 * (new / old - 1)
        found["harness_passed"] = sum(self.after.harness.passed.values()) - sum(
            self.before.harness.passed.values()
        )
        return {name: round(value, 6) for name, value in sorted(found.items())}

    def as_dict(self) -> dict[str, Any]:
        return {
            "tag": self.tag,
            "before": self.before.as_dict(),
            "night": self.night.as_dict(),
            "after": self.after.as_dict(),
            "deltas": self.deltas,
        }


def cycle(
    home: Home,
    base: Base,
    *,
    tag: str,
    chosen: Settings | None = None,
    stop: Stop | None = None,
    tick: Tick | None = None,
    **asked: Any,
) -> Cycle:
    """Measure what is worn, sleep, measure again, and write down every number.

    To logs/experiments.jsonl a line for each of the three, to logs/loss.csv a row for each loss and each
    point of the training, to logs/eval_summary.json one entry. tag: the night's. asked: as for `sleep`, whose
    errors it raises; a tag that is taken is told before anything is measured.
    """
    chosen = chosen or read_settings(home)
    tick = tick or (lambda *_: None)
    past = nights(home)
    if not any(j.record.tag == tag and j.record.status == "running" for j in past):
        free_tag(past, tag, Store(home).names(), "")
    before = measured(home, base, chosen, tick, "before")
    _keep(home, tag, "cycle before", before.as_dict())
    night = sleep(home, base, chosen=chosen, tag=tag, stop=stop, tick=tick, **asked)
    changed = Store(home).active() != before.worn
    after = measured(home, base, chosen, tick, "after") if changed else before
    found = Cycle(tag, before, night, after)
    _keep(home, tag, "cycle night", night.as_dict())
    _keep(home, tag, "cycle after", after.as_dict())
    append_csv(home.logs / "loss.csv", list(_rows(home, found)))
    append_summary(home, {"when": now(), "kind": "cycle", **found.as_dict()})
    return found


def measured(home: Home, base: Base, chosen: Settings, tick: Tick, phase: str) -> Measured:
    """Loss on general chats and on what was held out of the nights that passed, and the harness."""
    began, store = time.perf_counter(), Store(home)
    general, _ = read_chats(chosen.judge.general_file)
    sets = {"general": [list(chat) for chat in general], "lessons": _held_out(home, store)}
    tasks = load_tasks(chosen.judge.tasks_file)
    worn = store.active()
    losses = {}
    with wearing(base, store, worn):
        for done, (name, chats) in enumerate(sets.items()):
            tick(f"measuring {phase}", done, 3, f"loss, {name}")
            samples, _ = base.encode_chats(chats)
            if samples:
                losses[name] = measure_loss(base, samples)
        tick(f"measuring {phase}", 2, 3, f"{len(tasks)} tasks")
        harness = run_harness(base, tasks, max_tokens=chosen.judge.answer_tokens)
    tick(f"measuring {phase}", 3, 3, "")
    return Measured(worn, losses, harness, round(time.perf_counter() - began, 2))


def _held_out(home: Home, store: Store) -> list[list[Message]]:
    """What the nights that the pack worn now grew from have held out to judge by."""
    family = store.ancestors(store.active())
    passed = [j for j in nights(home) if j.record.status == "passed" and j.record.tag in family]
    found = [list(sample.messages) for j in passed for sample in _tests(j)]
    return found[-EARLIER_SAMPLES:]


def _tests(journal: Journal) -> list[Any]:
    file = journal.path("test.jsonl")
    return from_jsonl(file.read_bytes()) if file.is_file() else []


def _keep(home: Home, tag: str, kind: str, values: dict[str, Any]) -> None:
    values = {name: value for name, value in values.items() if name not in ("tag", "kind", "when")}
    History(home.logs / "experiments.jsonl").append(when=now(), tag=tag, kind=kind, **values)


def _rows(home: Home, found: Cycle) -> Iterator[dict[str, Any]]:
    """The losses of a cycle, and the curve of its training, one a row."""
    empty = {"step": "", "nll": "", "spread": "", "perplexity": "", "tokens": "", "samples": ""}
    for phase, one in (("before", found.before), ("after", found.after)):
        for name, loss in one.losses.items():
            yield {"tag": found.tag, "phase": phase, "set": name, **empty, **loss.as_dict()}
    journal = next((j for j in nights(home) if j.record.tag == found.night.tag), None)
    stage = journal.record.stages.get("train") if journal else None
    for point in stage.facts.get("losses", ()) if stage else ():
        for name in ("train", "valid"):
            if point[name] is not None:
                row = {"tag": found.tag, "phase": "training", "set": name, **empty}
                yield row | {"step": point["step"], "nll": point[name]}
