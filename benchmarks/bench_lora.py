"""How fast a pack is trained: our trainer against mlx-lm's, on the same base and samples, in one run.

    python benchmarks/bench_lora.py --base nano --steps 30

Samples are random tokens in the shape of short questions and answers (20-60 tokens, the last third is
learned). Counted are tokens that are no padding, over the wall clock of the steps alone, the first few left
out; per CPU-second too, which does not change when others use the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlx_plastic.backend import BLAS, mx, optim
from mlx_plastic.base import Base, load_base, targets
from mlx_plastic.packs.train import Progress, TrainConfig, train
from mlx_plastic.samples import Encoded

WARM = 3  # steps that are not counted


@dataclass
class Laps:
    """What each step fed and took; the first call starts the clock."""

    tokens: list[int] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    last: tuple[float, float] | None = None

    def lap(self, tokens: int) -> None:
        now, cpu = time.perf_counter(), time.process_time()
        if self.last:
            self.tokens.append(tokens)
            self.wall_s.append(now - self.last[0])
            self.cpu_s.append(cpu - self.last[1])
        self.last = (now, cpu)

    def figures(self) -> dict[str, float]:
        tokens, wall, cpu = self.tokens[WARM:], self.wall_s[WARM:], self.cpu_s[WARM:]
        speeds = [n / s for n, s in zip(tokens, wall, strict=True)]
        return {
            "tokens_per_s": round(sum(tokens) / sum(wall), 1),
            "tokens_per_s_best_step": round(max(speeds), 1),
            "tokens_per_s_spread": round(statistics.pstdev(speeds), 1),
            "tokens_per_cpu_s": round(sum(tokens) / sum(cpu), 1),
            "ms_per_step": round(1000 * sum(wall) / len(wall), 1),
            "steps": len(wall),
        }


def random_samples(base: Base, n: int, seed: int) -> list[Encoded]:
    random = np.random.default_rng(seed)
    vocab = int(base.config["vocab_size"])
    made = []
    for _ in range(n):
        length = int(random.integers(20, 61))
        targets = [i >= length - length // 3 for i in range(length)]
        made.append(Encoded(tuple(map(int, random.integers(5, vocab, length))), tuple(targets)))
    return made


def ours(base: Base, samples: list[Encoded], options: argparse.Namespace) -> dict[str, float]:
    config = TrainConfig(rank=options.rank, steps=options.steps, batch_tokens=options.batch_tokens)
    laps, fed = Laps(), [0]

    def tick(progress: Progress) -> None:
        laps.lap(progress.tokens - fed[0])
        fed[0] = progress.tokens

    mx.reset_peak_memory()
    train(base, samples, [], config, on_progress=tick)
    return laps.figures() | {"mlx_peak_mb": round(mx.get_peak_memory() / 1e6, 1)}


def mlx_lm(base: Base, samples: list[Encoded], options: argparse.Namespace) -> dict[str, float]:
    from mlx_lm.tuner import trainer
    from mlx_lm.tuner.callbacks import TrainingCallback
    from mlx_lm.tuner.utils import linear_to_lora_layers

    names = {".".join(path.split(".")[3:]) for path in targets(base.model)}
    settings = {"rank": options.rank, "scale": 2.0, "dropout": 0.0, "keys": names}
    linear_to_lora_layers(base.model, len(base.model.layers), settings)
    data = [(list(s.tokens), len(s.tokens) - s.supervised) for s in samples]
    mean = sum(len(s.tokens) for s in samples) / len(samples)
    batch = max(1, round(options.batch_tokens / mean))
    laps = Laps()
    waiting: list[int] = []

    def watched(*arguments: Any, **named: Any) -> Iterator[Any]:
        for tokens, lengths in trainer.iterate_batches(*arguments, **named):
            waiting.append(sum(stop - 1 for _, stop in lengths.tolist()))
            yield tokens, lengths

    class Watch(TrainingCallback):
        def on_train_loss_report(self, info: dict[str, Any]) -> None:
            laps.lap(waiting[info["iteration"] - 1])

    mx.reset_peak_memory()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        arguments = trainer.TrainingArgs(
            batch_size=batch,
            iters=options.steps,
            steps_per_report=1,
            steps_per_save=10**9,
            adapter_file=str(Path(folder) / "adapters.safetensors"),
        )
        optimizer = optim.AdamW(learning_rate=1e-4)
        trainer.train(
            base.model, optimizer, data, args=arguments, iterate_batches=watched, training_callback=Watch()
        )
    return laps.figures() | {"mlx_peak_mb": round(mx.get_peak_memory() / 1e6, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", default="nano")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--batch-tokens", type=int, default=512)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.steps < WARM + 2:
        parser.error(f"--steps must be at least {WARM + 2}: the first {WARM + 1} are not counted")
    base = load_base(options.base)
    samples = random_samples(base, options.samples, options.seed)
    found: dict[str, Any] = {
        "base": options.base,
        "blas": BLAS.kind,
        "rank": options.rank,
        "batch_tokens": options.batch_tokens,
        "ours": ours(base, samples, options),
        "mlx_lm": mlx_lm(load_base(options.base), samples, options),
    }
    for figure in ("tokens_per_s", "tokens_per_cpu_s"):
        found[f"ratio_{figure}"] = round(found["ours"][figure] / found["mlx_lm"][figure], 2)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for who in ("ours", "mlx_lm"):
        f = found[who]
        print(
            f"{who:7} {f['tokens_per_s']:7.0f} ± {f['tokens_per_s_spread']:.0f} tokens/s"
            f" ({f['tokens_per_cpu_s']:.0f} per CPU-second), {f['ms_per_step']:.0f} ms/step,"
            f" n={f['steps']}, peak {f['mlx_peak_mb']:.0f} MB"
        )
    print(f"ratio   {found['ratio_tokens_per_s']} ({found['ratio_tokens_per_cpu_s']} per CPU-second)")


if __name__ == "__main__":
    main()
