"""What one night on nano is made of: tokens trained, read and said, and what share of the machine it used.

    python benchmarks/bench_scale.py --json > docs/scale.json

The cost model of docs/scale.md scales these counts and shares to larger bases. The night is lived by the
product itself, with its defaults, in a folder that is then removed: what the demo tells on its first day.
Seconds are processor time, so that other work on the machine counts little. Work is counted as 2 operations
a parameter and token forward, and 2 more for the way back through frozen weights; attention is left out.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

from mlx_plastic import __version__
from mlx_plastic.backend import BLAS, mx
from mlx_plastic.base import Base, load_base
from mlx_plastic.base.widen import count_parameters
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.packs import Store
from mlx_plastic.sleep import doors
from mlx_plastic.sleep.journal import nights
from mlx_plastic.sleep.night import sleep

SIZE, LAPS = 1024, 30


class Counted:
    """Counts the tokens that go through a model in plain calls, by the stage that the night is in."""

    def __init__(self, base: Base) -> None:
        self.stage = "lessons"
        self.trained = 0
        self.read: Counter[str] = Counter()
        self.said: Counter[str] = Counter()
        self.steps: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self._since = time.process_time()
        kind = type(base.model)
        plain = kind.__call__

        def counting(model: Any, inputs: mx.array, *rest: Any, **named: Any) -> Any:
            if self.stage == "train":
                pass  # its tokens are what the trainer reports
            elif inputs.shape[-1] == 1:
                self.said[self.stage] += inputs.size
                self.steps[self.stage] += 1
            else:
                self.read[self.stage] += inputs.size
            return plain(model, inputs, *rest, **named)

        kind.__call__ = counting
        train = doors.train

        def reporting(*given: Any, **named: Any) -> Any:
            self.tick("training")
            done = train(*given, **named)
            self.trained += done.report.tokens
            return done

        doors.train = reporting

    def tick(self, stage: str, *_: object) -> None:
        self._note()
        self.stage = {"training": "train", "lessons": "lessons"}.get(stage, "judge")

    def _note(self) -> None:
        now = time.process_time()
        self.seconds[self.stage] += now - self._since
        self._since = now


def tell(home: Home) -> int:
    days = resources.files("mlx_plastic.demo").joinpath("days.jsonl").read_text("utf-8").splitlines()
    day = json.loads(days[0])
    said = [fact["say"] for fact in day["facts"]] + [day["wish"]["say"]]
    with Memory(home) as memory:
        talk = memory.new_conversation()
        for text in said:
            memory.remember(talk, "user", text)
    return len(said)


def gflops() -> float:
    """float32 products of a CPU second, in 10^9 operations; the median of some."""
    a = mx.random.normal((SIZE, SIZE))
    speeds = []
    for _ in range(LAPS):
        began = time.process_time()
        mx.eval(a @ a)
        speeds.append(2 * SIZE**3 / (time.process_time() - began) / 1e9)
    return statistics.median(speeds)


def live(folder: Path) -> dict[str, Any]:
    home = Home(folder)
    base = load_base("nano")
    counted = Counted(base)
    told = tell(home)
    night = sleep(home, base, tag="night", tick=counted.tick)
    counted.tick("end")
    record = nights(home)[0].record
    run = Store(home).read("night").manifest.run
    head = base.config["vocab_size"] * base.config["hidden_size"]
    total = count_parameters(base.model)
    return {
        "version": __version__,
        "machine": f"{platform.machine()} {platform.system()}, MLX {mx.__version__}, BLAS {BLAS.kind}",
        "outcome": night.outcome,
        "parameters": total,
        "block_parameters": total - head,
        "turns": told,
        "steps": run.steps,
        "batch_tokens": record.settings["night"]["batch_tokens"],
        "trained": counted.trained,
        "seconds": {name: round(value, 2) for name, value in counted.seconds.items()},
        "read": dict(counted.read),
        "said": dict(counted.said),
        "said_steps": dict(counted.steps),
        "gflops": round(gflops(), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = live(Path(folder))
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:<16} {value}")


if __name__ == "__main__":
    main()
