"""The teacher: asked about notes that may leave, patiently, and for what it costs."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mlx_plastic.errors import BadConfig
from mlx_plastic.memory import Turn
from mlx_plastic.memory.privacy import policy_for, redact
from mlx_plastic.memory.privacy.policies import PrivacyConfig
from mlx_plastic.memory.tags import UNTAUGHT, tags_in
from mlx_plastic.sleep.teacher.config import TeacherConfig
from mlx_plastic.sleep.teacher.pairs import Pair, parse_pairs, prompt
from mlx_plastic.sleep.teacher.reply import Line, Passing, Reply, TeacherFailed

log = logging.getLogger(__name__)

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
GIVE_UP = 3  # notes in a row that fail: then the teacher is not asked any more this night


@dataclass
class Bill:
    """What the teacher was asked and what came of it. withheld: notes that were not sent, being private."""

    requests: int = 0
    failed: int = 0  # notes without an answer that could be used
    retried: int = 0
    withheld: int = 0
    pairs: int = 0
    malformed: int = 0  # items of answers that were no pairs
    tokens_in: int = 0
    tokens_out: int = 0
    dollars: float = 0.0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"dollars": round(self.dollars, 6), "seconds": round(self.seconds, 2)}


@dataclass
class Teacher:
    """line: how it is reached. told: a line for a person about each request; ids and counts, never text.

    wait: sleeps so many seconds; a test gives its own.
    """

    config: TeacherConfig
    line: Line
    told: Callable[[str], None] | None = None
    wait: Callable[[float], None] = time.sleep
    bill: Bill = field(default_factory=Bill)

    def pairs(self, notes: Sequence[Turn]) -> dict[str, list[Pair]]:
        """Questions and answers by the turn of their note, unchecked; nothing for notes that failed.

        A note that is private in any way is withheld: tagged so, or with something in it that may not be
        learned as it stands.
        """
        found: dict[str, list[Pair]] = {}
        failures = 0
        for note in notes:
            if not may_leave(note):
                self.bill.withheld += 1
                self._tell(f"{note.id}: withheld, it is private")
            elif failures < GIVE_UP and self.bill.requests < self.config.requests:
                found[note.id] = self._about(note)
                failures = 0 if found[note.id] else failures + 1
        if failures == GIVE_UP:
            log.warning("the teacher failed %d notes in a row and was not asked any more", GIVE_UP)
        return {turn: pairs for turn, pairs in found.items() if pairs}

    def _about(self, note: Turn) -> list[Pair]:
        began = time.monotonic()
        try:
            reply = self._patiently(prompt(note.content, self.config.questions))
        except TeacherFailed as error:
            self.bill.failed += 1
            log.info("the teacher on %s: %s", note.id, error.message)
            self._tell(f"{note.id}: {error.message}")
            return []
        finally:
            self.bill.seconds += time.monotonic() - began
        pairs, malformed = parse_pairs(reply.text, self.config.questions)
        self.bill.pairs += len(pairs)
        self.bill.malformed += malformed
        self.bill.failed += not pairs
        used = f"{reply.tokens_in} + {reply.tokens_out} tokens"
        self._tell(f"{note.id}: {len(pairs)} pairs, {malformed} malformed, {used}")
        return pairs

    def _patiently(self, text: str) -> Reply:
        """The reply, asked again after growing waits where the failure may pass. Raises TeacherFailed."""
        for attempt in range(self.config.retries + 1):
            if self.bill.requests >= self.config.requests:
                raise TeacherFailed(f"all {self.config.requests} requests of the night are used up")
            self.bill.requests += 1
            try:
                reply = self.line.ask(text)
            except Passing as error:
                if attempt == self.config.retries:
                    raise
                self.bill.retried += 1
                grown = FIRST_WAIT_S * 2**attempt * (1 + random.random() / 4)  # not all clients at once
                self.wait(min(LONGEST_WAIT_S, max(grown, error.after_s)))
                continue
            self._count(reply)
            return reply
        raise AssertionError("the last attempt returns or raises")

    def _count(self, reply: Reply) -> None:
        self.bill.tokens_in += reply.tokens_in
        self.bill.tokens_out += reply.tokens_out
        cost = reply.tokens_in * self.config.dollars_in + reply.tokens_out * self.config.dollars_out
        self.bill.dollars += cost / 1e6

    def _tell(self, text: str) -> None:
        if self.told is not None:
            self.told(f"teacher: {text}")


def may_leave(note: Turn) -> bool:
    """Whether a note may be sent: not tagged private, and nothing in it that would be masked or dropped.

    It is held against the policy as shipped, whatever the person's own allows: what may be learned on this
    machine need not be seen by another. Names of people are sent, unless the person's own policy masks them.
    """
    if (note.tags | tags_in(note.content)) & UNTAUGHT:
        return False
    found = redact(note.content, policy_for("training", PrivacyConfig()))
    return not found.dropped and found.text == note.content


def open_teacher(config: TeacherConfig, told: Callable[[str], None] | None = None) -> Teacher | None:
    """The teacher that [teacher] names; None if it names none. Raises BadConfig for a key that is missing."""
    if not config.kind:
        return None
    key = os.environ.get(config.key_name, "") if config.key_name else ""
    if config.key_name and not key:
        raise BadConfig(
            f"[teacher] {config.kind} needs a key in {config.key_name}, which is not set",
            hint=f"export {config.key_name}=..., or name another variable: key_variable",
        )
    line: Line
    if config.kind == "gemini":
        from mlx_plastic.sleep.teacher.gemini import GeminiLine

        line = GeminiLine(config.url, config.model, key, config.timeout_s)
    else:
        from mlx_plastic.sleep.teacher.openai import OpenAILine

        line = OpenAILine(config.url, config.model, key, config.timeout_s)
    return Teacher(config, line, told)
