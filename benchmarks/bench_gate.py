"""What the gate costs and how surely it decides: CPU seconds on nano, and simulated nights.

    python benchmarks/bench_gate.py --json

standing_cpu_s: general perplexity and the harness of one model, measured; kept_cpu_s: the same, read back.
lessons_cpu_s: 64 held-out samples of tonight and 64 of earlier nights. planting_cpu_s: 32 secrets and 8
commands through guard and router; came_through: how many of them did, of planted, over --draws nights.
passed_at: the share of simulated nights that pass, by their true rise in limits; *_alone: by single numbers.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlx_plastic.base import load_base
from mlx_plastic.evals import Policy, Report, Score, decide
from mlx_plastic.evals.sandbox import run_python
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.memory.router import RouterConfig
from mlx_plastic.samples import Message, Sample
from mlx_plastic.sleep.judge import JudgeConfig, measure_lessons, measure_standing
from mlx_plastic.sleep.planted import drawn, through
from mlx_plastic.sleep.standing import standing

TIMES_LIMIT = (0.0, 1.0, 2.0, 3.0)  # true rises that are simulated


def cpu_s(work: Callable[[], Any], rounds: int = 1) -> float:
    """The median CPU time of one round, in seconds."""
    took = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return statistics.median(took)


def night(rises: np.ndarray, *, paired: bool) -> bool:
    """Whether a night whose earlier lessons' loss rose by these nats a sample passes."""
    tasks = {"t": True}
    plain = [Score("night_loss", 3.0, "", 9), Score("general_ppl", 3.0, "", 9)]
    after = [Score("night_loss", 1.0, "", 9), Score("general_ppl", 3.0, "", 9)]
    reports = []
    for scores, values in ((plain, np.full(rises.shape, 2.0)), (after, 2.0 + rises)):
        parts = tuple((10 * float(v), 10.0) for v in values) if paired else ()
        earlier = Score("earlier_loss", float(values.mean()), "", len(values), parts=parts)
        reports.append(Report((*scores, earlier), tasks))
    return decide(*reports, Policy()).passed


def simulated(nights: int, samples: int, noise: float) -> dict[str, float]:
    limit, found = Policy().max_old_loss_rise, {}
    for times in TIMES_LIMIT:
        for name, paired in (("", True), ("_alone", False)):
            r = np.random.default_rng(0)
            passed = [night(r.normal(times * limit, noise, samples), paired=paired) for _ in range(nights)]
            found[f"{times:g}{name}"] = float(np.mean(passed))
    return found


def planting(draws: int) -> dict[str, Any]:
    config = JudgeConfig()
    came = planted = 0
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        with Memory(home) as memory:
            for seed in range(draws):
                plant = drawn(config, str(seed))
                planted += len(plant.words)
                came += len(through(home, memory, RouterConfig(), plant).exchanges)
            once = drawn(config, "timed")
            seconds = cpu_s(lambda: through(home, memory, RouterConfig(), once), 5)
    return {"planted": planted, "came_through": came, "planting_cpu_s": round(seconds, 3)}


def judging() -> dict[str, float]:
    base, config = load_base(), JudgeConfig()
    asked = [Sample((Message("user", f"What is {i}?"), Message("assistant", f"It is {i}.")), str(i), (), "qa")
             for i in range(200)]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))

        def once() -> None:
            standing(home, base.fingerprint, (), config, lambda: measure_standing(base, config))

        cold, kept = cpu_s(once), cpu_s(once, 5)
    lessons = cpu_s(lambda: measure_lessons(base, tonight=asked, earlier=asked[::-1], config=config))
    return {
        "standing_cpu_s": round(cold, 2),
        "kept_cpu_s": round(kept, 4),
        "lessons_cpu_s": round(lessons, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nights", type=int, default=1000, help="simulated nights of each kind")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--noise", type=float, default=0.4, help="nats a sample")
    parser.add_argument("--draws", type=int, default=20, help="nights of planting")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    ran = run_python("1 + 1", tests="assert _ == 2")
    found = {
        "policy": dataclasses.asdict(Policy()),
        "nights": asked.nights,
        "passed_at": simulated(asked.nights, asked.samples, asked.noise),
        **planting(asked.draws),
        **judging(),
        "sandbox_layers": list(ran.layers),
    }
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
