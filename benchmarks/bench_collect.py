"""What it costs a night to look through a long memory for what it will learn: seconds and megabytes.

    python benchmarks/bench_collect.py --turns 100000 --json

A log of so many turns is imported into a folder that is then removed. Each way of looking is run in a process
of its own, so that one's memory does not count as another's. Seconds are processor time.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlx_plastic.home import Home
from mlx_plastic.memory import Memory

WORDS = (
    "cat dog house river lives works plumber Lisbon Berlin Nora Tom Anna likes green tea every morning walk "
    "train station because my sister brother said that book about music is good"
).split()
TALK = 10  # questions of a conversation


def make(home: Home, turns: int, seed: int) -> None:
    """Conversations of ten questions and answers of random words."""
    draw, path = random.Random(seed), home.root / "talks.jsonl"
    with path.open("w") as file:
        for _ in range(max(1, turns // (2 * TALK))):
            roles = ("user", "assistant") * TALK
            said = [{"role": role, "content": " ".join(draw.choices(WORDS, k=16))} for role in roles]
            file.write(json.dumps({"messages": said}) + "\n")
    with Memory(home) as memory:
        memory.import_jsonl(path)
    path.unlink()


def look(root: Path, most: int | None) -> dict[str, float]:
    """One look for what is to be learned, in this process."""
    with Memory(Home(root)) as memory:
        list(memory.unlearned(most=1))  # imports and policies are not counted
        before_mb, began = peak_mb(), time.process_time()
        found = memory.unlearned(most=most)
        taken = sum(turn.role == "user" and turn.id in e.new for e in found for turn in e.turns)
        seconds = time.process_time() - began
    return {"turns": taken, "seconds": round(seconds, 3), "more_mb": round(peak_mb() - before_mb, 1)}


def peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=100_000)
    parser.add_argument("--most", type=int, default=1000, help="user turns a night takes at the most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--look", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.look:
        most = int(given.look[1])
        print(json.dumps(look(Path(given.look[0]), most or None)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Home(Path(folder)), given.turns, given.seed)
        found = {}
        for name, most in (("bounded", given.most), ("everything", 0)):
            command = [sys.executable, __file__, "--look", folder, str(most)]
            found[name] = json.loads(subprocess.check_output(command, text=True))
    ratio = found["everything"]["seconds"] / max(1e-9, found["bounded"]["seconds"])
    told = {"logged_turns": given.turns, **found, "seconds_ratio": round(ratio, 1)}
    if given.json:
        print(json.dumps(told, indent=2))
        return
    for name in ("bounded", "everything"):
        one = found[name]
        print(f"{name:<10}  {one['turns']} user turns  {one['seconds']:.2f} s  {one['more_mb']:.0f} MB more")
    print(f"looking through everything takes {ratio:.1f} times as long")


if __name__ == "__main__":
    main()
