"""A home written to one file, and put back from it, disturbed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from chaos.by_night import begun_night, command
from chaos.lives import Tell
from mlx_plastic.home import Home
from mlx_plastic.home.contents import carried
from mlx_plastic.home.export import HALF, export
from mlx_plastic.home.restore import read_archive
from mlx_plastic.memory import Memory
from night_kills import TAG, one_night

HOME, FILE = "home", "backup.tar.gz"


def digests(home: Home) -> dict[str, str]:
    """Of all that is the person's, but for databases, whose bytes depend on how often they were opened."""
    files = {p.relative_to(home.root).as_posix(): p for p in carried(home)}
    return {n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in files.items() if p.suffix != ".sqlite"}


# -- out


def begun_home(checkpoint: Path, room: Path) -> None:
    """A home after a night."""
    room.mkdir()
    begun_night(checkpoint, room / HOME)
    one_night(checkpoint, room / HOME, -1)


def write_out(checkpoint: Path, room: Path, tell: Tell, which: str) -> None:
    command(room / HOME, "export", str(room / FILE))
    tell("written")


def written(checkpoint: Path, room: Path, promised: Sequence[str], which: str) -> list[str]:
    """What is there is whole; what is not is written by the next command, which cleans up."""
    home, out = Home(room / HOME), room / FILE
    assert out.exists() or not promised, "an export that was acknowledged"
    assert (home.packs / TAG).is_dir(), "the home that was exported"
    if out.exists():
        read_archive(out)
        out.unlink()
    write_out(checkpoint, room, lambda line: None, which)
    assert sorted(path.name for path in room.iterdir()) == [FILE, HOME], "the room is not tidy"
    assert not list(home.cache.glob(f".*{HALF}*")), "a copy of what was said"
    return sorted(f"{name} {sha256}" for name, (sha256, _) in read_archive(out).files.items())


# -- in


def begun_archive(checkpoint: Path, room: Path) -> None:
    begun_home(checkpoint, room)
    export(Home(room / HOME), room / FILE)
    (room / HOME).rename(room / "gone")


def take_in(checkpoint: Path, room: Path, tell: Tell, which: str) -> None:
    command(room / HOME, "import", str(room / FILE))
    tell("taken in")


def taken_in(checkpoint: Path, room: Path, promised: Sequence[str], which: str) -> dict[str, str]:
    """All of it or nothing is there; the next import puts it in, and cleans up."""
    home = Home(room / HOME)
    if not (home.root.is_dir() and list(carried(home))):
        assert not promised, "an import that was acknowledged"
        take_in(checkpoint, room, lambda line: None, which)
    assert sorted(path.name for path in room.iterdir()) == [FILE, "gone", HOME], "the room is not tidy"
    with Memory(home) as memory:
        assert memory.run("PRAGMA integrity_check") == [("ok",)], "the log's integrity"
        turns = sorted(f"{turn.id} {turn.content}" for turn in memory.turns())
    return digests(home) | {"turns": hashlib.sha256("\n".join(turns).encode()).hexdigest()}
