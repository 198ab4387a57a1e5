"""Whether ranks that are found while training do better than one rank for all, in the same bytes.

    MLX_PLASTIC_DATA=... python benchmarks/bench_dynamic_rank.py --json

All sides learn the same samples for the same steps with the same trainer, are stored in float16 and take the
same bytes (the dynamic ones at most those of the fixed rank). The learning rate is swept for the fixed rank
and for the dynamic one alike, on the first seed; what is chosen is chosen on validation samples, what is
told are nats per held-out token. Controls, trained from nothing at the rate of the fixed rank: the ranks
that were found (map), and the same ranks dealt to other modules of the same size (shuffled).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from texts import READERS, Task, read_task

from mlx_plastic.base import Base, load_base
from mlx_plastic.packs.format.pack import Factors, tensor_bytes
from mlx_plastic.packs.ranks.budget import measure
from mlx_plastic.packs.train.train import TrainConfig, train

SEEDS_SHOWN = 4  # digits


@dataclass(frozen=True)
class Run:
    rate: float
    valid: float
    test: float
    nbytes: int
    factors: dict[str, Factors]
    events: int

    @property
    def ranks(self) -> dict[str, int]:
        return {path: f.a.shape[-2] for path, f in self.factors.items()}


def run(
    base: Base,
    task: Task,
    options: argparse.Namespace,
    *,
    rate: float,
    seed: int,
    dynamic: bool = False,
    ranks: Mapping[str, int] | None = None,
) -> Run:
    config = TrainConfig(
        rank=options.rank,
        learning_rate=rate,
        seed=seed,
        steps=options.steps,
        valid_every=max(10, options.steps // 4),
        dynamic_rank=dynamic,
        rank_policy=options.policy,
    )
    found = train(base, task.train, task.valid, config, ranks=ranks)
    valid, test = (measure(base, found.factors, part) for part in (task.valid, task.test))
    size = len(tensor_bytes(found.factors))
    return Run(rate, valid, test, size, found.factors, len(found.report.events))


def shuffled(base_run: Run, seed: int) -> dict[str, int]:
    """The same ranks, dealt among modules whose components take the same bytes."""
    random = np.random.default_rng(seed)
    groups: dict[tuple[int, ...], list[str]] = {}
    for path, f in base_run.factors.items():
        groups.setdefault((f.b.shape[-2] + f.a.shape[-1],), []).append(path)
    dealt: dict[str, int] = {}
    for paths in groups.values():
        values = random.permutation([base_run.ranks[p] for p in paths]).tolist()
        dealt |= dict(zip(paths, values, strict=True))
    return dealt


def bench(base: Base, task: Task, options: argparse.Namespace) -> dict[str, Any]:
    sides: dict[str, list[Run]] = {"fixed": [], "dynamic": [], "map": [], "shuffled": []}
    rates: dict[str, float] = {}
    for side in ("fixed", "dynamic"):
        swept = [
            run(base, task, options, rate=rate, seed=0, dynamic=side == "dynamic") for rate in options.rates
        ]
        best = min(swept, key=lambda one: one.valid)
        rates[side] = best.rate
        sides[side].append(best)
    for seed in range(options.seeds):
        if seed:
            for side in ("fixed", "dynamic"):
                sides[side].append(
                    run(base, task, options, rate=rates[side], seed=seed, dynamic=side == "dynamic")
                )
        if options.no_controls:
            continue
        found = sides["dynamic"][seed]
        for side, ranks in (("map", found.ranks), ("shuffled", shuffled(found, seed))):
            sides[side].append(run(base, task, options, rate=rates["fixed"], seed=seed, ranks=ranks))
    losses = {side: [round(one.test, SEEDS_SHOWN) for one in runs] for side, runs in sides.items()}
    means = {side: statistics.mean(values) for side, values in losses.items() if values}
    apart = [d - f for d, f in zip(losses["dynamic"], losses["fixed"], strict=True)]
    ranks = sides["dynamic"][0].ranks
    return {
        "loss_dynamic": round(means["dynamic"], 4),
        "loss_best_fixed": round(means["fixed"], 4),
        **{f"loss_{side}": round(means[side], 4) for side in ("map", "shuffled") if side in means},
        "each": losses,
        "dynamic_less_fixed": round(statistics.mean(apart), 4),
        "spread": round(statistics.stdev(apart) / len(apart) ** 0.5, 4) if len(apart) > 1 else None,
        "rates": rates,
        "bytes": {side: max(one.nbytes for one in runs) for side, runs in sides.items() if runs},
        "ranks": f"{min(ranks.values())}-{max(ranks.values())}",
        "changes": sides["dynamic"][0].events,
        "at_least_as_good": means["dynamic"] <= means["fixed"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", default="nano")
    parser.add_argument("--rank", type=int, default=2, help="of the fixed side: it sets the bytes")
    parser.add_argument("--policy", choices=["gradient", "spectral", "activation"], default="gradient")
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--samples", type=int, default=1600)
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-3, 1e-2, 2e-2])
    parser.add_argument("--data-sets", nargs="+", choices=list(READERS), default=list(READERS))
    parser.add_argument("--no-controls", action="store_true", help="only dynamic against fixed")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    base = load_base(options.base)
    data = {}
    for name in options.data_sets:
        data[name] = bench(base, read_task(base, name, most=options.samples, share=0.5), options)
        if not options.json:
            d = data[name]
            print(
                f"{name:8} dynamic {d['loss_dynamic']} ({d['ranks']}), fixed {d['loss_best_fixed']}, "
                f"found map {d.get('loss_map')}, shuffled {d.get('loss_shuffled')}: {d['each']}, "
                f"dynamic less fixed {d['dynamic_less_fixed']} +- {d['spread']}",
                flush=True,
            )
    found = {
        "holds": all(d["at_least_as_good"] for d in data.values()),
        "data_sets": data,
        "base": options.base,
        "rank": options.rank,
        "steps": options.steps,
        "seeds": options.seeds,
        "seconds": round(time.perf_counter() - began, 1),
    }
    if options.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        print(f"at least as good as the fixed rank on every data set: {found['holds']}")


if __name__ == "__main__":
    main()
