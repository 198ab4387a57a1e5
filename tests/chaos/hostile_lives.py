"""Packs and requests of strangers: refused with a reason, and nothing else changed by them."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chaos.damage import use
from chaos.lives import Child, Tell, done, found
from mlx_plastic.home import Home
from mlx_plastic.packs import Store
from mlx_plastic.packs.format.pack import write_pack
from serving import Live, live
from test_api_hostile import CHAT, CONFIG, HELLO, REFUSED, any_request, status
from test_format import some_factors, some_manifest
from test_hostile_packs import HOSTILE

if TYPE_CHECKING:
    from chaos.run import Life, World

# -- packs


def pack_life(world: World, number: int) -> Life:
    """Two of three are a named attack, one has some bytes changed: refused, or sound in every number."""
    from chaos.run import Life

    draw = world.dice("pack", number)
    what = draw.choice(sorted(HOSTILE)) if number % 3 else "some bytes changed"
    folder = world.root / f"pack-{number}" / "stranger"
    folder.parent.mkdir()
    factors = some_factors()
    storage: Any = "int4" if what.startswith("int4") else "float16"
    write_pack(folder, factors, some_manifest(factors, "stranger", storage=storage))
    if number % 3:
        HOSTILE[what][0](folder)
    else:
        _change_bytes(folder, draw)
    problems: list[str] = found(partial(_added, folder, named=bool(number % 3)))
    if not problems:
        shutil.rmtree(folder.parent)
    return Life("pack", number, True, tuple(problems), what)


def _change_bytes(folder: Path, draw: random.Random) -> None:
    file = draw.choice(sorted(folder.iterdir()))
    data = bytearray(file.read_bytes())
    for _ in range(draw.randint(1, 4)):
        data[draw.randrange(len(data))] = draw.randrange(256)
    file.write_bytes(bytes(data))


def _added(folder: Path, *, named: bool) -> list[str]:
    home = folder.parent / "home"
    code, said = use(home, ("packs", "add", str(folder)))
    names = Store(Home(home)).names()
    if code and not names and "error" in said.lower():
        return []
    if code or named:
        return [f"ended with {code}, the store holds {names}: {said[-500:]}"]
    pack = Store(Home(home)).read(names[0])
    sound = all(np.isfinite(f.a).all() and np.isfinite(f.b).all() for f in pack.factors.values())
    return [] if sound else ["numbers that are none were let in"]


# -- requests


def request_lives(world: World, count: int, first: int) -> Iterator[Life]:
    """All of them to one server, which has to answer a sound request after each tenth."""
    from chaos.run import Life

    room = world.root / "requests"
    room.mkdir()
    server = Child(partial(_serve, world.checkpoint, room))
    port = int(server.line() or 0)
    told = done(partial(_send, port, world, count, first))
    (room / "stop").touch()
    ended = server.end()
    lines = [json.loads(line) for line in told.promised]
    for number, (what, problem) in enumerate(lines, first):
        yield Life("request", number, True, (problem,) if problem else (), what)
    why = told.said or ended.said
    if told.code or ended.code or len(lines) != count:
        yield Life("request", first + len(lines), True, (f"{why or 'the server or its client ended'}",))
    else:
        shutil.rmtree(room)


def _serve(checkpoint: Path, room: Path, tell: Tell) -> None:
    with live(Home(room), base=checkpoint, config=CONFIG) as server:
        tell(str(server.port))
        while not (room / "stop").exists():
            time.sleep(0.01)


def _send(port: int, world: World, count: int, first: int, tell: Tell) -> None:
    server = Live(None, port, Home(world.root))  # type: ignore[arg-type]
    named = sorted(REFUSED)
    for number in range(first, first + count):
        draw = world.dice("request", number)
        what = draw.choice(named) if number % 2 else ""
        sent, cut = (REFUSED[what], False) if what else any_request(draw, number // 2)
        code = status(server.raw_cut(sent) if cut else server.raw(sent))
        problem = f"answered with {code}" if code >= 500 or (what and 200 <= code < 300) else ""
        if not problem and number % 10 == 0 and server.post(CHAT, HELLO)[0] != 200:
            problem = "no answer to a sound request afterwards"
        tell(json.dumps([what or sent[:60].decode("latin-1"), problem]))
