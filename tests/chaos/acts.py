"""What is being done when the bad day comes, and how to see that nothing was lost by it.

An act is prepared once, in a room that every life gets a copy of. `do` tells each promise when it is made;
`check` looks at the room after the fault, goes on to the end, and gives back what must be as if nothing had
happened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import test_store
from chaos import by_day, by_night, checkpoints, moving, served
from chaos.lives import Tell


@dataclass(frozen=True)
class Act:
    """A thing that people do, in one of several ways (`which`); all are given checkpoint and room first."""

    prepare: Callable[[Path, Path], None]
    do: Callable[[Path, Path, Tell, str], None]
    check: Callable[[Path, Path, Sequence[str], str], Any]
    ways: tuple[str, ...] = ("",)


def nothing(checkpoint: Path, room: Path) -> None:
    room.mkdir()


ACTS = {
    "chat": Act(nothing, by_day.chat, by_day.chatted),
    "memory": Act(by_day.begun_memory, by_day.remember, by_day.remembered),
    "store": Act(by_day.begun_store, by_day.keep, by_day.kept, tuple(test_store.STEPS)),
    "night": Act(by_night.begun_night, by_night.sleep, by_night.slept),
    "create": Act(by_night.begun_pack, by_night.create, by_night.created),
    "forget": Act(by_night.learned_secrets, by_night.forget_them, by_night.forgotten),
    "survey": Act(checkpoints.begun_survey, checkpoints.survey, checkpoints.surveyed),
    "compress": Act(checkpoints.begun_compression, checkpoints.compress, checkpoints.compressed),
    "export": Act(moving.begun_home, moving.write_out, moving.written),
    "import": Act(moving.begun_archive, moving.take_in, moving.taken_in),
    "serve": Act(nothing, served.serve, served.served),
}
