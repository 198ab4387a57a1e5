"""The sides that live the same days: the product, plain nightly mlx-lm, and the product from scratch."""

from __future__ import annotations

import contextlib
import io
import resource
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_plastic.backend import mx, optim
from mlx_plastic.base import Base, targets
from mlx_plastic.errors import PlasticError
from mlx_plastic.evals import GENERAL_PPL, Report
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.packs import Store
from mlx_plastic.packs.wear.attach import attached
from mlx_plastic.samples import Message, Sample, from_jsonl
from mlx_plastic.serve import Engine
from mlx_plastic.sleep.config import fitted, read_settings
from mlx_plastic.sleep.judge import JudgeConfig, measure
from mlx_plastic.sleep.lessons import normal
from mlx_plastic.sleep.night import Night, sleep
from nights.people import GREETINGS, Day, Fact, current

ANSWER_TOKENS = 32
CONVERSATION = 5  # things told in one

Tell = Callable[[str], None]


def cpu_s() -> float:
    """CPU seconds of this process and its ended children: the wall clock of a shared machine says little."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


@dataclass
class Lived:
    """What became of one side. cost_s: CPU seconds, curve: recall of all so far; of each night."""

    cost_s: list[float] = field(default_factory=list)
    stages_s: list[dict[str, float]] = field(default_factory=list)  # wall seconds by stage
    day_recall: list[float] = field(default_factory=list)
    curve: list[float] = field(default_factory=list)
    wishes: list[float] = field(default_factory=list)
    nights: list[Night] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)  # of each night's training
    seen_wordings: int = 0  # questions that a night happened to write too; they are not counted
    retained: float = 0.0
    made_up: float = 0.0
    first: Report = field(default_factory=Report)
    last: Report = field(default_factory=Report)

    @property
    def ppl_delta_pct(self) -> float:
        old, new = (report.score(GENERAL_PPL) for report in (self.first, self.last))
        return 100 * (new.value / old.value - 1) if old and new else float("nan")

    @property
    def harness_lost(self) -> int:
        return sum(ok and not self.last.tasks.get(name, False) for name, ok in self.first.tasks.items())


def recall(base: Base, facts: Sequence[Fact], *, seen: set[str], most: int | None = None) -> float:
    """The share of questions answered with the value that was told; wordings in `seen` are left out.

    Asked alone, with nothing before them: what is answered comes from the weights. most: wordings of each.
    """
    asked = [(q, f.expect) for f in facts for q in f.ask[:most] if normal(q) not in seen]
    return _right(ask(base, [q for q, _ in asked]), [expect for _, expect in asked])


def told_recall(base: Base, days: Sequence[Day]) -> float:
    """The same with the fact just told: what nano itself understands, an upper bound for any night."""
    asked = [(f, q) for day in days for f in day.told for q in f.ask]
    replies = dict(zip([f.say for f, _ in asked], ask(base, [f.say for f, _ in asked]), strict=True))
    prompts = [
        (Message("user", f.say), Message("assistant", replies[f.say]), Message("user", q)) for f, q in asked
    ]
    return _right(base.answers(prompts, max_tokens=ANSWER_TOKENS), [f.expect for f, _ in asked])


def _right(answers: Sequence[str], expected: Sequence[str]) -> float:
    right = [e.lower() in a.lower() for a, e in zip(answers, expected, strict=True)]
    return sum(right) / len(right) if right else 0.0


def ask(base: Base, questions: Sequence[str]) -> list[str]:
    return base.answers([(Message("user", q),) for q in questions], max_tokens=ANSWER_TOKENS)


def worn(base: Base, home: Home) -> Any:
    store = Store(home)
    packs = {name: store.read(name) for name in store.active()}
    return attached(base.model, packs, fingerprint=base.fingerprint)


def talk(home: Home, base: Base, said: Sequence[str]) -> None:
    """Chat as a person would; the model, with what it wears, answers each."""
    with Memory(home) as memory:
        engine = Engine(base, memory, Store(home))
        for start in range(0, len(said), CONVERSATION):
            conversation = memory.new_conversation()
            for text in said[start : start + CONVERSATION]:
                for _ in engine.reply(conversation, text, max_tokens=ANSWER_TOKENS):
                    pass
        engine.wear(())  # a night wants the base bare


def said_on(day: Day) -> list[str]:
    return [fact.say for fact in day.told] + ([day.wish] if day.wish else [])


def seen_wordings(home: Home) -> set[str]:
    """Every wording that the nights so far learned, rehearsed or were judged by."""
    files = [from_jsonl(file.read_bytes()) for file in home.nights.glob("*/*.jsonl")]
    return {normal(m.content) for part in files for s in part for m in s.messages if m.role == "user"}


def ours(home: Home, base: Base, days: Sequence[Day], tell: Tell) -> Lived:
    """Every day is chatted, every night slept, by the product as it is."""
    lived = Lived()
    for number, day in enumerate(days, 1):
        talk(home, base, said_on(day))
        began = cpu_s()
        night = sleep(home, base, tag=f"night-{number:03d}")
        lived.cost_s.append(cpu_s() - began)
        _note(lived, home, base, night, days[:number])
        cost, told = lived.cost_s[-1], lived.day_recall[-1]
        tell(
            f"night {number} {night.outcome}: {cost:.0f} CPU s, day {told:.3f}, all {lived.curve[-1]:.3f}"
            f"{'; ' + night.reason if night.reason else ''}"
        )
    seen = seen_wordings(home)
    with worn(base, home):
        lived.retained = recall(base, current(days), seen=seen)
        strangers = ask(base, [q for day in days for q in day.strangers])
    values = {fact.expect.lower() for day in days for fact in day.told}
    lived.made_up = sum(any(v in a.lower() for v in values) for a in strangers) / len(strangers)
    asked = [q for fact in current(days) for q in fact.ask]
    lived.seen_wordings = sum(normal(q) in seen for q in asked)
    return lived


def _note(lived: Lived, home: Home, base: Base, night: Night, so_far: Sequence[Day]) -> None:
    day, seen = so_far[-1], seen_wordings(home)
    lived.nights.append(night)
    with worn(base, home):
        lived.day_recall.append(recall(base, day.told, seen=seen))
        lived.curve.append(recall(base, current(so_far), seen=seen, most=1))
        if day.wish:
            lived.wishes.append(_right(ask(base, GREETINGS), [day.nickname] * len(GREETINGS)))
    if night.before and not lived.first.tasks:
        lived.first = night.before
    if night.after and night.outcome == "passed":
        lived.last = night.after
    store = Store(home)
    lived.steps.append(store.read(night.tag).manifest.run.steps if night.tag in store.names() else 0)


def scratch(home: Home, base: Base, days: Sequence[Day], tell: Tell) -> Lived:
    """Everything ever told, learned in one night from the bare base: what ours would cost without a past."""
    lived = Lived()
    for day in days:
        talk(home, base, said_on(day))
    began = cpu_s()
    night = sleep(home, base, tag="scratch")
    lived.cost_s.append(cpu_s() - began)
    lived.nights.append(night)
    lived.first, lived.last = night.before or Report(), night.after or Report()
    made = Store(home).names()  # its pack is asked whatever the gate says of it
    packs = {name: Store(home).read(name) for name in made}
    with attached(base.model, packs, fingerprint=base.fingerprint):
        lived.retained = recall(base, current(days), seen=seen_wordings(home))
    cost = lived.cost_s[-1]
    tell(f"from scratch {night.outcome}: {cost:.0f} CPU s, all {lived.retained:.3f}; {night.reason}")
    return lived


def plain(
    home: Home, base: Base, days: Sequence[Day], steps: Sequence[int], tell: Tell, *, rate: float
) -> Lived:
    """mlx-lm's own LoRA trainer every night on the same day, from the adapter of the night before.

    It gets the day's chats and the questions and answers that our night made of them (those that ours learned
    from), our rank and scale on the same modules, and as many steps. base: one of its own, which it changes.
    rate: its peak learning rate; 0 for ours.
    """
    lived = Lived()
    settings = read_settings(home)
    config = fitted(settings.night, base)
    judge = settings.judge
    lived.first = measure(base, tonight=[], earlier=[], config=judge)
    _wear_lora(base, config.rank, config.scale(config.rank))
    seen = seen_wordings(home)
    for number, day in enumerate(days, 1):
        lessons = _lessons(home, number)
        replies = ask(base, said_on(day))
        chats = [
            Sample((Message("user", said), Message("assistant", reply)))
            for said, reply in zip(said_on(day), replies, strict=True)
            if reply
        ]
        began = cpu_s()
        if steps[number - 1]:
            _train_lora(base, chats + lessons, steps[number - 1], rate or config.learning_rate, seed=number)
        lived.cost_s.append(cpu_s() - began)
        lived.day_recall.append(recall(base, day.told, seen=seen))
        lived.curve.append(recall(base, current(days[:number]), seen=seen, most=1))
        tell(f"plain night {number}: day {lived.day_recall[-1]:.3f}, all {lived.curve[-1]:.3f}")
    lived.retained = recall(base, current(days), seen=seen)
    lived.last = measure(base, tonight=[], earlier=[], config=judge)
    return lived


def _lessons(home: Home, number: int) -> list[Sample]:
    file = home.nights / f"night-{number:03d}" / "train.jsonl"
    return from_jsonl(file.read_bytes()) if file.exists() else []


def _wear_lora(base: Base, rank: int, scale: float) -> None:
    from mlx_lm.tuner.utils import linear_to_lora_layers

    layers = base.model.layers
    prefix = len("model.layers.0.")
    keys = {path[prefix:] for path in targets(base.model) if path.startswith("model.layers.0.")}
    base.model.freeze()
    settings = {"rank": rank, "scale": scale, "dropout": 0.0, "keys": keys}
    linear_to_lora_layers(base.model, len(layers), settings)


def _train_lora(base: Base, samples: Sequence[Sample], steps: int, rate: float, *, seed: int) -> None:
    from mlx_lm.tuner import trainer
    from mlx_lm.tuner.datasets import CacheDataset, ChatDataset

    mx.random.seed(seed)
    rows = [{"messages": [m.as_dict() for m in s.messages]} for s in samples]
    data = CacheDataset(ChatDataset(rows, base.tokenizer, mask_prompt=True))
    with tempfile.TemporaryDirectory() as folder, _quiet():
        trainer.train(
            base.model,
            optim.Adam(learning_rate=rate),
            data,
            args=trainer.TrainingArgs(
                batch_size=min(PLAIN_BATCH, len(rows)),
                iters=steps,
                steps_per_report=10**9,
                steps_per_save=10**9,
                adapter_file=str(Path(folder) / "adapters.safetensors"),
            ),
        )
    base.model.eval()


PLAIN_BATCH = 16  # samples; as many tokens as ours has in a step


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def refuses(home: Home, base: Base, prepare: Callable[[Home], None], tag: str) -> bool:
    """Whether a night prepared to be bad leaves what was worn in place."""
    before = Store(home).active()
    prepare(home)
    try:
        night = sleep(home, base, tag=tag)
    except PlasticError:
        return Store(home).active() == before
    return night.outcome == "failed" and Store(home).active() == before


__all__ = ["JudgeConfig", "Lived", "ours", "plain", "recall", "refuses", "scratch", "told_recall"]
