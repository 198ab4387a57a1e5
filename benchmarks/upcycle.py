"""A trained tiny Mixture of Experts: nano with its feed-forwards turned into experts, and trained on.

    python benchmarks/upcycle.py OUT --steps 60

Each of nano's feed-forwards becomes `experts` copies with a little noise and a router drawn at random
(Komatsuzaki et al. 2022, arXiv:2212.05055); then everything learns for some steps, with the load of the
experts kept even, so that they come apart. The result is an ordinary Qwen3-MoE checkpoint.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from mlx_plastic.backend import mx, nn, tree_flatten
from mlx_plastic.base import load_base, resolve
from mlx_plastic.base.model import load_lazily
from mlx_plastic.lowrank.quick import quick_activations, summed_nll
from mlx_plastic.samples import Encoded

NOISE = 0.3  # of each weight's spread
BATCH = 4  # pieces


def split(folder: Path, *, experts: int = 4, used: int = 2, seed: int = 0) -> Path:
    """nano as an MoE that answers nearly as it does."""
    source = resolve("nano")
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    config = json.loads((source / "config.json").read_text("utf-8"))
    config |= {
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        "num_experts": experts,
        "num_experts_per_tok": used,
        "moe_intermediate_size": config["intermediate_size"],
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    random = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    for name, w in load_file(source / "model.safetensors").items():
        if ".mlp." not in name:
            weights[name] = w
            continue
        head, _, tail = name.partition(".mlp.")
        for e in range(experts):
            noise = NOISE * float(w.astype(np.float32).std()) * random.standard_normal(w.shape)
            weights[f"{head}.mlp.experts.{e}.{tail}"] = (w.astype(np.float32) + noise).astype(np.float16)
        router = random.standard_normal((experts, config["hidden_size"])) * 0.05
        weights[f"{head}.mlp.gate.weight"] = router.astype(np.float16)
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder


def train(folder: Path, pieces: Sequence[Encoded], *, steps: int, rate: float = 1e-3, seed: int = 0) -> None:
    """Train every weight in place with Adam; the checkpoint is rewritten."""
    from mlx.optimizers import Adam

    base = load_base(str(folder))
    model: Any = base.model
    model.unfreeze()
    optimizer = Adam(learning_rate=rate)
    random = np.random.default_rng(seed)

    def loss(piece: Encoded) -> mx.array:
        tokens = mx.array(piece.tokens)
        return summed_nll(model(tokens[None, :-1])[0], tokens[1:]) / (len(piece.tokens) - 1)

    step_of = nn.value_and_grad(model, lambda some: sum(map(loss, some)) / len(some))
    with quick_activations():
        for step in range(steps):
            some = [pieces[int(i)] for i in random.integers(0, len(pieces), BATCH)]
            value, gradient = step_of(some)
            optimizer.update(model, gradient)
            mx.eval(value, model.parameters(), optimizer.state)
            if step % 20 == 0:
                print(f"step {step}: {float(value.item()):.3f}", flush=True)
    flat: Any = tree_flatten(model.parameters())
    made = {name: np.array(array).astype(np.float16) for name, array in flat}
    save_file(made, str(folder / "model.safetensors"), metadata={"format": "mlx"})


def make(folder: Path, pieces: Sequence[Encoded], *, steps: int = 60) -> Path:
    split(folder)
    train(folder, pieces, steps=steps)
    load_lazily(folder)  # it loads, as any other
    return folder


def main() -> None:
    from bench_compress import TEXTS, texts_of

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    began = time.perf_counter()
    learned, _ = texts_of(load_base("nano"), TEXTS["nano"]())
    make(options.out, learned, steps=options.steps)
    print(f"{options.out}: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
