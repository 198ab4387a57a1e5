"""What a command costs before it does anything: CPU seconds from start to end, on a home of two turns.

    python benchmarks/bench_start.py --json

Each command runs --runs times, in turn with the others; told is the median, user and system time together.
Beside it mlx-lm's own command line. startup_cpu_s: of each command, worst: the largest of them;
help_ratio_mlx_lm: `mlx_lm.generate --help` over `plastic --help`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PEER = (sys.executable, "-m", "mlx_lm", "generate", "--help")
COMMANDS = (
    "--help",
    "packs --help",
    "memory list",
    "memory search tea",
    "memory scan {file} --policy training",
    "packs list",
    "nights list",
    "config show",
    "digest",
)
PLASTIC = (str(Path(sys.executable).with_name("plastic")),)


def cpu_s(command: tuple[str, ...], home: Path) -> float:
    """User and system time of one run. Raises SystemExit for a command that fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"MLX_PLASTIC_HOME": str(home)}
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.decode()[-500:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(runs: int, folder: Path) -> dict[str, object]:
    home, file = folder / "home", folder / "said.txt"
    file.write_text("My sister Nora drinks green tea.\n", "utf-8")
    for text in ("I drink tea.", "My cat is called Tom."):
        cpu_s((*PLASTIC, "memory", "add", text), home)
    lines = {text: (*PLASTIC, *text.format(file=file).split()) for text in COMMANDS} | {"mlx_lm": PEER}
    found: dict[str, list[float]] = {name: [] for name in lines}
    for _ in range(runs):
        for name, line in lines.items():
            found[name].append(cpu_s(line, home))
    medians = {name: statistics.median(took) for name, took in found.items()}
    peer = medians.pop("mlx_lm")
    worst = max(medians, key=medians.__getitem__)
    return {
        "startup_cpu_s": {name: round(took, 3) for name, took in medians.items()},
        "worst": worst,
        "worst_cpu_s": round(medians[worst], 3),
        "mlx_lm_help_cpu_s": round(peer, 3),
        "help_ratio_mlx_lm": round(peer / medians["--help"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.runs, Path(folder))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:20} {value}")


if __name__ == "__main__":
    main()
