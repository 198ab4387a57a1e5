"""A text with what is in it: how the measured texts are made."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Marked:
    """finds: (start, end, what) of all that must be masked."""

    text: str
    finds: tuple[tuple[int, int, str], ...]


def filled(template: str, slots: Mapping[str, Callable[[], str]], marks: Mapping[str, str]) -> Marked:
    """The template with its {slots} filled; marks: slot -> what it is, for those that must be masked."""
    text, finds, at = "", [], 0
    template = template.replace("\\n", "\n")
    for slot in SLOT.finditer(template):
        text += template[at : slot.start()]
        value = slots[slot[1]]()
        if slot[1] in marks:
            finds.append((len(text), len(text) + len(value), marks[slot[1]]))
        text, at = text + value, slot.end()
    return Marked(text + template[at:], tuple(finds))


def typed(marked: Marked, draw: random.Random) -> Marked:
    """The same in lower case, in capitals or without its last mark: as people type."""
    text, kind = marked.text, draw.random()
    if kind < 0.55:
        text = text.lower()
    elif kind < 0.65:
        text = text.upper()
    if len(text) != len(marked.text):
        return marked
    if text[-1:] in ".!?" and draw.random() < 0.5 and all(end < len(text) for _, end, _ in marked.finds):
        text = text[:-1]
    return Marked(text, marked.finds)


def some(draw: random.Random, letters: str, count: int) -> str:
    return "".join(draw.choices(letters, k=count))


def pick(draw: random.Random, makers: Sequence[Callable[[], str]]) -> str:
    return draw.choice(makers)()
