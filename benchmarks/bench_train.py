"""How fast and in how much memory a pack is trained: our trainer against mlx-lm's, on the same work.

    MLX_PLASTIC_DATA=... python benchmarks/bench_train.py --json

A random Llama of 18.9M parameters (vocabulary 16,384) learns real chats, every assistant turn of them: from
Taskmaster-4 below MLX_PLASTIC_DATA, or from a file of chats (--data). Both sides get the same first factors,
the same batches in the same order, the same optimizer, and take the same steps, so the losses have to agree;
mlx-lm's trainer is called as it is, with a loss that takes the mask from the batch at the same cost. Each
step is timed; the two sides run in turn in one process, several times. The figures:

    all_layers_ratio     tokens/s of ours over theirs, LoRA on every layer
    top_quarter_ratio    the same with LoRA on the last quarter of the layers, all epochs; the first one fills
                         the cache of the frozen layers (top_quarter_later_epochs_ratio: without the first)
    peak_ratio           our peak of MLX memory, with that cache, over theirs; the larger of the two cases
    max_loss_diff        the largest difference of a step's loss, in nats
    cpu_quantized_ratio  the same on a 4-bit base: ours dequantizes it once where low precision is slow
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from models import make_llama

from mlx_plastic.backend import BLAS, mx, nn, optim
from mlx_plastic.base import Base, load_base, targets
from mlx_plastic.packs.train.batches import plan, rows
from mlx_plastic.packs.train.learner import new_layers
from mlx_plastic.packs.train.train import Progress, TrainConfig, train
from mlx_plastic.samples import Encoded, Message, Sample, encode, read_chats

PAD_TO = 32  # as mlx-lm's own batches


@dataclass
class Course:
    """One training: what each step lost and took. tokens: fed per step, padding not counted."""

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    peak_mb: float = 0.0

    def speed(self, first: int) -> float:
        """Tokens per second from step `first` on."""
        return sum(self.tokens[first:]) / sum(self.seconds[first:])


def taskmaster(folder: Path) -> list[tuple[Message, ...]]:
    """Conversations of Taskmaster-4, neighbouring utterances of one speaker joined."""
    chats = []
    for talk in json.loads((folder / "data_07.json").read_text("utf-8")):
        turns: list[Message] = []
        for said in talk["utterances"]:
            role, text = "user" if said["speaker"].lower() == "user" else "assistant", said["text"].strip()
            if not text:
                continue
            if turns and turns[-1].role == role:
                text = f"{turns.pop().content} {text}"
            turns.append(Message(role, text))  # type: ignore[arg-type]
        if any(turn.role == "assistant" for turn in turns):
            chats.append(tuple(turns))
    return chats


def read(options: argparse.Namespace) -> list[tuple[Message, ...]]:
    if options.data:
        return read_chats(options.data)[0]
    where = os.environ.get("MLX_PLASTIC_DATA")
    if not where:
        sys.exit("set MLX_PLASTIC_DATA to the folder that holds data/taskmaster4, or give --data CHATS.jsonl")
    return taskmaster(Path(where) / "data" / "taskmaster4")


def encoded(base: Base, chats: Sequence[tuple[Message, ...]], most_tokens: int) -> list[Encoded]:
    """The chats under the base's template, whole exchanges from their start up to `most_tokens`."""
    found = []
    for chat in chats:
        for end in range(len(chat), 0, -1):
            if chat[end - 1].role == "assistant":
                one = encode(Sample(chat[:end]), base.tokenizer, max_tokens=10**6)
                if len(one.tokens) <= most_tokens:
                    found.append(one)
                    break
    return found


def ours(base: Base, samples: list[Encoded], config: TrainConfig, ranks: dict[str, int]) -> Course:
    course = Course()
    fed, last = 0, 0.0

    def tick(progress: Progress) -> None:
        nonlocal fed, last
        now = time.perf_counter()
        course.losses.append(progress.loss)
        course.seconds.append(now - last)
        course.tokens.append(progress.tokens - fed)
        fed, last = progress.tokens, now

    mx.clear_cache()
    mx.reset_peak_memory()
    last = time.perf_counter()  # so that setting up counts as part of the first step
    found = train(base, samples, [], config, ranks=ranks, on_progress=tick)
    course.peak_mb = mx.get_peak_memory() / 1e6 + found.report.cache_mb
    return course


def theirs(base: Base, samples: list[Encoded], config: TrainConfig, ranks: dict[str, int]) -> Course:
    from mlx_lm.tuner import trainer
    from mlx_lm.tuner.callbacks import TrainingCallback

    model = base.model
    _wear_theirs(model, config, ranks)
    batches = plan(
        [len(s.tokens) for s in samples], config.batch_tokens, seed=config.seed, epochs=0, steps=config.steps
    )
    course = Course()

    def batched(**_: Any) -> Iterator[tuple[mx.array, mx.array]]:
        for batch in batches:
            yield _padded([samples[i] for i in batch])

    def masked_loss(model: Any, batch: mx.array, mask: mx.array) -> tuple[mx.array, mx.array]:
        """mlx-lm's default_loss, with the mask given."""
        logits = model(batch[:, :-1])
        count = mask.sum()
        ce = nn.losses.cross_entropy(logits, batch[:, 1:]) * mask
        return ce.astype(mx.float32).sum() / count, count

    class Watch(TrainingCallback):
        last = time.perf_counter()

        def on_train_loss_report(self, info: dict[str, Any]) -> None:
            now = time.perf_counter()
            course.losses.append(info["train_loss"])
            course.seconds.append(now - self.last)
            course.tokens.append(sum(len(samples[i].tokens) - 1 for i in batches[info["iteration"] - 1]))
            self.last = now

    mx.clear_cache()
    mx.reset_peak_memory()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer.train(
            model,
            optim.AdamW(learning_rate=config.learning_rate, weight_decay=0.0, bias_correction=True),
            samples,
            args=trainer.TrainingArgs(
                iters=config.steps,
                steps_per_report=1,
                steps_per_save=10**9,
                adapter_file=str(Path(folder) / "adapters.safetensors"),
            ),
            loss=masked_loss,
            iterate_batches=batched,
            training_callback=Watch(),
        )
    course.peak_mb = mx.get_peak_memory() / 1e6
    return course


def _wear_theirs(model: Any, config: TrainConfig, ranks: dict[str, int]) -> None:
    """mlx-lm's LoRA layers with the very factors that ours begin with."""
    from mlx_lm.tuner.lora import LoRALinear

    first = new_layers(model, ranks, scale=config.scale, dropout=0.0, seed=config.seed)
    model.freeze()
    for path, layer in first.items():
        lora = LoRALinear.from_base(layer.base, r=ranks[path], scale=layer.scale)
        lora.lora_a, lora.lora_b = mx.array(layer.a.T), mx.array(layer.b.T)
        parent: Any = model
        *above, leaf = path.split(".")
        for part in above:
            parent = parent[int(part)] if part.isdigit() else getattr(parent, part)
        setattr(parent, leaf, lora)


def _padded(samples: Sequence[Encoded]) -> tuple[mx.array, mx.array]:
    """Tokens (n, width + 1) and the mask (n, width) of what is predicted, width a multiple of PAD_TO."""
    group = rows(samples)
    n, length = group.tokens.shape
    width = -(-length // PAD_TO) * PAD_TO
    tokens, mask = np.zeros((n, width + 1), np.int32), np.zeros((n, width), np.float32)
    for i, sample in enumerate(samples):
        tokens[i, : len(sample.tokens)] = sample.tokens
        mask[i, : len(sample.tokens) - 1] = sample.targets[1:]
    return mx.array(tokens), mx.array(mask)


def in_turn(
    load: Callable[[], Base], samples: list[Encoded], config: TrainConfig, share: float, rounds: int
) -> tuple[list[Course], list[Course]]:
    """Both sides, `rounds` times one after the other. share: of the layers that get LoRA, from the top."""
    mine, other = [], []
    for _ in range(rounds):
        for side, courses in ((ours, mine), (theirs, other)):
            base = load()
            blocks = len(base.model.layers)
            paths = [p for p in targets(base.model) if int(p.split(".")[2]) >= blocks - round(share * blocks)]
            courses.append(side(base, samples, config, dict.fromkeys(paths, config.rank)))
            del base
    return mine, other


def ratio(mine: Sequence[Course], other: Sequence[Course], first: int) -> tuple[float, float]:
    """Of the speeds from step `first` on: of the medians, and the spread of the single rounds' ratios."""
    each = [a.speed(first) / b.speed(first) for a, b in zip(mine, other, strict=True)]
    return statistics.median(each), max(each) - min(each)


def loss_difference(mine: Sequence[Course], other: Sequence[Course]) -> float:
    return max(
        abs(a - b) for m, o in zip(mine, other, strict=True) for a, b in zip(m.losses, o.losses, strict=True)
    )


def figures(name: str, mine: Sequence[Course], other: Sequence[Course], first: int) -> dict[str, Any]:
    found, spread = ratio(mine, other, first)
    return {
        f"{name}_ratio": round(found, 2),
        f"{name}_ratio_spread": round(spread, 2),
        f"{name}_tokens_per_s": round(statistics.median(c.speed(first) for c in mine), 1),
        f"{name}_mlx_lm_tokens_per_s": round(statistics.median(c.speed(first) for c in other), 1),
        f"{name}_peak_mb": round(max(c.peak_mb for c in mine), 1),
        f"{name}_mlx_lm_peak_mb": round(max(c.peak_mb for c in other), 1),
        f"{name}_final_loss": round(mine[0].losses[-1], 4),
    }


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    chats = read(options)
    texts = [message.content for chat in chats for message in chat]
    path = make_llama(folder / "base", texts=texts, dtype="float32")
    base = load_base(str(path))
    samples = encoded(base, chats, options.max_tokens)[: options.samples]
    config = TrainConfig(
        rank=options.rank,
        learning_rate=1e-3,
        schedule="constant",
        warmup_fraction=0.0,
        clip=0.0,
        batch_tokens=options.batch_tokens,
        seed=options.seed,
    )
    per_epoch = len(plan([len(s.tokens) for s in samples], options.batch_tokens, seed=0, epochs=1, steps=0))
    if per_epoch < 3:
        sys.exit(f"{len(samples)} samples make {per_epoch} steps an epoch; at least 3 are needed: --samples")
    supervised = sum(s.supervised for s in samples) / sum(len(s.tokens) for s in samples)
    found: dict[str, Any] = {
        "parameters_m": 18.9,
        "blas": BLAS.kind,
        "blas_threads": BLAS.threads,
        "samples": len(samples),
        "supervised_share": round(supervised, 3),
        "rank": options.rank,
        "batch_tokens": options.batch_tokens,
        "rounds": options.rounds,
        "steps_per_epoch": per_epoch,
        "epochs": options.epochs,
    }
    found["parameters_m"] = round(sum(a.size for a in _arrays(base.model)) / 1e6, 1)
    load = lambda: load_base(str(path))  # noqa: E731
    two = dataclasses.replace(config, steps=2 * per_epoch)
    everywhere = in_turn(load, samples, two, 1.0, options.rounds)
    found |= figures("all_layers", *everywhere, first=2)
    long = dataclasses.replace(config, steps=options.epochs * per_epoch)
    top = in_turn(load, samples, long, 0.25, options.rounds)
    found |= figures("top_quarter", *top, first=2)
    found["top_quarter_later_epochs_ratio"] = round(ratio(*top, first=per_epoch)[0], 2)
    peaks = [[max(c.peak_mb for c in side) for side in case] for case in (everywhere, top)]
    found["peak_ratio"] = round(max(a / b for a, b in peaks), 3)
    found["max_loss_diff"] = max(loss_difference(*everywhere), loss_difference(*top))
    if not options.skip_quantized:
        found |= quantized(path, folder / "4-bit", samples, config)
    return found


def quantized(path: Path, folder: Path, samples: list[Encoded], config: TrainConfig) -> dict[str, Any]:
    """A few steps on a 4-bit base with bfloat16 scales, as the hub has them, against mlx-lm on the same."""
    from mlx_lm.utils import load_model, load_tokenizer, quantize_model, save

    model, settings = load_model(path)
    model.set_dtype(mx.bfloat16)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints, and stdout is one JSON object
        model, settings = quantize_model(model, settings, 64, 4)
    save(folder, str(path), model, load_tokenizer(path), settings)
    few = dataclasses.replace(config, steps=4, batch_tokens=256)  # stock MLX takes 10 s a step and more
    widened = load_base(str(folder))
    ranks = dict.fromkeys(targets(widened.model), config.rank)
    mine = ours(widened, samples, dataclasses.replace(few, steps=20), ranks)
    stays = dataclasses.replace(widened, model=load_model(folder)[0])
    other = theirs(stays, samples, few, ranks)
    return {
        "cpu_quantized_ratio": round(mine.speed(2) / other.speed(1), 1),
        "cpu_quantized_tokens_per_s": round(mine.speed(2), 1),
        "cpu_quantized_mlx_lm_tokens_per_s": round(other.speed(1), 1),
        "note_at_load": widened.note,
    }


def _arrays(model: Any) -> list[mx.array]:
    from mlx_plastic.backend import tree_flatten

    named: Any = tree_flatten(model.parameters())
    return [array for _, array in named]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="chats to learn, one {'messages': [...]} a line")
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--max-tokens", type=int, default=256, help="of a sample")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5, help="of the case with LoRA on the top quarter")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip-quantized", action="store_true", help="that part takes minutes on a CPU")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, Path(folder))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:36} {value}")


if __name__ == "__main__":
    main()
