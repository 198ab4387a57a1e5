"""The privacy policies at work on turns: on their way into the log, and from there into lessons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from mlx_plastic.home import Home, settings
from mlx_plastic.memory.privacy import (
    Destination,
    Placeholders,
    Policy,
    PrivacyConfig,
    Redacted,
    read_policy,
    redact_all,
)
from mlx_plastic.memory.privacy.second import Answers, SecondReader
from mlx_plastic.memory.privacy.spans import By
from mlx_plastic.memory.records import Exchange, Redaction, exchanges, iso, parse_time

if TYPE_CHECKING:
    from mlx_plastic.memory.log import Memory

MOST_TALKS = 64  # conversations whose placeholders are remembered; of an older one the numbering goes on


class Guard:
    """For one log. Policies are read from config.toml when first needed; BadConfig then.

    home: None is a private session in RAM: nothing is stored, so nothing is masked on the way in.
    """

    def __init__(self, memory: Memory, home: Home | None) -> None:
        self._memory, self._home = memory, home
        self._talks: dict[str, Placeholders] = {}
        self._reader: SecondReader | None = None

    def policy(self, destination: Destination) -> Policy:
        return read_policy(self._home, destination)

    @cached_property
    def _storage(self) -> Policy | None:
        return self.policy("storage") if self._home else None

    # -- into the log

    def stored(self, conversation: str, content: str) -> Redacted | None:
        """A new turn's text as it is to be logged; None: as it is.

        The same secret has the same placeholder, and is known where it is only used, for as long as this
        process knows the conversation.
        """
        if self._storage is None:
            return None
        known = conversation in self._talks and any(self._talks[conversation].again(content))
        if not known and not redact_all([content], self._storage)[0].masked:
            return None
        return redact_all([content], self._storage, self._talk(conversation))[0]

    def _talk(self, conversation: str) -> Placeholders:
        """The placeholders of a conversation; new numbers go on from what the log holds of it."""
        if conversation not in self._talks:
            while len(self._talks) >= MOST_TALKS:
                del self._talks[next(iter(self._talks))]
            talk = self._talks[conversation] = Placeholders()
            for turn in self._memory.turns(conversation=conversation, undone=True):
                talk.reserve(turn.content)
        return self._talks[conversation]

    def stored_all(self, contents: Sequence[str]) -> list[Redacted] | None:
        """An imported conversation as it is to be logged, always the same for the same texts."""
        return None if self._storage is None else redact_all(contents, self._storage)

    # -- into lessons

    def ask(self, base: Answers) -> None:
        """From now on this base reads lessons too, if config.toml wants a second reader. Raises BadConfig."""
        config = settings(self._home, "privacy", PrivacyConfig)
        self._reader = SecondReader(base, config.second_reader_texts) if config.second_reader else None

    def learnable(self, talks: Iterable[Exchange]) -> list[Exchange]:
        """The conversations as they may be learned from; of an exchange with a dropped turn nothing stays."""
        kept, noted = [], dict[str, Redacted]()
        for talk in talks:
            done = redact_all([turn.content for turn in talk.turns], self._training, reader=self._reader)
            told = {turn.id: found for turn, found in zip(talk.turns, done, strict=True)}
            groups = (g for g in exchanges(talk.turns) if not any(told[turn.id].dropped for turn in g))
            turns = tuple(replace(t, content=told[t.id].text) for group in groups for t in group)
            kept.append(replace(talk, turns=turns, new=talk.new & {t.id for t in turns}))
            noted |= told
        before = self._memory.run("SELECT DISTINCT turn FROM redactions WHERE destination = 'training'")
        if self._reader and noted:
            self._reader.tell()
        self.note("training", noted, again=[turn for (turn,) in before if turn in noted])
        return kept

    @cached_property
    def _training(self) -> Policy:
        return self.policy("training")

    # -- what was done, in counts

    def note(self, destination: Destination, done: Mapping[str, Redacted], again: Sequence[str] = ()) -> None:
        """Turn ids and what was done to them. again: turns of which something is noted that this replaces."""
        at = iso(self._memory.now())
        rows = [
            (turn, destination, kind, action, count, at, by)
            for turn, found in done.items()
            for (kind, action), total in found.actions.items()
            for by, count in _by(total, found.read.get((kind, action), 0))
            if action != "keep" and count
        ]
        if rows or again:
            with self._memory.writing():
                stale = [(turn, destination) for turn in again]
                self._memory.run_many("DELETE FROM redactions WHERE turn = ? AND destination = ?", stale)
                self._memory.run_many("INSERT INTO redactions VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def noted(self) -> list[Redaction]:
        rows = self._memory.run(
            "SELECT at, destination, kind, action, turn, count, found_by FROM redactions ORDER BY at, turn"
        )
        return [Redaction(parse_time(at), *rest) for at, *rest in rows]

    def dropped(self) -> set[str]:
        """Turns that the last night left out."""
        sql = "SELECT DISTINCT turn FROM redactions WHERE destination = 'training' AND action = 'drop'"
        return {turn for (turn,) in self._memory.run(sql)}


def _by(total: int, read: int) -> tuple[tuple[By, int], ...]:
    return ("detectors", total - read), ("second reader", read)
