"""Kill a night with SIGKILL at places drawn by chance, let it go on, and look at what is there.

One process imports everything and forks a child per life: importing takes longer than such a night. The
place is the n-th of all file operations of the night (opens, renames, deletions, syncs) or training steps, so
that it does not depend on how fast the machine is. A program: night_kills.py CHECKPOINT TOLD_HOME WORK N SEED
[twice]; twice: the gate refuses the first training by little, so that the night is trained once more.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from mlx_plastic.base import load_base
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.packs import Store
from mlx_plastic.sleep.journal import nights
from mlx_plastic.sleep.night import Settings, sleep
from test_night import CHOSEN, KIND, drifting, rise_of

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate")
TAG = "killed"


class Counter:
    """Counts what a night does to its files, and kills the process at the `fatal`-th; -1: never."""

    def __init__(self, root: Path, fatal: int) -> None:
        self.root, self.fatal, self.count = str(root), fatal, 0
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in EVENTS and any(isinstance(a, str | Path) and self.root in str(a) for a in arguments):
            self.step()

    def step(self) -> None:
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1


def one_night(checkpoint: Path, root: Path, fatal: int, chosen: Settings = CHOSEN) -> int:
    """How many places there were."""
    base = load_base(str(checkpoint))
    counter = Counter(root, fatal)
    real = os.fsync
    os.fsync = lambda d: (counter.step(), real(d), counter.step())[1]  # type: ignore[assignment]
    night = sleep(Home(root), base, chosen=chosen, tag=TAG, tick=lambda *_: counter.step())
    if night.outcome not in ("passed", "nothing") and "general perplexity" not in night.reason:
        raise AssertionError(f"{night.outcome}: {night.reason}")
    return counter.count


def forked(work: Callable[[], object]) -> tuple[int, str]:
    """The exit code of a child that does `work`, negative for a signal, and what it gave back."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            told = json.dumps(work())
            code = 0
        except BaseException:
            told = traceback.format_exc()
        os.write(write, told[-4000:].encode())
        os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def refused_once(checkpoint: Path, told: Path, work: Path) -> Settings:
    """Settings whose gate a night as told misses by half of its bound, drawn from how far one drifts."""
    root = Path(shutil.copytree(told, work / "measured"))

    def drift() -> tuple[str, float]:
        base = load_base(str(checkpoint))
        chosen = drifting(Home(told), base, TAG)
        return chosen.judge.general, rise_of(sleep(Home(root), base, chosen=chosen, tag=TAG))

    code, said = forked(drift)  # this process has to stay without threads, to fork
    assert code == 0, said
    general, rise = json.loads(said)
    chosen = dataclasses.replace(CHOSEN, judge=dataclasses.replace(CHOSEN.judge, general=general))
    chosen = dataclasses.replace(chosen, lessons=dataclasses.replace(CHOSEN.lessons, general=0))
    gate = dataclasses.replace(KIND, max_ppl_rise_pct=rise / 1.5)
    return dataclasses.replace(chosen, gate=gate, night=dataclasses.replace(chosen.night, chances=1))


def state(root: Path) -> dict[str, object]:
    """What must be the same at the end, whatever happened on the way."""
    home = Home(root)
    store = Store(home)
    with Memory(home) as memory:
        learned = sorted(night for _, night in memory.run("SELECT turn, night FROM learned"))
        waiting, turns = memory.stats().waiting, len(memory.turns())
    record = [(j.record.tag, j.record.status) for j in nights(home) if j.record.status != "abandoned"]
    file = home.adapters / "nightly_update" / "adapters.safetensors"
    adapter = load_file(file) if file.exists() else {}  # its header has no order
    tensors = [(name, adapter[name].tobytes()) for name in sorted(adapter)]
    return {
        "worn": store.active(),
        "pack": store.read(TAG).manifest.sha256,
        "adapter": hashlib.sha256(repr(tensors).encode()).hexdigest(),
        "learned": learned,
        "turns": turns,
        "tried": [len(j.record.tried) for j in nights(home) if j.record.status != "abandoned"],
        "waiting": waiting,
        "nights": record,
        "told once": len((home.logs / "nights.jsonl").read_text().splitlines()),
    }


def after_kill(root: Path) -> dict[str, object]:
    """Right after the kill: what is worn can be loaded, and what was said is all there."""
    home = Home(root)
    store = Store(home)
    for name in store.active():
        store.read(name)
    assert all(not entry.fault for entry in store.entries() if entry.name in store.active())
    with Memory(home) as memory:
        return {"turns": len(memory.turns()), "worn": list(store.active())}


def one_life(
    checkpoint: Path, root: Path, places: int, draw: random.Random, chosen: Settings
) -> tuple[list[int], list[Any]]:
    """Kill, sometimes kill what goes on, go on to the end; the exit codes, and what was found each time."""
    ended = [forked(partial(one_night, checkpoint, root, draw.randrange(places), chosen))[0]]
    if draw.random() < 0.25:
        ended.append(forked(partial(one_night, checkpoint, root, draw.randrange(places), chosen))[0])
    checks = [forked(partial(after_kill, root)), forked(partial(one_night, checkpoint, root, -1, chosen))]
    return ended, [*checks, forked(partial(state, root))]


def main() -> None:
    checkpoint, told, work = (Path(a).resolve() for a in sys.argv[1:4])
    count, draw = int(sys.argv[4]), random.Random(int(sys.argv[5]))
    chosen = refused_once(checkpoint, told, work) if sys.argv[6:] == ["twice"] else CHOSEN
    undisturbed = Path(shutil.copytree(told, work / "undisturbed"))
    code, said = forked(partial(one_night, checkpoint, undisturbed, -1, chosen))
    assert code == 0, said
    places = int(said)
    wanted = forked(partial(state, undisturbed))
    found = json.loads(wanted[1])
    found_tries = found["tried"]
    passed = found["nights"] == [[TAG, "passed"]]
    assert passed or chosen is not CHOSEN, found
    assert len(found["learned"]) == (found["turns"] if passed else 0), found
    killed, bad = 0, []
    for i in range(count):
        root = Path(shutil.copytree(told, work / f"life{i}"))
        ended, found = one_life(checkpoint, root, places, draw, chosen)
        killed += sum(code == -signal.SIGKILL for code in ended)
        if any(code for code, _ in found) or found[-1] != wanted:
            bad.append({"life": i, "ended": ended, "found": found, "wanted": wanted})
        else:
            shutil.rmtree(root)
        print(f"{i + 1} of {count}", file=sys.stderr, flush=True)
    print(json.dumps({"places": places, "lives": count, "killed": killed, "tried": found_tries, "bad": bad}))


if __name__ == "__main__":
    main()
