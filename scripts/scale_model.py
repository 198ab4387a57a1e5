"""What larger bases, many users and many bytes cost: arithmetic on shapes, measured figures and datasheets.

    python scripts/scale_model.py

prints the tables of docs/scale.md. Nothing here is measured; what is, comes from docs/scale.json and
docs/benchmarks.json, as the benchmarks named there printed it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_plastic.base.offers import BITS_PER_WEIGHT
from mlx_plastic.packs.format.lite import LITE_ATTENTION_RANK, LITE_BYTES
from mlx_plastic.packs.format.manifest import Storage
from mlx_plastic.packs.format.pack import stored_bytes
from mlx_plastic.packs.wear.mixed import MOST_PACKS

DOCS = Path(__file__).resolve().parents[1] / "docs"
NIGHT_H = 8.0  # in which all the nights of a machine have to fit
USERS = 10_000
BATCH_SAID = 16  # answers decoded at once


@dataclass(frozen=True)
class Shape:
    """A base by its config. experts: of a block, and how many of them a token goes through; 0: dense."""

    name: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int  # of the feed-forward, or of one expert
    vocab: int
    experts: int = 0
    routed: int = 0
    tied: bool = False

    @property
    def trained(self) -> list[tuple[int, int]]:
        """(out, in) of each linear layer of a block that a pack updates by default; experts are not."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = [(q, self.width), (kv, self.width), (kv, self.width), (self.width, q)]
        dense = [] if self.experts else [(self.inner, self.width)] * 2 + [(self.width, self.inner)]
        return attention + dense

    @property
    def always(self) -> int:
        """Parameters of the blocks that every token goes through."""
        return self.layers * (sum(out * width for out, width in self.trained) + self.experts * self.width)

    @property
    def expert(self) -> int:
        """Parameters of one expert."""
        return 3 * self.width * self.inner if self.experts else 0

    @property
    def head(self) -> int:
        return self.vocab * self.width

    @property
    def total(self) -> int:
        return self.always + self.layers * self.experts * self.expert + self.head * (1 if self.tied else 2)

    @property
    def active(self) -> int:
        """Parameters that one token is multiplied with, the head included."""
        return self.always + self.layers * self.routed * self.expert + self.head

    @property
    def kv_bytes(self) -> int:
        """Of one token in the cache, in 16 bits."""
        return self.layers * 2 * self.kv_heads * self.head_dim * 2

    def touched(self, batch: int) -> float:
        """Parameters read to decode one token of each of `batch` answers, experts drawn evenly."""
        share = 1 - (1 - self.routed / self.experts) ** batch if self.experts else 0.0
        return self.always + self.head + self.layers * self.experts * share * self.expert

    def pack_bytes(self, rank: int, storage: Storage = "float16") -> int:
        one = sum(stored_bytes(out, width, min(rank, out, width), storage) for out, width in self.trained)
        return self.layers * one

    @property
    def rank(self) -> int:
        """That a night takes by itself: the largest up to 8 whose pack stays within 10 MB."""
        return max(1, min(LITE_ATTENTION_RANK, LITE_BYTES // (self.pack_bytes(2) - self.pack_bytes(1))))


NANO = Shape("nano", 256, 5, 4, 2, 64, 512, 4096, tied=True)
DENSE = Shape("8B dense (Qwen3-8B)", 4096, 36, 32, 8, 128, 12288, 151_936)
MOE = Shape("30B MoE (Qwen3-30B-A3B)", 2048, 48, 32, 4, 128, 768, 151_936, experts=128, routed=8)


@dataclass(frozen=True)
class Machine:
    """By its maker's datasheet. tflops: 16-bit products without sparsity. gb_s: of its memory."""

    name: str
    memory_gb: int
    gb_s: float
    tflops: float


MACHINES = (
    Machine("Apple M4 Max, 64 GB", 64, 546, 34),
    Machine("Apple M3 Ultra, 256 GB", 256, 819, 57),
    Machine("NVIDIA H200", 141, 4800, 990),
)
SHARE_OF_PEAK = 0.25  # of products and of memory, assumed for a GPU; nano's own share on a CPU is measured


@dataclass(frozen=True)
class Night:
    """What a night asks of a base: tokens trained (every epoch), read and said; a step has so many tokens."""

    turns: int
    trained: int
    read: int
    said: int
    step_tokens: int

    @property
    def steps(self) -> int:
        return -(-self.trained // self.step_tokens)

    def scaled(self, turns: int) -> Night:
        k = turns / self.turns
        return Night(
            turns, round(k * self.trained), round(k * self.read), round(k * self.said), self.step_tokens
        )


def night_s(shape: Shape, machine: Machine, night: Night) -> dict[str, float]:
    """Seconds: training takes 4 operations a parameter, reading 2; saying reads the weights for each step."""
    speed, memory = SHARE_OF_PEAK * machine.tflops * 1e12, SHARE_OF_PEAK * machine.gb_s * 1e9
    weights = shape.touched(BATCH_SAID) * BITS_PER_WEIGHT / 8
    return {
        "train": 4.0 * shape.active * night.trained / speed,
        "read": 2.0 * shape.active * night.read / speed,
        "said": night.said / BATCH_SAID * weights / memory,
    }


def memory_gb(shape: Shape, batch_tokens: int, rank: int) -> dict[str, float]:
    """Of a night at its peak, by the rule of sleep/fit.py."""
    inner = shape.inner * max(1, shape.routed)
    kept = batch_tokens * 4 * (14 * shape.width + 4 * inner) * shape.layers
    thrifty = batch_tokens * 4 * 2 * shape.width * shape.layers
    numbers = shape.pack_bytes(rank) / 2
    return {
        "weights": shape.total * BITS_PER_WEIGHT / 8 / 1e9,
        "float32": shape.total * 4 / 1e9,
        "kept": kept / 1e9,
        "thrifty": thrifty / 1e9,
        "state": 8 * 4 * numbers / 1e9,
        "cache": BATCH_SAID * 1024 * shape.kv_bytes / 1e9,
    }


def exchange_s(shape: Shape, rank: int, hosts: int, gbit_s: float) -> float:
    """Seconds of a step in which gradients go round: each host sends 2 (n - 1) / n of them, in float32."""
    return 2 * (hosts - 1) / hosts * 4 * shape.pack_bytes(rank) / 2 / (gbit_s * 1e9 / 8)


# --- tables


def measured() -> tuple[dict[str, Any], dict[str, Any]]:
    night = json.loads((DOCS / "scale.json").read_text("utf-8"))
    packs = json.loads((DOCS / "benchmarks.json").read_text("utf-8"))["packs"]["runs"][-1]
    return night, packs


def lived(found: dict[str, Any]) -> Night:
    return Night(
        found["turns"], found["trained"], sum(found["read"].values()), sum(found["said"].values()),
        found["batch_tokens"],
    )  # fmt: skip


def share_measured(found: dict[str, Any]) -> float:
    """What share of the CPU's own products training reached."""
    work = 4.0 * NANO.active * found["trained"]
    return work / found["seconds"]["train"] / (found["gflops"] * 1e9)


def table(head: list[str], rows: list[list[object]]) -> str:
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def night_table() -> str:
    found, _ = measured()
    stages = {"lessons": "making lessons", "train": "training", "judge": "judging"}
    rows: list[list[object]] = []
    for name, what in stages.items():
        trained = found["trained"] if name == "train" else 0
        read, said = found["read"].get(name, 0), found["said"].get(name, 0)
        rows.append(
            [what, f"{found['seconds'][name]:.1f}", *(f"{n:,}" if n else "" for n in (trained, read, said))]
        )
    return table(["stage", "CPU s", "tokens trained", "tokens read", "tokens said"], rows)


def memory_table() -> str:
    rows: list[list[object]] = []
    batch = measured()[0]["batch_tokens"]
    for shape in (NANO, DENSE, MOE):
        need = memory_gb(shape, batch, shape.rank)
        total = sum(need[name] for name in ("weights", "kept", "state", "cache"))
        rows.append(
            [shape.name, f"{shape.total / 1e9:.3g}", f"{shape.active / 1e9:.2g}",
             *(f"{need[n]:.2g}" for n in need), f"{total:.2g}"]
        )  # fmt: skip
    head = ["base", "parameters, 10^9", "of them for a token", "weights at 4.5 bits", "in float32 (a CPU)"]
    return table([*head, "kept for the way back", "the same, computed twice", "factors and moments",
                  f"cache of {BATCH_SAID} answers", "all, on a GPU"], rows)  # fmt: skip


def time_table() -> str:
    rows: list[list[object]] = []
    night = lived(measured()[0])
    for turns in (25, 200, 1000):
        for machine in MACHINES:
            took = night_s(MOE, machine, night.scaled(turns))
            total = sum(took.values())
            rows.append(
                [turns, machine.name, *(minutes(took[n]) for n in ("train", "read", "said")), minutes(total),
                 f"{NIGHT_H * 3600 / total:,.0f}"]
            )  # fmt: skip
    head = ["new turns", "machine", "training", "reading", "saying", "the night"]
    return table([*head, f"nights in {NIGHT_H:g} hours"], rows)


def launch_table() -> str:
    night, rows = lived(measured()[0]), list[list[object]]()
    machine = MACHINES[0]
    step = night_s(MOE, machine, night)["train"] / night.steps
    for gbit in (1, 10, 40):
        for hosts in (2, 4):
            sent = exchange_s(MOE, MOE.rank, hosts, gbit)
            gain = step / (step / hosts + sent)
            rows.append([f"{gbit} Gbit/s", hosts, f"{step:.2f}", f"{sent:.3f}", f"{gain:.2f}"])
    return table(["network", "hosts", "a step alone, s", "gradients, s", "times as fast"], rows)


def pack_table() -> str:
    rows: list[list[object]] = []
    for shape in (NANO, DENSE, MOE):
        for rank in sorted({1, 4, 8, shape.rank}):
            sizes = [shape.pack_bytes(rank, storage) for storage in ("float16", "int8", "int4")]
            rows.append(
                [shape.name, f"{rank}{' (by default)' if rank == shape.rank else ''}",
                 *(f"{size / 1e6:.2f}" for size in sizes),
                 *(f"{USERS * size / 1e9:,.1f}" for size in sizes[:2])]
            )  # fmt: skip
    head = ["base", "rank", "float16, MB", "int8, MB", "int4, MB"]
    return table([*head, f"{USERS:,} packs, GB", "as int8, GB"], rows)


def pool_table() -> str:
    _, packs = measured()
    rows: list[list[object]] = []
    per_mb = packs["swap_disk_ms_best"] / (packs["pack_bytes"] / 1e6)
    for shape in (NANO, DENSE, MOE):
        size = shape.pack_bytes(shape.rank)
        rows.append(
            [shape.name, f"{size / 1e6:.1f}", f"{packs['swap_memory_ms']:.3f}", f"{per_mb * size / 1e6:.0f}",
             f"{MOST_PACKS * size / 1e6:,.0f}", f"{16e9 / size:,.0f}"]
        )  # fmt: skip
    head = ["base", "a pack, MB", "swap from memory, ms", "from the disk, ms", f"{MOST_PACKS} packs, MB"]
    return table([*head, "packs in 16 GB"], rows)


def minutes(seconds: float) -> str:
    return (
        f"{seconds / 60:.0f} min"
        if seconds >= 600
        else f"{seconds:.0f} s"
        if seconds >= 10
        else f"{seconds:.1f} s"
    )


TABLES = {
    "night": night_table,
    "memory": memory_table,
    "time": time_table,
    "launch": launch_table,
    "packs": pack_table,
    "pool": pool_table,
}

if __name__ == "__main__":
    for name, make in TABLES.items():
        print(f"{name}\n\n{make()}\n")
