"""Which benchmarks there are, what figures of theirs are quoted, and what each was meant to reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Found = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """One number of a benchmark's JSON. aim: None where nothing was aimed at."""

    says: str
    of: Callable[[Found], float | None]
    aim: float | None = None
    better: Literal["more", "less"] = "more"

    def holds(self, value: float) -> bool | None:
        if self.aim is None:
            return None
        return value >= self.aim if self.better == "more" else value <= self.aim


@dataclass(frozen=True)
class Bench:
    """One script. peer: what it is compared with. needs: variables whose values stand in the arguments.

    timed: False where no figure is of a clock, so that others may run at the same time.
    """

    name: str
    shows: str
    peer: str
    figures: tuple[Figure, ...]
    arguments: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    minutes: float = 1.0  # about, on two cores
    timed: bool = True

    @property
    def command(self) -> list[str]:
        return ["python", f"benchmarks/bench_{self.name.partition(':')[0]}.py", *self.arguments, "--json"]


def at(*keys: str) -> Callable[[Found], float | None]:
    """The number behind these keys, one in the other; None where there is none."""

    def read(found: Found) -> float | None:
        value: Any = found
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return float(value) if isinstance(value, int | float) else None

    return read


def count(key: str) -> Callable[[Found], float | None]:
    """How many there are in the list behind this key."""
    return lambda found: float(len(found[key])) if key in found else None


def row(model: str, bits: float, key: str) -> Callable[[Found], float | None]:
    """A number of bench_compress's row for that model and budget."""

    def read(found: Found) -> float | None:
        for each in found.get("rows", []):
            if each.get("model") == model and each.get("budget_bpw") == bits:
                return at(key)(each)
        return None

    return read


def lowest(*keys: str, of: str) -> Callable[[Found], float | None]:
    """The lowest of the numbers in a mapping, without those whose key holds none of `of`."""

    def read(found: Found) -> float | None:
        value: Any = found
        for key in keys:
            value = value.get(key, {}) if isinstance(value, dict) else {}
        picked = [v for k, v in value.items() if k in of.split(", ") and isinstance(v, int | float)]
        return min(picked) if picked else None

    return read


def compressed(model: str) -> tuple[Figure, ...]:
    return tuple(
        figure
        for bits in (4.0, 3.5)
        for figure in (
            Figure(
                f"{model}, {bits} bits: KL over uniform rounding's", row(model, bits, "over_rtn"), 0.2, "less"
            ),
            Figure(
                f"{model}, {bits} bits: KL over dynamic_quant's",
                row(model, bits, "over_threshold"),
                0.25,
                "less",
            ),
        )
    )


DATA = ("MLX_PLASTIC_DATA",)

BENCHES = (
    Bench(
        "train",
        "training a pack",
        "mlx-lm's trainer",
        (
            Figure("all layers: tokens/s over mlx-lm's", at("all_layers_ratio"), 1.5),
            Figure("last quarter of the layers: the same", at("top_quarter_ratio"), 3.0),
            Figure("peak memory over mlx-lm's", at("peak_ratio"), 0.6, "less"),
            Figure("largest difference of a loss, nats", at("max_loss_diff"), 1e-4, "less"),
        ),
        ("--rounds", "1", "--skip-quantized"),
        DATA,
        6,
    ),
    Bench(
        "packs",
        "packs swapped, composed, cut",
        "mlx-lm's reload, the dense SVD",
        (
            Figure("swapped from memory, ms", at("swap_memory_ms"), 1.0, "less"),
            Figure("swapped from disk, ms", at("swap_disk_ms"), 10.0, "less"),
            Figure("composed: error of the logits, of their change", at("compose_rel_error"), 1e-5, "less"),
            Figure("cutting a rank: times the dense SVD's speed", at("compress_speedup"), 100.0),
            Figure("difference of logits in stock mlx-lm", at("mlxlm_logit_diff"), 1e-4, "less"),
        ),
    ),
    Bench(
        "svd",
        "rank-r factors of a 4096 x 1024 matrix",
        "mx.linalg.svd",
        (
            Figure("times the speed, slowest case", at("speedup"), 5.0),
            Figure("further from the best fit, of its norm", at("rel_error"), 1e-5, "less"),
        ),
        minutes=3,
    ),
    Bench(
        "survey",
        "looking at every weight",
        "plain MLX, a float64 reference",
        (
            Figure("GB per core and second, three schemes", at("gb_per_s_per_core"), 0.5),
            Figure("times plain MLX", at("ratio_plain_mlx"), 50.0),
            Figure("two processes over one", at("two_process_ratio"), 1.7),
            Figure("peak memory, MB", at("peak_mb"), 300.0, "less"),
            Figure("largest error of a metric", at("max_metric_rel_error"), 1e-5, "less"),
        ),
        minutes=4,
    ),
    Bench(
        "serve",
        "eight requests over four packs",
        "pack by pack; mlx_lm.server",
        (
            Figure("tokens/s over pack by pack", at("mixed_vs_sequential"), 3.0),
            Figure("tokens/s over mlx_lm.server", at("mixed_vs_mlxlm_server"), 10.0),
            Figure("slower than the base alone, share", at("mixed_vs_base_slowdown"), 0.15, "less"),
            Figure("first token, warm over cold", at("warm_ttft_ratio"), 0.2, "less"),
        ),
        ("--rounds", "3"),
        minutes=6,
    ),
    Bench(
        "privacy",
        "what is personal or secret is found",
        "labelled texts",
        (
            Figure(
                "e-mail, IBAN, card, id, IP, URL: lowest recall",
                lowest("recall", of="email, iban, card, national_id, ip, url"),
                0.99,
            ),
            Figure("phones", at("recall", "phone"), 0.95),
            Figure("names in templates", at("recall", "name"), 0.85),
            Figure("names in noisy text", at("recall", "noisy name"), 0.6),
            Figure("addresses", at("recall", "address"), 0.95),
            Figure("secrets, for training", at("recall", "secrets, training"), 0.98),
            Figure("secrets, for storage", at("recall", "secrets, storage"), 0.9),
        ),
        needs=DATA,
        minutes=6,
    ),
    Bench(
        "retrieval:locomo",
        "evidence found in months of talk (LoCoMo)",
        "SQLite's own full-text search",
        (
            Figure("recall@5", at("locomo", "modes", "full", "recall@5"), 0.7),
            Figure("recall@10", at("locomo", "modes", "full", "recall@10"), 0.8),
            Figure("recall@20", at("locomo", "modes", "full", "recall@20"), 0.86),
            Figure("recall@10 without a model", at("locomo", "modes", "words", "recall@10")),
            Figure("recall@10 of SQLite's search", at("locomo", "modes", "fts5", "recall@10")),
        ),
        ("--locomo", "$LOCOMO"),
        ("LOCOMO",),
        15,
        timed=False,
    ),
    Bench(
        "retrieval:speed",
        "a search among 100,000 chunks",
        "",
        (
            Figure("p95, ms", at("speed", "p95_ms"), 50.0, "less"),
            Figure("p95 without a model, ms", at("speed", "words_p95_ms"), 50.0, "less"),
            Figure("chunks taken in a second", at("speed", "ingest_per_s"), 200.0),
        ),
        ("--chunks", "100000"),
        minutes=4,
    ),
    Bench(
        "gate",
        "how surely the gate decides (simulated nights)",
        "single numbers instead of intervals",
        (
            Figure("share passed with no true rise", at("passed_at", "0")),
            Figure("the same by single numbers", at("passed_at", "0_alone")),
            Figure("share passed at three times the limit", at("passed_at", "3")),
            Figure("CPU s of perplexity and tasks of one model", at("standing_cpu_s")),
        ),
    ),
    Bench(
        "start",
        "what a command costs before it does anything",
        "`mlx_lm generate --help`",
        (
            Figure("mlx-lm's help, times ours", at("help_ratio_mlx_lm")),
            Figure("CPU s of the slowest of nine commands", at("worst_cpu_s")),
        ),
    ),
    Bench(
        "products",
        "float32 products with 1 to 64 rows",
        "numpy's OpenBLAS",
        (
            Figure("times the speed, median", at("speedup"), 1.0),
            Figure("the slowest of 28", at("least_speedup"), 1.0),
        ),
    ),
    Bench(
        "collect",
        "looking through 100,000 turns for lessons",
        "looking at everything",
        (Figure("times less processor time", at("seconds_ratio")),),
        minutes=3,
    ),
    Bench(
        "compress",
        "checkpoints at so many bits per weight",
        "uniform rounding; mlx-lm's dynamic_quant",
        (*compressed("BabyLlama-tok105"), *compressed("moe"), *compressed("nano")),
        ("--models", "nano", "moe", "BabyLlama-tok105", "--peer-tuned"),
        DATA,
        40,
        timed=False,
    ),
    Bench(
        "apply_memory",
        "what `plastic compress apply` holds in memory",
        "the largest tensor and shard",
        (
            Figure("rounding: over both together", at("plain", "over_tensor_and_shard"), 1.0, "less"),
            Figure("with GPTQ: the same", at("gptq", "over_tensor_and_shard"), 1.0, "less"),
        ),
        minutes=3,
        timed=False,
    ),
    Bench(
        "dynamic_rank",
        "ranks found while training",
        "one rank for all, in the same bytes",
        tuple(
            Figure(
                f"{name}: loss less the fixed rank's",
                at("data_sets", name, "dynamic_less_fixed"),
                0.0,
                "less",
            )
            for name in ("wikisql", "gsm8k", "dtc")
        ),
        (
            "--steps",
            "64",
            "--rates",
            "1e-2",
            "2e-2",
            "4e-2",
            "--seeds",
            "3",
            "--samples",
            "800",
            "--no-controls",
        ),
        DATA,
        15,
        timed=False,
    ),
    Bench(
        "bytes",
        "packs of the same bytes",
        "fixed-rank LoRA in float16",
        (
            Figure("perplexity lower by, %", at("ppl_gain_pct"), 3.0),
            *(
                Figure(f"by the same with ranks {how}, %", at("controls_gain_pct", how))
                for how in ("shuffled", "random", "uniform")
            ),
        ),
        ("--quick",),
        DATA,
        4,
        timed=False,
    ),
    Bench(
        "forget",
        "three facts forgotten of ten",
        "chance",
        (
            Figure("bits of exposure before", at("proof", "exposure_before_bits")),
            Figure("after", at("proof", "exposure_after_bits")),
            Figure("of what was never learned", at("proof", "chance_bits")),
            Figure("CPU s of forgetting", at("forget_seconds")),
        ),
        minutes=2,
        timed=False,
    ),
    Bench(
        "nights",
        "thirty nights",
        "plain mlx-lm LoRA; from scratch",
        (
            Figure("recall of the day's facts, mean", at("day_recall_mean"), 0.95),
            Figure("recall of everything told, after the last", at("retained_recall"), 0.9),
            Figure("general perplexity, % up", at("ppl_delta_pct"), 3.0, "less"),
            Figure("tasks lost", at("harness_lost"), 2.0, "less"),
            Figure("cost of the last night over the second", at("cost_ratio_last_first"), 1.5, "less"),
            Figure("recall of plain mlx-lm", at("plain_retained")),
            Figure("recall of learning all at once", at("scratch_retained")),
            Figure("cost of a night over that", at("scratch_cost_ratio"), 0.1, "less"),
            Figure("honest nights refused", at("falsely_refused"), 0.0, "less"),
        ),
        ("--nights", "30", "--seed", "0"),
        minutes=90,
        timed=False,
    ),
    Bench(
        "chaos",
        "one bad day: faults drawn by chance",
        "",
        (Figure("faults", at("tried"), 1000.0), Figure("with something lost", count("lost"), 0.0, "less")),
        ("--n", "1000"),
        minutes=25,
        timed=False,
    ),
)

QUOTED = {  # in README: what it says there, the benchmark, the figure
    "a pack trained on all layers: times the tokens/s of mlx-lm's trainer": ("train", "all layers: tokens"),
    "the same on the last quarter of the layers": ("train", "last quarter"),
    "peak memory of it, of mlx-lm's": ("train", "peak memory"),
    "another pack worn, from memory, ms": ("packs", "swapped from memory"),
    "eight requests over four packs at once: times the tokens/s of mlx_lm.server": (
        "serve",
        "tokens/s over mlx_lm",
    ),
    "the same, times pack by pack": ("serve", "tokens/s over pack by pack"),
    "every weight of a checkpoint looked at: GB per core and second": ("survey", "GB per core"),
    "a dense model at 4.0 bits: its KL, of uniform rounding's": (
        "compress",
        "BabyLlama-tok105, 4.0 bits: KL over uniform",
    ),
    "a mixture of experts at 3.5 bits: the same": ("compress", "moe, 3.5 bits: KL over uniform"),
    "thirty nights: share of all that was told that is known after the last": (
        "nights",
        "recall of everything",
    ),
    "the same for nightly LoRA by plain mlx-lm, at our rate": ("nights", "recall of plain"),
    "evidence among the first ten found in months of talk (LoCoMo)": ("retrieval:locomo", "recall@10"),
    "faults drawn by chance: kills, torn files, full disks": ("chaos", "faults"),
    "of these, with something lost": ("chaos", "with something lost"),
}
