"""Files that were torn while nobody looked: truncated, a bit turned, a block of zeros, emptied, gone."""

from __future__ import annotations

import random
import shutil
import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from click.testing import CliRunner

from chaos.by_day import chat
from chaos.by_night import begun_night
from chaos.lives import done, found
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import PlasticError
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.packs import Store
from night_kills import TAG, one_night

if TYPE_CHECKING:
    from chaos.run import Life, World

USES: tuple[tuple[str, ...], ...] = (
    ("memory", "list", "--json"),
    ("memory", "stats", "--json"),
    ("memory", "search", "cat", "--json"),
    ("memory", "route", "--json"),
    ("memory", "audit"),
    ("packs", "list"),
    ("packs", "verify", TAG),
    ("packs", "inspect", TAG),
    ("packs", "ledger", TAG),
    ("packs", "gc", "--dry-run"),
    ("nights", "list", "--json"),
    ("nights", "show", TAG),
    ("eval", "trends"),
    ("schedule", "status"),
    ("digest",),
)
WAYS = ("truncated", "a bit turned", "zeros", "emptied", "gone")


def lived(checkpoint: Path, room: Path) -> None:
    """A home after a night, a talk and a search."""
    begun_night(checkpoint, room)
    one_night(checkpoint, room, -1)
    home = Home(room)
    home.config_file.write_text('[chat]\nmax_tokens = 4\n\n[privacy]\npeople = ["Nora Lindqvist"]\n')
    chat(checkpoint, room, lambda line: None, random.Random(0))
    with Memory(home) as memory:
        memory.recall(model=False).catch_up()


def tear(file: Path, way: str, draw: random.Random) -> None:
    data = bytearray(file.read_bytes())
    at = draw.randrange(len(data)) if data else 0
    if way == "gone":
        file.unlink()
        return
    if way == "truncated":
        del data[at:]
    elif way == "emptied":
        data.clear()
    elif way == "zeros":
        data[at : at + 512] = bytes(len(data[at : at + 512]))
    elif data:
        data[at] ^= 1 << draw.randrange(8)
    file.write_bytes(bytes(data))


def use(home: Path, words: Sequence[str], given: str = "") -> tuple[int, str]:
    """The exit code of a command and what it said. Raises AssertionError for a fault of ours."""
    result = CliRunner().invoke(plastic, ["--home", str(home), *words], input=given, catch_exceptions=True)
    if result.exc_info and result.exception and not isinstance(result.exception, SystemExit):
        told = "".join(traceback.format_exception(*result.exc_info))
        raise AssertionError(f"plastic {' '.join(words)}: {told}")
    return result.exit_code, result.output


def torn_life(world: World, number: int) -> Life:
    from chaos.run import Life

    draw = world.dice("torn", number)
    template = world.once("template lived", lambda: _prepared(world))
    room = Path(shutil.copytree(template, world.root / f"torn-{number}", symlinks=True))
    files = [p for p in sorted(room.rglob("*")) if p.is_file() and not p.is_symlink() and p.suffix != ".lock"]
    kinds = sorted({_kind(p, room) for p in files})
    kind = draw.choice(kinds)  # by kind, so that the one log is torn as often as the many samples of nights
    file, way = draw.choice([p for p in files if _kind(p, room) == kind]), draw.choice(WAYS)
    before = file.read_bytes()
    tear(file, way, draw)
    uses = draw.sample(USES, 5)
    changed = not file.exists() or file.read_bytes() != before
    what = f"{file.relative_to(room)}: {way}"
    turns = int(world.once("turns lived", lambda: found(partial(_turns, template))))
    problems: list[str] = found(partial(_look, world.checkpoint, room, uses, kind, turns, changed))
    if not problems:
        shutil.rmtree(room)
    return Life("torn", number, changed, tuple(problems), what)


def _prepared(world: World) -> Path:
    room = world.root / "template-lived"
    ended = done(lambda tell: lived(world.checkpoint, room))
    if ended.code:
        raise RuntimeError(ended.said)
    return room


def _kind(file: Path, room: Path) -> str:
    parts = file.relative_to(room).parts
    return f"{parts[0]}/{parts[-1]}" if len(parts) > 1 else parts[0]


def _turns(room: Path) -> int:
    with Memory(Home(room)) as memory:
        return len(memory.turns())


def _look(
    checkpoint: Path, room: Path, uses: Sequence[Sequence[str]], kind: str, turns: int, changed: bool
) -> list[str]:
    problems: list[str] = []
    talk = ("chat", "--base", str(checkpoint))
    for words in (*uses, talk):
        try:
            code, said = use(room, words, "Where is my cat?\n")
        except AssertionError as error:
            problems.append(str(error)[-1500:])
            continue
        told = "error: " in said or "NOT SOUND" in said
        if code not in (0, 1) or (code == 1 and not told):
            problems.append(f"plastic {' '.join(words)} ended with {code}: {said[-300:]}")
        if words == talk and code == 0:
            problems += list(_worn_but_damaged(room))
    if not kind.startswith("memory/log"):
        problems += _lost_turns(room, turns)
    if kind.startswith("packs/pack") or kind.startswith("packs/manifest"):
        problems += _no_way_back(room, talk)
    return problems


def _worn_but_damaged(room: Path) -> Iterator[str]:
    """A chat that answered wore what it wore from sound files."""
    store = Store(Home(room))
    for name in store.active():
        try:
            store.read(name)
        except PlasticError as error:
            yield f"{name} was worn though damaged: {error.message}"


def _lost_turns(room: Path, turns: int) -> list[str]:
    try:
        held = _turns(room)
    except PlasticError as error:
        return [f"the log cannot be read: {error}"]
    return [] if held >= turns else [f"{turns - held} of {turns} turns are gone"]


def _no_way_back(room: Path, talk: Sequence[str]) -> list[str]:
    for words in (("rollback", "base"), talk):
        code, said = use(room, words, "Where is my cat?\n")
        if code:
            return [f"no way back: plastic {' '.join(words)}: {said[-500:]}"]
    return []
