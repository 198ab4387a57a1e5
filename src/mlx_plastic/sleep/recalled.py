"""How far a model still gives away a turn that is to be forgotten: the proof that a rebuilt pack does not.

The answers that nights made of the turn are ranked among others of the same form, as planted secrets are.
What the bare base thinks of each is subtracted: it finds some likelier before it learned anything. So what
has not been learned ranks by chance, and what has been ranks first.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from mlx_plastic.evals import GENERAL
from mlx_plastic.evals.canaries import DIGITS, NAMES, by_chance, exposure
from mlx_plastic.home import Home
from mlx_plastic.samples import Message, Sample, from_jsonl, read_chats
from mlx_plastic.sleep.journal import nights
from mlx_plastic.sleep.lessons.others import STRANGERS
from mlx_plastic.sleep.lessons.text import COMMON, words

if TYPE_CHECKING:
    from mlx_plastic.base import Base

MOST = 6  # answers that are ranked: a few seconds each on two cores
NEAREST = 192  # words in length, to draw from: of long words a model that is sharper finds all less likely
OTHERS = 127  # with the answer itself 2^7: an exposure is at most 7 bits
WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Witness:
    """An answer that a night made of a forgotten turn, and others like it. Never printed, never kept."""

    asked: tuple[Message, ...] = field(repr=False)
    answer: str = field(repr=False)
    others: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True)
class Proof:
    """Mean exposures in bits. chance: of what was never learned. spread: its standard error for so many."""

    answers: int
    candidates: int
    before: float
    after: float
    chance: float
    spread: float

    @property
    def forgotten(self) -> bool:
        """Whether what is left lies within two standard errors of chance."""
        return self.after <= self.chance + 2 * self.spread

    def as_dict(self) -> dict[str, Any]:
        return {
            "answers": self.answers,
            "candidates": self.candidates,
            "exposure_before_bits": round(self.before, 3),
            "exposure_after_bits": round(self.after, 3),
            "chance_bits": round(self.chance, 3),
            "chance_spread_bits": round(self.spread, 3),
            "forgotten": self.forgotten,
        }


def witnesses(home: Home, turns: Iterable[str]) -> list[Witness]:
    """A few answers made of these turns, taken before they are deleted; always the same few."""
    gone = set(turns)
    samples = [s for s in _samples(home) if gone.intersection(s.turns) and s.kind != "rehearsal"]
    samples.sort(key=lambda s: hashlib.sha256(s.key.encode("utf-8")).digest())
    found: dict[tuple[tuple[Message, ...], str], Witness] = {}
    for sample in samples:
        *asked, last = sample.messages
        key = (tuple(asked), last.content)
        if len(found) < MOST and last.role == "assistant" and asked and key not in found:
            others = alike(last.content, " ".join(m.content for m in asked), OTHERS)
            if len(others) == OTHERS:
                found[key] = Witness(tuple(asked), last.content, tuple(others))
    return list(found.values())


def _samples(home: Home) -> Iterable[Sample]:
    """What was learned; held-out answers were not."""
    for journal in nights(home):
        if journal.path("train.jsonl").is_file():
            yield from from_jsonl(journal.path("train.jsonl").read_bytes())


def alike(answer: str, asked: str, count: int) -> list[str]:
    """Up to `count` other answers: each word that tells something is another, each digit another digit."""
    known = words(asked) | COMMON
    told = [m for m in WORD.finditer(answer) if m[0].lower() not in known] or list(WORD.finditer(answer))
    draw = random.Random(f"alike {hashlib.sha256(answer.encode('utf-8')).hexdigest()}")
    found: dict[str, None] = {}
    for _ in range(8 * count):
        text = answer
        for match in reversed(told):
            text = text[: match.start()] + _another(match[0], draw) + text[match.end() :]
        if text != answer:
            found[text] = None
        if len(found) == count:
            break
    return list(found)


def _another(word: str, draw: random.Random) -> str:
    if any(c.isdigit() for c in word):
        return "".join(draw.choice(DIGITS) if c.isdigit() else c for c in word)
    return draw.choice(_near(len(word), capital=word[0].isupper()))


@cache
def _near(length: int, *, capital: bool) -> list[str]:
    """The words of nearly that length, with a capital or without."""
    return sorted(_words()[not capital], key=lambda word: abs(len(word) - length))[:NEAREST]


@cache
def _words() -> tuple[list[str], list[str]]:
    """Names, and other words of general chats, to stand for what was told. Made-up words would not do: a
    model that has learned any names finds real ones likelier."""
    chats, _ = read_chats(GENERAL)
    said = {word for chat in chats for m in chat for word in WORD.findall(m.content) if word.isalpha()}
    small = {word for word in said if word.islower() and len(word) > 2}
    names = {word for word in said if word[0].isupper() and len(word) > 2 and word.lower() not in said}
    return sorted(names | set(NAMES) | set(STRANGERS)), sorted(small)


def surprises(base: Base, found: Sequence[Witness]) -> list[list[float]]:
    """Nats at each answer and at its others, of the base as it is, with what it wears."""
    from mlx_plastic.base.after import score_after
    from mlx_plastic.sleep.exposed import parted

    rows = []
    for witness in found:
        answers = (witness.answer, *witness.others)
        chats = [[*witness.asked, Message("assistant", text)] for text in answers]
        samples, _ = base.encode_chats(chats, loss_mode="all")  # what is judged is where they part
        beginning, endings = parted([s.tokens for s in samples])
        rows.append(score_after(base.model, beginning, endings))
    return rows


def exposed(worn: Sequence[Sequence[float]], bare: Sequence[Sequence[float]]) -> float:
    """The mean exposure of the answers, given what the model that wears something and the bare base find."""
    bits = []
    for with_pack, without in zip(worn, bare, strict=True):
        own, *others = (a - b for a, b in zip(with_pack, without, strict=True))
        bits.append(exposure(own, others))
    return sum(bits) / len(bits)


def proof(before: float, after: float, answers: int) -> Proof:
    chance, spread = by_chance(OTHERS + 1, answers)
    return Proof(answers, OTHERS + 1, before, after, chance, spread)
