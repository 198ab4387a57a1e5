"""What `plastic compress apply` holds in memory, against the largest tensor and shard of the checkpoint.

    python benchmarks/bench_apply_memory.py --json

A random Llama of several hundred megabytes in 16 bits is written in shards, and compressed to 4 bits by a
process of its own, which tells how far its resident memory rose above what it had when all was imported. Once
rounding plainly, once with GPTQ on one matrix of each shape, whose H is as wide as its rows. Linux only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

MB = 1e6
VOCAB = 8192


def shapes(layers: int, hidden: int) -> dict[str, tuple[int, ...]]:
    inner = hidden * 11 // 4
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, hidden)}
    for i in range(layers):
        at = f"model.layers.{i}"
        found |= {f"{at}.self_attn.{x}_proj.weight": (hidden, hidden) for x in "qkvo"}
        found |= {f"{at}.mlp.{x}_proj.weight": (inner, hidden) for x in ("gate", "up")}
        found[f"{at}.mlp.down_proj.weight"] = (hidden, inner)
        found |= {f"{at}.{x}_layernorm.weight": (hidden,) for x in ("input", "post_attention")}
    return found | {"model.norm.weight": (hidden,)}


def checkpoint(folder: Path, layers: int, hidden: int, shard_mb: float) -> dict[str, Any]:
    """Write it; returns its sizes in bytes."""
    from mlx_plastic.base import resolve

    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(resolve("nano") / name, folder / name)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": hidden * 11 // 4,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 64,
        "vocab_size": VOCAB,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    random, sizes, where = np.random.default_rng(0), [], {}
    for i, group in enumerate(_groups(shapes(layers, hidden), shard_mb * MB)):
        name = f"model-{i:05}.safetensors"
        made = {
            k: (random.standard_normal(s, np.float32) * 0.02).astype(np.float16) for k, s in group.items()
        }
        save_file(made, str(folder / name), metadata={"format": "pt"})
        sizes.append((folder / name).stat().st_size)
        where |= dict.fromkeys(group, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    largest = max(math.prod(s) for s in shapes(layers, hidden).values())
    return {"bytes": sum(sizes), "shards": len(sizes), "shard": max(sizes), "tensor_float32": 4 * largest}


def _groups(named: dict[str, tuple[int, ...]], most: float) -> Iterator[dict[str, tuple[int, ...]]]:
    group: dict[str, tuple[int, ...]] = {}
    for name, shape in named.items():
        if group and 2 * sum(map(math.prod, (*group.values(), shape))) > most:
            yield group
            group = {}
        group[name] = shape
    yield group


def child(folder: Path, out: Path, with_gptq: bool) -> dict[str, float]:
    """Compress it here, and tell by how much resident memory rose at most."""
    import mlx_lm.utils  # noqa: F401  # whatever apply will import counts as the bare process

    from mlx_plastic.base.weights import open_weights
    from mlx_plastic.compress.apply import Applying, apply
    from mlx_plastic.compress.metrics import Metrics
    from mlx_plastic.compress.plan import Plan, Stored, recounted
    from mlx_plastic.compress.price import rest_bytes
    from mlx_plastic.compress.taps import storable

    weights = open_weights(str(folder))
    metrics = Metrics.new(out.with_name(f"{out.name}-h"), weights.fingerprint, "random")
    matrices, seen = [], set()
    for path in storable(weights.model):
        rows, cols = weights.shapes[f"{path}.weight"]
        by_texts = with_gptq and (rows, cols) not in seen and rows != VOCAB
        seen.add((rows, cols))
        if by_texts:
            x = np.random.default_rng(0).standard_normal((2 * cols, cols)).astype(np.float32)
            metrics.add(path, (x.T @ x / len(x))[None])
        matrices.append(Stored(path, rows, cols, 1, 4, 64, "affine", by_texts, 0, 0.0, 0.0))
    metrics.close()
    rest, parameters = rest_bytes(weights), sum(math.prod(s) for s in weights.shapes.values())
    plan = recounted(
        Plan(
            *(str(folder), weights.fingerprint, "float16", parameters, rest, parameters, "roles", 0.0, 0.0),
            exact=True,
            matrices=tuple(matrices),
        )
    )
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    bare = _status("VmRSS")
    began = time.process_time()
    apply(plan, str(folder), out, Applying(park="none"), metrics=metrics.folder)
    return {"bare": bare, "rise": _status("VmHWM") - bare, "cpu_s": time.process_time() - began}


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key + ":")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--shard-mb", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)  # folder, out, "gptq" or "plain"
    options = parser.parse_args()
    if options.child:
        folder, out, kind = options.child
        print(json.dumps(child(Path(folder), Path(out), kind == "gptq")))
        return
    with tempfile.TemporaryDirectory(prefix="plastic-bench-") as name:
        made = checkpoint(Path(name) / "base", options.layers, options.hidden, options.shard_mb)
        found: dict[str, Any] = {f"checkpoint_{k}": v for k, v in made.items()}
        allowed = made["tensor_float32"] + made["shard"]
        for kind in ("plain", "gptq"):
            words = [sys.executable, __file__, "--child", str(Path(name) / "base"), f"{name}/{kind}", kind]
            done = subprocess.run(words, env=os.environ, check=True, capture_output=True, text=True)
            told = json.loads(done.stdout.splitlines()[-1])
            found[kind] = {k: round(v / MB, 1) for k, v in told.items() if k != "cpu_s"}
            found[kind] |= {"over_tensor_and_shard": round(told["rise"] / allowed, 2)}
            found[kind] |= {"over_checkpoint": round(told["rise"] / made["bytes"], 3)}
            found[kind] |= {"cpu_s": round(told["cpu_s"], 1)}
    print(json.dumps(found, indent=2 if options.json else None))


if __name__ == "__main__":
    main()
