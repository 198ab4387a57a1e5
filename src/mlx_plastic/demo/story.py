"""The story, lived with the real rooms: every number in it is measured while it runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlx_plastic.base.checkpoint import fingerprint
from mlx_plastic.evals import GENERAL_PPL, Report
from mlx_plastic.evals.checks import passes
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.packs import Store
from mlx_plastic.packs.wear.attach import attached
from mlx_plastic.samples import Message, from_jsonl
from mlx_plastic.serve import Engine
from mlx_plastic.sleep.lessons import normal
from mlx_plastic.sleep.night import Night, Tick, sleep

if TYPE_CHECKING:
    from mlx_plastic.base import Base

Tell = Callable[[str], None]
ANSWER_TOKENS = 32
PROBE = "Where does Nora live? What is my favourite colour? Hello!"


@dataclass(frozen=True)
class Fact:
    """Something told by day; ask: wordings that neither the base nor any lesson has read."""

    say: str
    ask: tuple[str, ...]
    expect: str


@dataclass(frozen=True)
class Day:
    """A scripted day. untold: questions about people of whom nothing is said."""

    title: str
    facts: tuple[Fact, ...]
    wish: Fact
    untold: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """One question of the morning, as it was answered the evening before and now."""

    question: str
    expect: str
    before: str
    after: str


@dataclass
class Story:
    """What happened. Shares are in [0, 1]; losses and perplexities are the gate's own."""

    recall_before: list[float] = field(default_factory=list)  # of each day's facts, the evening before
    recall_after: list[float] = field(default_factory=list)  # of each day's facts, the morning after
    recall_first_day: float = 0.0  # of day 1, after the last night
    wish_after: list[float] = field(default_factory=list)  # greetings that follow the wish
    made_up: float = 0.0  # questions about strangers that got an answer all the same
    trained_wordings: int = 0  # morning questions that the night happened to write too; they are not counted
    nights: list[Night] = field(default_factory=list)
    poisoned: Night | None = None
    still_worn: bool = False  # the pack worn before the poisoned night is worn after it
    rollback_identical: bool = False
    pack_acts: bool = False  # control: the pack did change the logits that rolling back restored
    base_unchanged: bool = False
    answers: list[Answer] = field(default_factory=list)
    facts: int = 0
    seconds: float = 0.0

    @property
    def harness_lost(self) -> int:
        before, after = self._first().tasks, self._last().tasks
        return sum(ok and not after.get(name, False) for name, ok in before.items())

    @property
    def ppl_delta_pct(self) -> float:
        old, new = (report.score(GENERAL_PPL) for report in (self._first(), self._last()))
        return 100 * (new.value / old.value - 1) if old and new else float("nan")

    @property
    def _refused(self) -> bool:
        return self.poisoned is not None and self.poisoned.outcome == "failed" and self.still_worn

    def _first(self) -> Report:
        return self.nights[0].before or Report()

    def _last(self) -> Report:
        return self.nights[-1].after or Report()

    def figures(self) -> dict[str, Any]:
        """The figures by name, for scripts. recall_* are means over the days, shares in [0, 1]."""
        days = len(self.nights)
        found: dict[str, Any] = {
            "days": days,
            "facts": self.facts,
            "recall_before": mean(self.recall_before),
            "recall_after": mean(self.recall_after),
            "wish_after": mean(self.wish_after),
            "made_up": round(self.made_up, 4),
            "trained_wordings": self.trained_wordings,
            "nights_passed": sum(night.outcome == "passed" for night in self.nights),
            "ppl_delta_pct": round(self.ppl_delta_pct, 3),
            "harness_lost": self.harness_lost,
            "harness_tasks": len(self._first().tasks),
            "poisoned_refused": self.poisoned is not None
            and self.poisoned.outcome == "failed"
            and self.still_worn,
            "rollback_identical": self.rollback_identical and self.pack_acts,
            "base_unchanged": self.base_unchanged,
            "seconds": round(self.seconds, 1),
        }
        if days > 1:
            found[f"recall_day1_after_{days}"] = round(self.recall_first_day, 4)
        return found


@dataclass(frozen=True)
class Claim:
    """One line of the table at the end."""

    text: str
    measured: str
    wanted: str
    ok: bool


def claims(figures: dict[str, Any]) -> list[Claim]:
    """What the demo promises, held against what was measured."""

    days, tasks = figures["days"], figures["harness_tasks"]
    found = [
        _share("facts known before the night", figures["recall_before"], most=0.05),
        _share("facts known after it, new wordings", figures["recall_after"], least=0.9),
        _count("questions left out, as trained on", figures["trained_wordings"], 2 * days),
        _share("greetings that follow the wish", figures["wish_after"], least=0.5),
        _share("questions about strangers answered", figures["made_up"], most=0.25),
        _percent("general perplexity", figures["ppl_delta_pct"], 2.0),
        _count(f"harness tasks lost, of {tasks}", figures["harness_lost"], days),
        _yes("poisoned night refused", figures["poisoned_refused"]),
        _yes("logits after rollback, bit for bit", figures["rollback_identical"]),
        _yes("base files unchanged", figures["base_unchanged"]),
    ]
    if days > 1:
        name = f"recall_day1_after_{days}"
        found.insert(2, _share(f"day 1 after night {days}", figures[name], least=0.8))
    return found


def _share(text: str, value: float, *, least: float = 0.0, most: float = 1.0) -> Claim:
    wanted = f">= {100 * least:.0f} %" if least else f"<= {100 * most:.0f} %"
    return Claim(text, f"{100 * value:.0f} %", wanted, least <= value <= most)


def _count(text: str, value: int, most: int) -> Claim:
    return Claim(text, str(value), f"<= {most}" if most else "0", value <= most)


def _percent(text: str, value: float, most: float) -> Claim:
    return Claim(text, f"{value:+.2f} %", f"<= {most:+g} %", value <= most)  # NaN holds nothing


def _yes(text: str, value: bool) -> Claim:
    return Claim(text, "yes" if value else "no", "yes", value)


def mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4) if values else 0.0


def script() -> list[Day]:
    """The days that come with the package."""
    lines = resources.files("mlx_plastic.demo").joinpath("days.jsonl").read_text("utf-8").splitlines()
    return [_day(json.loads(line)) for line in lines]


def _day(value: dict[str, Any]) -> Day:
    facts = tuple(Fact(f["say"], tuple(f["ask"]), f["expect"]) for f in value["facts"])
    wish = Fact(value["wish"]["say"], tuple(value["wish"]["ask"]), value["wish"]["expect"])
    return Day(value["title"], facts, wish, tuple(value["untold"]))


def live(home: Home, base: Base, days: Sequence[Day], *, tell: Tell, tick: Tick) -> Story:
    """Live the days in `home`, an empty one, with `base` bare; leave the base bare again.

    tell: one line for a person as things happen. tick: progress of the nights.
    """
    began = time.perf_counter()
    story = Story(facts=sum(len(day.facts) for day in days))
    digest, bare = fingerprint(base.path, cache=None, rehash=True), _logits(base)
    store = Store(home)
    for number, day in enumerate(days, 1):
        _one_day(home, base, store, day, number, story, tell=tell, tick=tick)
    with _worn(base, store):
        seen = _trained_on(home)
        story.recall_first_day = _recall(days[0].facts, _ask(base, _questions(days[0].facts)), seen)
        strangers = [q for day in days for q in day.untold]
        known = {fact.expect for day in days for fact in day.facts}
        told = _ask(base, strangers)
        story.made_up = sum(any(passes({"contains": [v]}, a) for v in known) for a in told) / len(told)
        story.pack_acts = not np.array_equal(_logits(base), bare)
    tell("a poisoned day: 60 talks full of nonsense are imported, and the model sleeps on them")
    before = store.active()
    story.poisoned = _poisoned_night(home, base, tick)
    story.still_worn = store.active() == before
    tell(f"the gate says: {story.poisoned.outcome}; worn: {', '.join(store.active()) or 'nothing'}")
    tell(f"  because {story.poisoned.reason}")
    while store.active():
        store.rollback()
    with _worn(base, store):
        story.rollback_identical = np.array_equal(_logits(base), bare)
    story.base_unchanged = fingerprint(base.path, cache=None, rehash=True) == digest == base.fingerprint
    story.seconds = time.perf_counter() - began
    return story


def _one_day(
    home: Home, base: Base, store: Store, day: Day, number: int, story: Story, *, tell: Tell, tick: Tick
) -> None:
    questions = _questions(day.facts)
    with _worn(base, store):
        before = _ask(base, questions)
    story.recall_before.append(_recall(day.facts, before, set()))
    known = f"{100 * story.recall_before[-1]:.0f} % of {len(questions)} questions"
    tell(f"{day.title}. Before it is told, {known} are answered right")
    _talk(home, base, store, day, tell)
    night = sleep(home, base, tag=f"night-{number}", tick=tick)
    story.nights.append(night)
    seen = _trained_on(home)
    story.trained_wordings += sum(normal(question) in seen for question in [*questions, *day.wish.ask])
    with _worn(base, store):
        after = _ask(base, questions)
        greetings = _ask(base, day.wish.ask)
    story.recall_after.append(_recall(day.facts, after, seen))
    story.wish_after.append(_recall((day.wish,), greetings, seen))
    expected = [fact.expect for fact in day.facts for _ in fact.ask]
    story.answers += [Answer(*row) for row in zip(questions, expected, before, after, strict=True)]
    known = f"{100 * story.recall_after[-1]:.0f} % are answered right now"
    tell(f"night {number} {night.outcome} in {night.seconds:.0f} s; {known}")
    if night.reason:
        tell(f"  because {night.reason}")


def _talk(home: Home, base: Base, store: Store, day: Day, tell: Tell) -> None:
    """The day's chat, a conversation for every five things told; the model answers each."""
    said = [fact.say for fact in day.facts] + [day.wish.say]
    with Memory(home) as memory:
        engine = Engine(base, memory, store)
        for start in range(0, len(said), 5):
            conversation = memory.new_conversation()
            for place, text in enumerate(said[start : start + 5]):
                answer = "".join(engine.reply(conversation, text, max_tokens=ANSWER_TOKENS))
                if start == 0 and place < 3:
                    tell(f"  you: {text}\n  model: {answer.strip()}")
        engine.wear(())  # the night wants the base bare
    tell(f"  ... {len(said)} things told in all")


def _poisoned_night(home: Home, base: Base, tick: Tick) -> Night:
    poison = resources.files("mlx_plastic.demo").joinpath("poison.jsonl")
    with resources.as_file(poison) as path, Memory(home) as memory:
        memory.import_jsonl(Path(path))
    return sleep(home, base, tag="poisoned", tick=tick)


def _worn(base: Base, store: Store) -> Any:
    """The base with what the store says is worn, for the length of a with block."""
    packs = {name: store.read(name) for name in store.active()}
    return attached(base.model, packs, fingerprint=base.fingerprint)


def _questions(facts: Sequence[Fact]) -> list[str]:
    return [question for fact in facts for question in fact.ask]


def _ask(base: Base, questions: Sequence[str]) -> list[str]:
    """Each question alone, with nothing before it: what is answered comes from the weights."""
    return base.answers([(Message("user", q),) for q in questions], max_tokens=ANSWER_TOKENS)


def _recall(facts: Sequence[Fact], answers: Sequence[str], seen: Set[str]) -> float:
    """The share of questions, `seen` wordings left out, whose answer holds the value that was told."""
    asked = [(question, fact.expect) for fact in facts for question in fact.ask]
    right = [
        passes({"contains": [expect]}, answer)
        for (question, expect), answer in zip(asked, answers, strict=True)
        if normal(question) not in seen
    ]
    return sum(right) / len(right) if right else 0.0


def _trained_on(home: Home) -> set[str]:
    """Every wording, as `normal` has it, that the nights so far learned, rehearsed or were judged by."""
    found = set()
    for file in home.nights.glob("*/*.jsonl"):
        for sample in from_jsonl(file.read_bytes()):
            found |= {normal(m.content) for m in sample.messages if m.role == "user"}
    return found


def _logits(base: Base) -> Any:
    """(n, vocab) float32 on the probe, with what the base wears now."""
    return np.array(base.logits(base.prompt([Message("user", PROBE)])).astype(_float32()))


def _float32() -> Any:
    from mlx_plastic.backend import mx

    return mx.float32
