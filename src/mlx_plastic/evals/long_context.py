"""Recall from a long context: one thing told among other talk, asked for at the end, by length and depth."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

from mlx_plastic.errors import BadData
from mlx_plastic.evals.harness import Task
from mlx_plastic.samples import Message

Length = Callable[[Sequence[Message]], int]  # of a conversation as the model reads it, in tokens

NAMES = "Nora Leon Mina Jonas Tessa Rufus Elsa Dario Marit Casper Frida Ivo".split()
THINGS = (
    ("city", "{name} lives in {value}.", "Where does {name} live?", "Lisbon Vienna Oslo Berlin Rome Cairo"),
    ("colour", "{name}'s favourite colour is {value}.", "What is {name}'s favourite colour?",
     "green purple orange yellow brown pink"),
    ("pet", "{name}'s dog is called {value}.", "What is {name}'s dog called?", "Rex Bruno Tom Bello Luna"),
    ("job", "{name}'s job is {value}.", "What is {name}'s job?", "baker teacher plumber nurse pilot painter"),
)  # fmt: skip


def long_tasks(
    lengths: Sequence[int],
    depths: Sequence[float],
    talk: Sequence[Sequence[Message]],
    length: Length,
    *,
    each: int = 1,
    seed: int = 0,
) -> list[Task]:
    """`each` tasks for every length (tokens) and depth (0: told first, 1: just before the question).

    talk: conversations to fill with, repeated as needed. A task is as long as it can be without exceeding its
    length. Raises BadData if a length is too small for the question alone.
    """
    draw = random.Random(seed)
    places = [(n, depth, i) for n in lengths for depth in depths for i in range(1, each + 1)]
    return [_task(n, depth, i, talk, length, draw) for n, depth, i in places]


def _task(
    tokens: int,
    depth: float,
    number: int,
    talk: Sequence[Sequence[Message]],
    length: Length,
    draw: random.Random,
) -> Task:
    _, said, asked, values = draw.choice(THINGS)
    name, value = draw.choice(NAMES), draw.choice(values.split())
    fact = said.format(name=name, value=value)
    told = [Message("user", fact), Message("assistant", f"Noted. {fact}")]
    question = Message("user", asked.format(name=name))
    filler = _fill(tokens - length([*told, question]), talk, length, draw)
    if filler is None:
        raise BadData(f"{tokens} tokens do not hold the question", hint="ask for a greater length")
    at = round(depth * len(filler))
    messages = [m for pair in (*filler[:at], told, *filler[at:]) for m in pair]
    tags = (f"{tokens} tokens", f"depth {depth:g}")
    name = f"long-{tokens}-{round(100 * depth):03d}-{number}"
    return Task(name, "long-context", (*messages, question), {"contains": [value]}, tags)


def _fill(
    room: int, talk: Sequence[Sequence[Message]], length: Length, draw: random.Random
) -> list[list[Message]] | None:
    """Exchanges drawn from the talk that have up to `room` tokens together; None: less than none."""
    pairs = [
        [first, second]
        for chat in talk
        for first, second in itertools.pairwise(chat)
        if (first.role, second.role) == ("user", "assistant")
    ]
    if room < 0:
        return None
    if not pairs:
        raise BadData("no talk to fill the context with", hint="give chats of questions and answers")
    sizes = [length(pair) for pair in pairs]
    found: list[list[Message]] = []
    while fitting := [i for i, size in enumerate(sizes) if size <= room]:
        i = draw.choice(fitting)
        found.append(pairs[i])
        room -= max(1, sizes[i])
    return found


def summary(tasks: Sequence[Task], passed: dict[str, bool]) -> list[dict[str, Any]]:
    """The share recalled for each length and depth."""
    groups: dict[tuple[str, ...], list[bool]] = {}
    for task in tasks:
        groups.setdefault(task.tags, []).append(passed[task.id])
    return [
        {
            "tokens": int(tags[0].split()[0]),
            "depth": float(tags[1].split()[1]),
            "n": len(hits),
            "recall": sum(hits) / len(hits),
        }
        for tags, hits in groups.items()
    ]
