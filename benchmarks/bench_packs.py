"""Packs in figures: swapping, composing, compressing, and the same logits in other tools.

    python benchmarks/bench_packs.py --json

On a random Llama of 18.9M parameters with packs of rank 8 on all its linear layers. What is compared with
(mlx-lm's reload, the dense SVD, PEFT's linear merge) runs in the same process, beside ours. Times are
medians; files come from the page cache, for ours and for theirs. `peft_logit_diff` needs the real peft
(pip install 'mlx-plastic[peft]'), and is null without it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from models import make_llama

from mlx_plastic.backend import BLAS, mx
from mlx_plastic.base import Base, load_base, targets
from mlx_plastic.base.widen import count_parameters
from mlx_plastic.lowrank.layers import dims, unwrap
from mlx_plastic.lowrank.svd import product_svd, truncated_svd
from mlx_plastic.packs import DataCard, Factors, Pack, RunCard, make_manifest, read_pack, write_pack
from mlx_plastic.packs.algebra.compose import Parent, compose
from mlx_plastic.packs.convert import export_pack
from mlx_plastic.packs.wear.attach import attach, attached
from mlx_plastic.packs.wear.mixed import Mixer

TOKENS = 64  # of the text whose logits are compared
WEIGHTS = (1.0, 0.7)  # of the composed packs; no power of two of each other, which is the hard case


def random_pack(base: Base, name: str, *, rank: int, seed: int) -> Pack:
    """Updates of every linear layer of the blocks, about as large as training makes them."""
    random = np.random.default_rng(seed)

    def half(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * 0.02).astype(np.float16)

    factors = {}
    for path, linear in targets(base.model).items():
        out, width = dims(linear)
        factors[path] = Factors(half(rank, width), half(out, rank), 2.0 * rank)
    manifest = make_manifest(
        factors,
        name=name,
        base_id=base.ref,
        base_fingerprint=base.fingerprint,
        training={},
        data=DataCard("00" * 32, 0, 0, 0),
        run=RunCard(0, 0.0, 0.0, 0.0),
    )
    return Pack(manifest, factors)


def laps_ms(task: Callable[[], Any], times: int) -> list[float]:
    """Milliseconds of each run, sorted."""
    laps = []
    for _ in range(times):
        start = time.perf_counter()
        task()
        laps.append(1000 * (time.perf_counter() - start))
    return sorted(laps)


def spread(name: str, laps: list[float]) -> dict[str, float]:
    ninth = laps[int(0.9 * (len(laps) - 1))]
    return {name: round(statistics.median(laps), 3), f"{name}_best": round(laps[0], 3),
            f"{name}_p90": round(ninth, 3)}  # fmt: skip


def swapping(base: Base, packs: list[Pack], folders: list[Path], times: int) -> dict[str, float]:
    """From memory: two packs in turn, made ready before, as serve has it. From disk: read, verified and worn,
    as a chat has it that finds another pack active.
    """
    turn = [0]

    def other() -> int:
        turn[0] ^= 1
        return turn[0]

    mixer = Mixer(base.model, base.fingerprint)
    outfits = [mixer.admit({"p": pack}) for pack in packs]

    def from_memory() -> None:
        mixer.dress([outfits[other()]])

    def from_disk() -> None:
        attach(base.model, {"p": read_pack(folders[other()])}, fingerprint=base.fingerprint)

    laps_ms(from_memory, 2)
    memory = laps_ms(from_memory, 10 * times)
    mixer.undress()
    laps_ms(from_disk, 2)
    disk = laps_ms(from_disk, times)
    unwrap(base.model)
    return {**spread("swap_memory_ms", memory), **spread("swap_disk_ms", disk)}


def reloading(checkpoint: Path, adapters: list[Path], times: int) -> dict[str, float]:
    """What mlx-lm does to wear another adapter: load the base again."""
    import mlx_lm

    turn = [0]

    def reload() -> None:
        turn[0] ^= 1
        mlx_lm.load(str(checkpoint), adapter_path=str(adapters[turn[0]]))

    laps_ms(reload, 1)
    return spread("mlxlm_reload_ms", laps_ms(reload, times))


def logits(base: Base, packs: dict[str, Pack], tokens: list[int], **scales: float) -> np.ndarray:
    with attached(base.model, packs, fingerprint=base.fingerprint, scales=scales):
        return np.array(base.logits(tokens).astype(mx.float32))


def composing(base: Base, packs: list[Pack], tokens: list[int]) -> dict[str, float]:
    """Logits of the composed pack against both attached, relative to what both change; and PEFT's merge."""
    one, two = packs
    both = logits(base, {"one": one, "two": two}, tokens, one=WEIGHTS[0], two=WEIGHTS[1])
    change = np.abs(both - logits(base, {}, tokens)).max()
    made = compose([Parent(p, w) for p, w in zip(packs, WEIGHTS, strict=True)], "both")
    found = logits(base, {"both": Pack(made.manifest, made.factors)}, tokens)
    linear = logits(base, {"linear": Pack(one.manifest, peft_linear(one, two))}, tokens)
    return {
        "compose_rel_error": float(np.abs(found - both).max() / change),
        "compose_update_error": made.error,
        "peft_linear_rel_error": round(float(np.abs(linear - both).max() / change), 3),
    }


def peft_linear(one: Pack, two: Pack) -> dict[str, Factors]:
    """PEFT's combination_type "linear": sqrt(weight * scale) times A and B, each added by itself."""
    merged = {}
    for path, f in one.factors.items():
        g = two.factors[path]
        roots = [(w * h.scale) ** 0.5 for w, h in zip(WEIGHTS, (f, g), strict=True)]
        a, b = (
            (roots[0] * x.astype(np.float32) + roots[1] * y.astype(np.float32)).astype(np.float16)
            for x, y in ((f.a, g.a), (f.b, g.b))
        )
        merged[path] = Factors(a, b, float(f.rank))
    return merged


def compressing(size: int, rank: int) -> dict[str, float]:
    """The SVD of a sum of updates of total rank `rank`: from the factors, and through the dense matrix."""
    random = np.random.default_rng(0)
    b, a = (random.standard_normal(s).astype(np.float32) for s in ((size, rank), (rank, size)))
    laps_ms(lambda: product_svd(b, a), 1)
    ours = statistics.median(laps_ms(lambda: product_svd(b, a), 15))
    found: list[np.ndarray] = []
    dense = laps_ms(lambda: found.append(np.linalg.svd(b @ a, full_matrices=False)[1]), 1)[0]
    quick = laps_ms(lambda: truncated_svd(b @ a, rank), 1)[0]
    s = product_svd(b, a)[1]
    return {
        "compress_speedup": round(dense / ours, 1),
        "compress_qr_ms": round(ours, 2),
        "compress_dense_ms": round(dense, 1),
        "compress_dense_gram_ms": round(quick, 1),  # the quickest way through the dense matrix we know
        "compress_values_diff": float(np.abs(s - found[0][:rank]).max() / s[0]),
    }


def other_tools(
    base: Base, pack: Pack, checkpoint: Path, folder: Path, tokens: list[int]
) -> dict[str, float | str | None]:
    """The largest difference of any logit between ours and stock mlx-lm's, and the real PEFT's on torch."""
    import mlx_lm

    ours = logits(base, {"p": pack}, tokens)
    change = float(np.abs(ours - logits(base, {}, tokens)).max())
    adapter = folder / "for-mlx-lm"
    export_pack(pack, "mlx-lm", adapter)
    model = mlx_lm.load(str(checkpoint), adapter_path=str(adapter))[0]
    theirs = np.array(model(mx.array(tokens)[None])[0].astype(mx.float32))
    found: dict[str, float | str | None] = {
        "logit_change": round(change, 4),  # what the pack itself does
        "mlxlm_logit_diff": float(np.abs(theirs - ours).max()),
        "peft_logit_diff": None,
    }
    if any(importlib.util.find_spec(name) is None for name in ("peft", "torch")):
        return found | {"peft_note": "peft is not installed: pip install 'mlx-plastic[peft]'"}
    export_pack(pack, "peft", folder / "for-peft", base=base)
    found["peft_logit_diff"] = float(np.abs(in_peft(checkpoint, folder / "for-peft", tokens) - ours).max())
    return found


def in_peft(checkpoint: Path, adapter: Path, tokens: list[int]) -> np.ndarray:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(adapter)).eval()
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].float().numpy()


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    checkpoint = make_llama(folder / "base")
    base = load_base(str(checkpoint))
    packs = [random_pack(base, f"p{seed}", rank=options.rank, seed=seed) for seed in range(2)]
    folders = [write_pack(folder / p.manifest.name, p.factors, p.manifest) for p in packs]
    adapters = [folder / f"adapter{i}" for i in range(2)]
    for pack, adapter in zip(packs, adapters, strict=True):
        export_pack(pack, "mlx-lm", adapter)
    tokens = np.random.default_rng(0).integers(5, base.config["vocab_size"], TOKENS).tolist()
    return {
        "parameters": count_parameters(base.model),
        "pack_bytes": packs[0].manifest.sizes.tensor_bytes,
        "rank": options.rank,
        "blas": BLAS.kind,
        **swapping(base, packs, folders, options.times),
        **reloading(checkpoint, adapters, 3),
        **composing(base, packs, tokens),
        **compressing(2048, 64),
        **other_tools(base, packs[0], checkpoint, folder, tokens),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument(
        "--times", type=int, default=50, help="laps of a swap from disk; ten times from memory"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        found = measure(options, Path(folder))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
