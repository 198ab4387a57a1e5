"""What a pack of so many bytes is worth: cut to a budget and stored small, against fixed-rank fp16 LoRA.

    MLX_PLASTIC_DATA=... python benchmarks/bench_bytes.py --json

Both sides learn the same samples for the same steps with the same trainer, each with its learning rate swept:
on the first seed from one rate on in the better direction until the best lies between two others, on other
seeds the best and half of it. The baseline is LoRA of one rank on all linear layers, stored in float16; its
file sets the bytes. Ours is trained at the rank that `rank_to_train` names and cut by `fit`. What is chosen
(rates, storage, step) is chosen on validation samples, what is told is held-out perplexity. Controls, cut
from the very same training and stored the same way: the ranks of our map dealt to other modules, random
ranks, one rank for all; and all of these again at half the bytes, where ranks have more to decide.

The texts are those of `texts.py`, held out by table, problem or meaning, never by sample.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from texts import READERS, Task, read_task

from mlx_plastic.backend import BLAS
from mlx_plastic.base import Base, load_base
from mlx_plastic.evals import thinned
from mlx_plastic.packs.format.pack import Factors, stored_factors, tensor_bytes
from mlx_plastic.packs.ranks.budget import (
    WEIGHING,
    Candidate,
    Parts,
    cut_to,
    fit,
    join,
    measure,
    rank_to_train,
    weighed,
)
from mlx_plastic.packs.ranks.ranks import shapes_of
from mlx_plastic.packs.ranks.sizes import file_bytes
from mlx_plastic.packs.train.train import TrainConfig, train

MOST_RATES = 4  # in one sweep
DRAWS = 2  # of each random control
TARGET_PCT = 3.0


@dataclass(frozen=True)
class Run:
    """One training as it is stored. valid, test: nats per target."""

    rate: float
    seed: int
    valid: float
    test: float
    file_bytes: int
    seconds: float
    factors: dict[str, Factors]  # as trained
    best: Candidate | None = None
    candidates: tuple[Candidate, ...] = ()


def config_of(rank: int, rate: float, seed: int, steps: int) -> TrainConfig:
    return TrainConfig(rank=rank, learning_rate=rate, seed=seed, steps=steps, valid_every=max(10, steps // 4))


def baseline(base: Base, task: Task, rank: int, rate: float, seed: int, steps: int) -> Run:
    """LoRA of one rank on all linear layers, in float16."""
    began = time.perf_counter()
    factors = train(base, task.train, task.valid, config_of(rank, rate, seed, steps)).factors
    valid, test = (measure(base, factors, part) for part in (task.valid, task.test))
    return Run(rate, seed, valid, test, len(tensor_bytes(factors)), time.perf_counter() - began, factors)


def ours(base: Base, task: Task, rank: int, rate: float, seed: int, steps: int, budget_bytes: int) -> Run:
    """Trained a little higher than fits, cut and stored as does best on the validation samples."""
    began = time.perf_counter()
    factors = train(base, task.train, task.valid, config_of(rank, rate, seed, steps)).factors
    found = fit(base, factors, task.valid, budget_bytes=budget_bytes, weigh=task.train)
    best, test = found.best, measure(base, found.factors, task.test)
    seconds = time.perf_counter() - began
    return Run(
        rate, seed, best.nll or math.nan, test, best.file_bytes, seconds, factors, best, found.candidates
    )


def swept(run: Callable[[float], Run], start: float, *, most: int) -> list[Run]:
    """Runs at `start`, at twice that, and on in the better direction until the best lies between two others.

    most: runs at all.
    """
    runs = {start: run(start)}
    while len(runs) < most:
        best = min(runs, key=lambda rate: runs[rate].valid)
        if min(runs) < best < max(runs):
            break
        further = best / 2 if best == min(runs) and len(runs) > 1 else best * 2
        runs[further] = run(further)
    return [runs[rate] for rate in sorted(runs)]


def best_of(runs: Sequence[Run]) -> Run:
    return min(runs, key=lambda run: run.valid)


def controls(base: Base, task: Task, run: Run, budget_bytes: int) -> dict[str, list[float]]:
    """Held-out nats per target of other ranks in the same bytes, cut from the same training as ours."""
    assert run.best is not None
    parts = weighed(base, run.factors, run.best.metric, thinned(task.train, WEIGHING))
    return _others(base, task, parts, run.best, budget_bytes, seed=run.seed)


def deep_cut(base: Base, task: Task, run: Run, budget_bytes: int) -> dict[str, list[float]]:
    """The same at half the bytes, where much has to go, so that it matters what; without further training."""
    assert run.best is not None
    parts = weighed(base, run.factors, run.best.metric, thinned(task.train, WEIGHING))
    half = budget_bytes // 2
    like, cut = cut_to(parts, half, run.best.storage, run.best.group_size, metric=run.best.metric)
    by_size = cut_to(weighed(base, run.factors, "update"), half, like.storage, like.group_size)[1]
    found = {"ours": [measure(base, cut, task.test)], "by_size": [measure(base, by_size, task.test)]}
    return found | _others(base, task, parts, like, half, seed=run.seed, draws=1)


def _others(
    base: Base,
    task: Task,
    parts: dict[str, Parts],
    like: Candidate,
    budget_bytes: int,
    *,
    seed: int,
    draws: int = DRAWS,
) -> dict[str, list[float]]:
    random = np.random.default_rng(seed)

    def loss(ranks: dict[str, int], *, even: bool = False) -> float:
        return _measured(base, task, parts, ranks, like, budget_bytes, random, even=even)

    ours = [like.ranks.get(path, 0) for path in parts]
    dealt = [dict(zip(parts, random.permutation(ours).tolist(), strict=True)) for _ in range(draws)]
    return {
        "shuffled": [loss(ranks) for ranks in dealt],
        "random": [loss({}) for _ in range(draws)],
        "uniform": [loss({}, even=True)],
    }


def _measured(
    base: Base,
    task: Task,
    parts: dict[str, Parts],
    ranks: dict[str, int],
    like: Candidate,
    budget_bytes: int,
    random: np.random.Generator,
    *,
    even: bool = False,
) -> float:
    """The loss with these ranks, taken from or added to at random until the bytes are used up.

    even: the lowest ranks first.
    """
    shapes = {path: (*p.b.shape[:-1], p.a.shape[-1]) for path, p in parts.items()}
    ranks = {path: int(min(ranks.get(path, 0), len(p.gains))) for path, p in parts.items()}

    def cut() -> dict[str, Factors]:
        return {path: join(parts[path], rank) for path, rank in ranks.items() if rank}

    def size() -> int:
        return file_bytes({p: r for p, r in ranks.items() if r}, shapes, like.storage, like.group_size)

    while size() > budget_bytes:
        ranks[str(random.choice([p for p, rank in ranks.items() if rank]))] -= 1
    closed: set[str] = set()
    while open_ := [p for p, rank in ranks.items() if rank < len(parts[p].gains) and p not in closed]:
        low = min(ranks[p] for p in open_)
        path = str(random.choice([p for p in open_ if not even or ranks[p] == low]))
        ranks[path] += 1
        if size() > budget_bytes:
            ranks[path] -= 1
            closed.add(path)
    return measure(base, stored_factors(cut(), like.storage, like.group_size), task.test)


def gain_pct(nll: float, against: float) -> float:
    """By how many percent the perplexity is lower."""
    return 100 * (1 - math.exp(nll - against))


def bench(base: Base, task: Task, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one data set."""
    before = measure(base, {}, task.test)
    most = 1 if options.quick else MOST_RATES

    def plain(rate: float, seed: int) -> Run:
        return _told(baseline(base, task, options.rank, rate, seed, options.steps), task, "lora")

    low = swept(lambda rate: plain(rate, 0), options.rate, most=most)
    lora = [best_of(low)]
    budget_bytes = lora[0].file_bytes
    rank = rank_to_train(shapes_of(base, lora[0].factors), budget_bytes)

    def cut(rate: float, seed: int) -> Run:
        return _told(ours(base, task, rank, rate, seed, options.steps, budget_bytes), task, "ours")

    high = swept(lambda rate: cut(rate, 0), options.rate, most=most)
    fitted = [best_of(high)]
    for seed in range(1, options.seeds):
        lora.append(best_of([plain(rate, seed) for rate in (lora[0].rate, lora[0].rate / 2)]))
        fitted.append(best_of([cut(rate, seed) for rate in (fitted[0].rate, fitted[0].rate / 2)]))
    gains = [gain_pct(o.test, b.test) for o, b in zip(fitted, lora, strict=True)]
    others = [controls(base, task, run, budget_bytes) for run in fitted]
    deep = deep_cut(base, task, fitted[0], budget_bytes)
    return {
        "ppl_gain_pct": round(statistics.mean(gains), 2),
        "ppl_gain_pct_by_seed": [round(g, 2) for g in gains],
        "ppl_gain_pct_spread": _spread(gains),
        "controls_gain_pct": {
            name: _stats([gain_pct(n, b.test) for o, b in zip(others, lora, strict=True) for n in o[name]])
            for name in others[0]
        },
        "ppl_at_half_the_bytes": {
            name: round(math.exp(statistics.mean(nats)), 3) for name, nats in deep.items()
        },
        "ppl": {
            "bare": round(math.exp(before), 3),
            "lora": [round(math.exp(run.test), 3) for run in lora],
            "ours": [round(math.exp(run.test), 3) for run in fitted],
        },
        "budget_bytes": budget_bytes,
        "file_bytes": [run.file_bytes for run in fitted],
        "rank_lora": options.rank,
        "rank_trained": rank,
        "storage": [run.best.storage for run in fitted if run.best],
        "group_size": [run.best.group_size for run in fitted if run.best],
        "parts_kept": [sum(run.best.ranks.values()) for run in fitted if run.best],
        "ways_gain_pct_valid": _ways(fitted[0], lora[0]),
        "rates_lora": {f"{run.rate:g}": round(run.valid, 4) for run in low},
        "rates_ours": {f"{run.rate:g}": round(run.valid, 4) for run in high},
        "samples": {part: len(getattr(task, part)) for part in ("train", "valid", "test")},
        "test_targets": sum(sample.supervised for sample in task.test),
    }


def _ways(run: Run, lora: Run) -> dict[str, float]:
    """What each way to store the same training gains, on the samples they are chosen by."""
    return {
        f"{c.storage} in groups of {c.group_size}": round(gain_pct(c.nll, lora.valid), 2)
        for c in run.candidates
        if c.nll is not None
    }


def _told(run: Run, task: Task, who: str) -> Run:
    stored = f"{run.best.storage} in groups of {run.best.group_size}, " if run.best else ""
    sys.stderr.write(
        f"{task.name} {who} seed {run.seed} rate {run.rate:g}: valid {run.valid:.4f}, "
        f"{stored}{run.file_bytes} bytes, {run.seconds:.0f} s\n"
    )
    return run


def _spread(values: Sequence[float]) -> float:
    return round(statistics.stdev(values), 2) if len(values) > 1 else 0.0


def _stats(values: Sequence[float]) -> dict[str, float]:
    return {"mean": round(statistics.mean(values), 2), "spread": _spread(values), "n": len(values)}


def whole(data: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The figures over all data sets, and what does not hold."""
    gains = [one["ppl_gain_pct"] for one in data.values()]
    names = next(iter(data.values()))["controls_gain_pct"]
    means = {
        name: round(statistics.mean(d["controls_gain_pct"][name]["mean"] for d in data.values()), 2)
        for name in names
    }
    gain = round(statistics.mean(gains), 2)
    misses = [
        f"{name}: {d['ppl_gain_pct']} % is under the target of {TARGET_PCT} %"
        for name, d in data.items()
        if d["ppl_gain_pct"] < TARGET_PCT
    ]
    for name, mean in means.items():
        if gain - mean < 1:
            misses.append(
                f"the control {name!r} gains {mean} % itself: the choice of ranks earns {gain - mean:.2f} "
                "points of the gain, the storage the rest"
            )
    return {
        "ppl_gain_pct": gain,
        "ppl_gain_pct_spread": round(statistics.mean(d["ppl_gain_pct_spread"] for d in data.values()), 2),
        "target_pct": TARGET_PCT,
        "controls_gain_pct": means,
        "what_does_not_hold": misses,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", default="nano")
    parser.add_argument("--rank", type=int, default=2, help="of the baseline, in float16: it sets the bytes")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--samples", type=int, default=1600, help="to train on, at most")
    parser.add_argument("--rate", type=float, default=1e-2, help="where the sweeps of both sides begin")
    parser.add_argument("--data-sets", nargs="+", choices=list(READERS), default=list(READERS))
    parser.add_argument("--quick", action="store_true", help="2-3 minutes: one rate, one seed, 40 steps")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.seeds, options.samples = 40, 1, 400
    began = time.perf_counter()
    base = load_base(options.base)
    share = 0.4 if options.quick else 1.0
    tasks = [read_task(base, name, most=options.samples, share=share) for name in options.data_sets]
    data = {task.name: bench(base, task, options) for task in tasks}
    found = whole(data) | {
        "data_sets": data,
        "base": options.base,
        "steps": options.steps,
        "seeds": options.seeds,
        "quick": options.quick,
        "blas": BLAS.kind,
        "seconds": round(time.perf_counter() - began, 1),
    }
    if options.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for name, d in data.items():
        print(
            f"{name:8} {d['ppl_gain_pct']:6.2f} ± {d['ppl_gain_pct_spread']:.2f} % lower perplexity at "
            f"{d['budget_bytes']} bytes: {d['ppl']['lora']} -> {d['ppl']['ours']}, {d['storage'][0]}"
        )
        for control, stats in d["controls_gain_pct"].items():
            print(f"{'':8} {stats['mean']:6.2f} ± {stats['spread']:.2f} % control {control}, n={stats['n']}")
    print(f"{'mean':8} {found['ppl_gain_pct']:6.2f} % (target {TARGET_PCT} %), {found['seconds']} s")
    for miss in found["what_does_not_hold"]:
        print(f"does not hold: {miss}")


if __name__ == "__main__":
    main()
