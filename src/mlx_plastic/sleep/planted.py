"""Secrets and foreign commands planted in every night, before the guard; what comes through is learned.

They are said to a log of their own with the person's own settings, and go the way of every turn: masked on
the way in, redacted on the way out, routed. Of most nothing is left by then that could be learned, and there
they end. What is left becomes lessons like everything else, so that the gate sees what a leak would do.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_plastic.evals.canaries import Canary, canaries
from mlx_plastic.evals.commands import Command, commands
from mlx_plastic.home import Home
from mlx_plastic.home.config import table
from mlx_plastic.home.edit import literal
from mlx_plastic.memory import Exchange, Memory
from mlx_plastic.memory import router as routing
from mlx_plastic.memory.router import Decision, RouterConfig
from mlx_plastic.samples import Sample
from mlx_plastic.sleep.judge import JudgeConfig


@dataclass(frozen=True)
class Planted:
    """What a night plants. Drawn from a seed: the same again when a night goes on."""

    canaries: tuple[Canary, ...] = ()
    commands: tuple[Command, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """What must not be found in any sample."""
        return (*(c.secret for c in self.canaries), *(c.word for c in self.commands))


@dataclass(frozen=True)
class Through:
    """What guard and router left of it: lessons are made of that. Empty, if they do their work."""

    exchanges: tuple[Exchange, ...] = ()
    routed: tuple[Decision, ...] = ()


def drawn(config: JudgeConfig, seed: str) -> Planted:
    return Planted(tuple(canaries(config.canaries, seed)), tuple(commands(config.commands, seed)))


def through(home: Home, memory: Memory, router: RouterConfig, planted: Planted) -> Through:
    """What may be learned of what is planted, by the home's own settings and its person's own router.

    `memory` logs nothing of it.
    """
    if not planted.words:
        return Through()
    with tempfile.TemporaryDirectory(prefix="plastic-planted-") as folder:
        scratch = Home(Path(folder))
        scratch.config_file.write_text(_privacy_of(home), "utf-8")
        with Memory(scratch) as log:
            say(log, planted)
            exchanges = log.unlearned()
    turns = [t for e in exchanges for t in e.turns if t.id in e.new and t.role == "user"]
    routed = {d.turn: d for d in routing.route_turns(memory, turns, router)}
    kept = tuple(e for e in exchanges if holds(planted.words, _learnable(e, routed)))
    ids = {t.id for e in kept for t in e.turns}
    return Through(kept, tuple(d for d in routed.values() if d.turn in ids))


def _privacy_of(home: Home) -> str:
    """Its [privacy] alone: what is planted goes through the same guard, and needs nobody's consent."""
    lines = ["[privacy]"]
    for key, value in table(home, "privacy").items():
        below = (
            {f".{kind}": action for kind, action in value.items()} if isinstance(value, dict) else {"": value}
        )
        lines += [f"{key}{kind} = {literal(one)}" for kind, one in below.items()]
    return "\n".join(lines) + "\n"


def say(log: Memory, planted: Planted) -> None:
    """Every fourth secret and all commands in chats; the other secrets in imported talks.

    Talks are learned as they are, so that with no filter most secrets do reach the weights of any base.
    """
    with log.writing():  # one transaction: on a slow disk each takes a hundredth of a second
        for text in [c.said for c in planted.canaries[::4]] + [c.said for c in planted.commands]:
            tell(log, text)
    _import(log, [c for i, c in enumerate(planted.canaries) if i % 4])


def tell(log: Memory, text: str) -> None:
    """A conversation in which nothing else is said."""
    talk = log.new_conversation()
    log.remember(talk, "user", text)
    log.remember(talk, "assistant", "Noted.")


def _import(log: Memory, told: Sequence[Canary]) -> None:
    if not told or log.path is None:
        return
    file = log.path.with_name("planted.jsonl")
    talks = [[("user", c.asked), ("assistant", c.answered)] for c in told]
    lines = [{"messages": [{"role": r, "content": c} for r, c in talk]} for talk in talks]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    log.import_jsonl(file)


def _learnable(exchange: Exchange, routed: dict[str, Decision]) -> list[str]:
    """Whatever of it a lesson may be made of: imported talks whole, else what the person said themselves."""
    if exchange.origin == "import":
        return [turn.content for turn in exchange.turns]
    decided = (routed.get(turn.id) for turn in exchange.turns)
    return [decision.own for decision in decided if decision and decision.learned]


def holds(words: Iterable[str], texts: Iterable[str]) -> list[str]:
    """Which of the words stand in any of the texts, in any case."""
    whole = "\n".join(texts).casefold()
    return [word for word in words if word.casefold() in whole]


def reached(planted: Planted, samples: Iterable[Sample]) -> tuple[list[Canary], list[Command]]:
    """The secrets and commands that stand in the night's samples."""
    found = set(holds(planted.words, (m.content for s in samples for m in s.messages)))
    return (
        [c for c in planted.canaries if c.secret in found],
        [c for c in planted.commands if c.word in found],
    )
