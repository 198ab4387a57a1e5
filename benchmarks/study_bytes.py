"""Where the bytes of a pack are best spent: ranks, storages, deep cuts, healing, strategies, one by one.

    MLX_PLASTIC_DATA=... python benchmarks/study_bytes.py --data-set wikisql --json

One base, one data set, one learning rate, all trainings of the same steps; held-out nats per target. It is
the ground of docs/rank-and-bytes.md; `bench_bytes.py` compares with swept learning rates and controls.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from typing import Any, get_args

from bench_bytes import config_of
from texts import READERS, Task, read_task

from mlx_plastic.base import Base, load_base, targets
from mlx_plastic.evals import thinned
from mlx_plastic.packs.format.pack import Factors, Storage, stored_factors, tensor_bytes
from mlx_plastic.packs.ranks.budget import WEIGHING, Metric, cut_to, fit, heal, measure, weighed
from mlx_plastic.packs.ranks.ranks import STRATEGIES, numbers, rank_map, shapes_of
from mlx_plastic.packs.train.train import train

HEAL_SHARE = 0.25  # of the steps, taken from the training before


def trained(
    base: Base, task: Task, rank: int, options: argparse.Namespace, ranks: dict[str, int] | None = None
) -> dict[str, Factors]:
    config = config_of(rank, options.rate, options.seed, options.steps)
    return train(base, task.train, task.valid, config, ranks=ranks).factors


def storages(base: Base, task: Task, factors: dict[str, Factors]) -> dict[str, Any]:
    """Bytes and loss of the whole update in each storage."""
    return {
        storage: [
            len(tensor_bytes(factors, storage)),
            round(measure(base, stored_factors(factors, storage), task.test), 4),
        ]
        for storage in get_args(Storage)
    }


def cuts(base: Base, task: Task, factors: dict[str, Factors], budgets: list[int]) -> dict[str, Any]:
    """The loss when cut to each budget as int4, by what the parts are weighed with."""
    samples = thinned(task.train, WEIGHING)
    parts = {metric: weighed(base, factors, metric, samples) for metric in get_args(Metric)}
    return {
        str(budget): {
            metric: round(measure(base, cut_to(p, budget, "int4")[1], task.test), 4)
            for metric, p in parts.items()
        }
        for budget in budgets
    }


def healed(base: Base, task: Task, rank: int, options: argparse.Namespace, budget: int) -> dict[str, float]:
    """Trained for three quarters of the steps, cut to the budget, trained on for the last quarter."""
    last = round(options.steps * HEAL_SHARE)
    config = config_of(rank, options.rate, options.seed, options.steps - last)
    factors = train(base, task.train, task.valid, config).factors
    found = fit(base, factors, task.valid, budget_bytes=budget, weigh=task.train, storages=("int4",))
    after = dataclasses.replace(config, steps=last, learning_rate=options.rate / 2)
    better = heal(base, found, task.train, task.valid, after)
    return {
        "cut": round(measure(base, found.factors, task.test), 4),
        "healed": round(measure(base, better.factors, task.test), 4),
    }


def strategies(base: Base, task: Task, rank: int, options: argparse.Namespace) -> dict[str, Any]:
    """Maps of as many numbers as `rank` everywhere, each module at most at three times that rank."""
    paths = list(targets(base.model))
    shapes = shapes_of(base, paths)
    one_for_all = dict.fromkeys(paths, rank)
    whole = sum(out * width for out, width in shapes.values())
    share = numbers(one_for_all, shapes) / whole
    maps = {"one for all": one_for_all}
    maps["narrow keys and values"] = rank_map(base, paths, rank=rank + 1, target_compression=share)
    for strategy in STRATEGIES:
        maps[strategy] = rank_map(
            base, paths, rank=3 * rank, strategy=strategy, target_compression=share, samples=task.train
        )
    return {
        name: {
            "numbers": numbers(ranks, shapes),
            "ranks": f"{min(ranks.values())}-{max(ranks.values())}",
            "nll": round(measure(base, trained(base, task, rank, options, ranks), task.test), 4),
        }
        for name, ranks in maps.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", default="nano")
    parser.add_argument("--data-set", choices=list(READERS), default="wikisql")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3, 4, 6, 8, 16])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--samples", type=int, default=1600)
    parser.add_argument("--rate", type=float, default=1e-2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-strategies", action="store_true", help="leave the rank strategies out")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    base = load_base(options.base)
    task = read_task(base, options.data_set, most=options.samples)
    factors = {rank: trained(base, task, rank, options) for rank in options.ranks}
    stored = {rank: storages(base, task, f) for rank, f in factors.items()}
    budgets = [stored[rank]["float16"][0] for rank in (1, 2) if rank in stored]
    found = {
        "storages": stored,
        "cut_to_bytes": {r: cuts(base, task, f, budgets) for r, f in factors.items() if r > 2},
        "healed_to_bytes": {str(b): healed(base, task, max(options.ranks), options, b) for b in budgets},
        "strategies": {} if options.no_strategies else strategies(base, task, 3, options),
        "targets": sum(sample.supervised for sample in task.test),
        "mean_tokens": round(statistics.mean(len(sample.tokens) for sample in task.test), 1),
    }
    sys.stdout.write(json.dumps(found, indent=None if options.json else 2) + "\n")


if __name__ == "__main__":
    main()
