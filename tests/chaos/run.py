"""Draw the faults, live the lives, count what was lost. `python benchmarks/bench_chaos.py` prints it."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from chaos.acts import ACTS
from chaos.damage import torn_life
from chaos.hostile_lives import pack_life, request_lives
from chaos.lives import BUG, TOLD, Child, Ended, Fault, Tell, done, found
from chaos.served import ask
from tiny import make_checkpoint

HOURS = (1, 30, 24 * 365 * 10)  # by which a clock jumps, either way
MODES = ("kill", "tear", "full", "fail", "clock", "two")
KINDS = (*(f"{mode} {act}" for act in ACTS for mode in MODES), "torn", "pack", "request")


@dataclass(frozen=True)
class Life:
    """One fault. hit: it fell while there was work to disturb. lost: what was not as it had to be."""

    kind: str
    number: int
    hit: bool
    lost: tuple[str, ...] = ()
    what: str = ""  # that was done, for the report of a loss


@dataclass
class World:
    """Where lives are lived. Rooms are prepared, and undisturbed ends computed, when first asked for."""

    root: Path
    seed: int = 0
    _made: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    @property
    def checkpoint(self) -> Path:
        return Path(self.once("checkpoint", lambda: make_checkpoint(self.root / "checkpoint")))

    def dice(self, kind: str, number: int) -> random.Random:
        return random.Random(f"{self.seed} {kind} {number}")

    def template(self, act: str) -> Path:
        room = self.root / f"template-{act}"

        def make() -> Path:
            sound(done(lambda tell: ACTS[act].prepare(self.checkpoint, room)))
            return room

        return Path(self.once(f"template {act}", make))

    def room(self, act: str, name: str) -> Path:
        return Path(shutil.copytree(self.template(act), self.root / name, symlinks=True))

    def places(self, act: str, which: str) -> int:
        """Changes of files in an undisturbed life."""
        return int(self._undisturbed(act, which)[0])

    def wanted(self, act: str, which: str) -> Any:
        return self._undisturbed(act, which)[1]

    def _undisturbed(self, act: str, which: str) -> tuple[int, Any]:
        def live() -> tuple[int, Any]:
            room = self.room(act, f"undisturbed-{act}-{which}")
            ended = acted(self, act, which, [room], [Fault("count")])[0]
            sound(ended)
            return ended.places, found(partial(ACTS[act].check, self.checkpoint, room, ended.promised, which))

        made: tuple[int, Any] = self.once(f"undisturbed {act} {which}", live)
        return made


def sound(ended: Ended) -> None:
    if ended.code:
        raise SystemExit(f"an undisturbed life failed: {ended.said or ended.code}")


def acted(world: World, act: str, which: str, rooms: list[Path], faults: list[Fault]) -> list[Ended]:
    """The act, once for each fault, at the same time; a server is asked meanwhile, and then told to end."""

    def work(room: Path, tell: Tell) -> None:
        ACTS[act].do(world.checkpoint, room, tell, which)

    children = [Child(partial(work, room), fault) for room, fault in zip(rooms, faults, strict=True)]
    if act == "serve":
        return asked(children, rooms)
    return [child.end() for child in children]


def asked(servers: list[Child], rooms: list[Path]) -> list[Ended]:
    """Each server is asked by clients of its own, all at once; what the clients were told is promised."""
    heads = [server.line() for server in servers]
    clients = [
        Child(partial(ask, int(head.split()[1]), 3, 2)) if head.startswith("port ") else None
        for head in heads
    ]
    told = [client.end() if client else Ended(0, ()) for client in clients]
    for room in rooms:
        (room / "stop").touch()
    ends = [server.end((f"{head}\n",)) for server, head in zip(servers, heads, strict=True)]
    return [
        dataclasses.replace(
            end, code=client.code or end.code, promised=client.promised, said=client.said or end.said
        )
        for end, client in zip(ends, told, strict=True)
    ]


def one_life(world: World, act: str, mode: str, number: int) -> Life:
    """Do, disturbed; look; go on; compare with an undisturbed end."""
    kind = f"{mode} {act}"
    draw = world.dice(kind, number)
    which = draw.choice(ACTS[act].ways)
    room = world.room(act, f"{kind} {number}".replace(" ", "-"))
    if mode == "two":
        faults = [Fault("count"), Fault("count")]
    else:
        at, leap_h = draw.randrange(world.places(act, which)), draw.choice((-1, 1)) * draw.choice(HOURS)
        faults = [Fault(mode, at, leap_h * 3600 if mode == "clock" else 0)]
    ended = acted(world, act, which, [room] * len(faults), faults)
    promised = [line for one in ended for line in one.promised]
    wanted = world.wanted(act, which)

    def look() -> Any:
        return ACTS[act].check(world.checkpoint, room, promised, which)

    lost = [*faults_of(mode, ended)]
    try:
        after = found(look)
        if after != wanted:
            lost.append(f"another end than undisturbed: {after} for {wanted}"[:2000])
    except AssertionError as error:
        lost.append(str(error)[-2000:])
    hit = mode == "two" or any(one.hit for one in ended)
    if not lost:
        shutil.rmtree(room)
    return Life(kind, number, hit, tuple(lost), f"{which} {faults[0]}".strip())


def faults_of(mode: str, ended: list[Ended]) -> Iterator[str]:
    """Ends that are not to be: a fault of ours, a hang, or a word about a disk that was never full."""
    for one in ended:
        if one.code == BUG:
            yield one.said
        elif one.code == TOLD and mode not in ("full", "fail", "two"):
            yield f"refused without a reason: {one.said}"
        elif one.code not in (0, TOLD, -9):
            yield f"ended with {one.code} {one.said}"
        elif one.code == -9 and mode not in ("kill", "tear"):
            yield "killed by somebody else"
    if mode == "two" and all(one.code for one in ended):
        yield f"neither of two was let in: {[one.said for one in ended]}"


def lives(world: World, kinds: list[str], count: int, *, first: int = 0) -> Iterator[Life]:
    """`count` lives, the kinds in turn."""
    per_kind: dict[str, int] = dict.fromkeys(kinds, first)
    served = [k for i in range(count) if (k := kinds[i % len(kinds)]) == "request"]
    if served:
        yield from guarded("request", first, partial(request_lives, world, len(served), first))
    for i in range(count):
        kind = kinds[i % len(kinds)]
        number = per_kind[kind]
        per_kind[kind] += 1
        if kind == "torn":
            yield from guarded(kind, number, lambda n=number: [torn_life(world, n)])  # type: ignore[misc]
        elif kind == "pack":
            yield from guarded(kind, number, lambda n=number: [pack_life(world, n)])  # type: ignore[misc]
        elif kind != "request":
            mode, act = kind.split()
            yield from guarded(kind, number, lambda m=mode, a=act, n=number: [one_life(world, a, m, n)])  # type: ignore[misc]


def guarded(kind: str, number: int, live: Callable[[], Any]) -> Iterator[Life]:
    """What goes wrong in the runner itself is a loss, too, not the end of the run."""
    try:
        yield from live()
    except Exception:
        yield Life(kind, number, False, (traceback.format_exc()[-3000:],))


def report(lived: list[Life], seconds: float, seed: int) -> dict[str, Any]:
    rows = {}
    for kind in dict.fromkeys(life.kind for life in lived):
        of = [life for life in lived if life.kind == kind]
        rows[kind] = {
            "tried": len(of),
            "hit": sum(x.hit for x in of),
            "survived": sum(not x.lost for x in of),
        }
    return {
        "seed": seed,
        "tried": len(lived),
        "hit": sum(life.hit for life in lived),
        "survived": sum(not life.lost for life in lived),
        "lost": [asdict(life) for life in lived if life.lost],
        "kinds": rows,
        "seconds": round(seconds, 1),
    }


def run(
    root: Path, *, count: int, seed: int, kinds: list[str], tick: Callable[[int, int, str], None]
) -> dict[str, Any]:
    """The report of `count` faults, or of those that were lived when Ctrl-C ends it.

    root: an empty folder; rooms in which something was lost stay there.
    """
    began, world, lived = time.monotonic(), World(root, seed), list[Life]()
    with contextlib.suppress(KeyboardInterrupt):
        for life in lives(world, kinds, count):
            lived.append(life)
            tick(len(lived), count, f"{sum(bool(x.lost) for x in lived)} lost; {life.kind}")
    return report(lived, time.monotonic() - began, seed)
