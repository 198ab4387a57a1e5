"""Which of a day's turns tell something to learn, and how they are quoted to the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mlx_plastic.memory import Exchange, Turn
from mlx_plastic.memory.router import Decision
from mlx_plastic.samples import Message

WISH = re.compile(
    r"\b(call me|from now on|address me|greet me|always (answer|say|reply|end|begin|start|use)|"
    r"(answer|reply|speak|write) (always|to me) )",
    re.IGNORECASE,
)


def notes_message(notes: Iterable[str]) -> Message:
    """What is remembered, quoted to the model as data before a question."""
    return Message(
        "system", "Notes from earlier talks:\n" + "\n".join(f"- {' '.join(n.split())}" for n in notes)
    )


def new_turns(exchanges: Sequence[Exchange]) -> list[Turn]:
    """What the person said that no passed night has learned from."""
    return [t for e in exchanges for t in e.turns if t.id in e.new and t.role == "user"]


def notes_of(
    exchanges: Sequence[Exchange], *, longest: int, routed: Mapping[str, Decision] | None = None
) -> list[Turn]:
    """New user turns that tell something: no questions, no commands, not longer than `longest` characters.

    routed: where each goes; those that are not to be learned are left out, and of the others stays what the
    person said in their own words. None: all are to be learned, as they are.
    """
    turns = new_turns(exchanges)
    if routed is not None:
        turns = [replace(t, content=routed[t.id].own) for t in turns if routed[t.id].learned]
    return [t for t in turns if len(t.content) <= longest and not t.content.rstrip().endswith("?")]


def is_wish(turn: Turn) -> bool:
    return WISH.search(turn.content) is not None
