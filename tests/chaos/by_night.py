"""A night, the training of a pack, and forgetting, disturbed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chaos.lives import Tell, folder_bytes
from mlx_plastic.base import load_base
from mlx_plastic.cli.main import Failure, plastic
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.packs import Store
from mlx_plastic.sleep import forget as forgetting
from mlx_plastic.sleep.pending import pending
from mlx_plastic.sleep.unlearn import forget
from night_kills import after_kill, one_night, state
from test_forget import LEARNS, SECRETS, lived
from test_night import say

# -- a night


def begun_night(checkpoint: Path, room: Path) -> None:
    room.mkdir()
    say(Home(room))


def sleep(checkpoint: Path, room: Path, tell: Tell, which: str) -> None:
    one_night(checkpoint, room, -1)


def slept(checkpoint: Path, room: Path, promised: Sequence[str], which: str) -> Any:
    after_kill(room)
    one_night(checkpoint, room, -1)
    return state(room)


# -- a pack that is trained


def begun_pack(checkpoint: Path, room: Path) -> None:
    room.mkdir()
    say(Home(room))
    Home(room).config_file.write_text("[train]\ncheckpoint_every = 2\nvalid_every = 3\n")


def create(checkpoint: Path, room: Path, tell: Tell, which: str) -> None:
    words = ["--name", "p", "--base", str(checkpoint), "--data", str(room / "Rex.jsonl"), "--steps", "8"]
    command(room, "packs", "create", *words, *which.split())


def created(checkpoint: Path, room: Path, promised: Sequence[str], which: str) -> str:
    store = Store(Home(room))
    if "p" not in store.names():
        create(checkpoint, room, lambda line: None, "--resume")
    return store.read("p").manifest.sha256


def command(room: Path, *words: str) -> None:
    """Raises what the command raises, as a PlasticError where it is one."""
    try:
        plastic.main(["--home", str(room), *words], standalone_mode=False)
    except Failure as error:
        raise error.__cause__ or error from None


# -- forgetting, and learning again what remains


def learned_secrets(checkpoint: Path, room: Path) -> None:
    room.mkdir()
    lived(Home(room), load_base(str(checkpoint)))


def forget_them(checkpoint: Path, room: Path, tell: Tell, which: str) -> None:
    home = Home(room)
    with Memory(home) as memory:
        secret = [turn.id for turn in memory.turns() if "blue" in turn.content]
    if secret or pending(home):
        found = forgetting.plan(home, secret) if secret else None
        forget(home, load_base(str(checkpoint)), found, chosen=LEARNS)


def forgotten(checkpoint: Path, room: Path, promised: Sequence[str], which: str) -> Any:
    forget_them(checkpoint, room, lambda line: None, which)
    store, left = Store(Home(room)), b"".join(folder_bytes(room).values())
    assert [who for who in SECRETS.values() if who.encode() in left] == [], "what was forgotten is there"
    assert b"The cat is called" in left  # control: such words are found
    return [store.read(name).manifest.sha256 for name in store.active()]
