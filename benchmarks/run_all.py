"""Run the benchmarks one after the other and write what they found to docs/benchmarks.md and README.

    make bench                                          # all of them; hours
    python benchmarks/run_all.py --only svd packs --runs 3
    python benchmarks/run_all.py --write                # the page and the picture again, nothing is run

Each is a process of its own. Those with a clock in their figures run first and alone; the others then share
the cores, the longest first. What one printed is kept at once, so that a run that is broken off has lost only
the benchmarks it was at; one that fails is named at the end, and the others are run. Those that need data of
others (MLX_PLASTIC_DATA: real texts and checkpoints; LOCOMO: locomo10.json) are left out, and said to be,
where these are not set.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from proof.page import page, picture, quoted
from proof.plan import BENCHES, Bench

ROOT = Path(__file__).resolve().parent.parent
KEPT, PAGE, PICTURE = (ROOT / "docs" / f"benchmarks.{kind}" for kind in ("json", "md", "svg"))
README = ROOT / "README.md"
KEEPING = threading.Lock()  # benchmarks that run at the same time end one after the other


def machine() -> str:
    """Processor, cores and MLX, in a few words."""
    from importlib.metadata import version

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip()
            for line in info.read_text("utf-8").splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{os.cpu_count()} x {model}, {platform.system()}, MLX {version('mlx')}"


def commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "src", "benchmarks")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" and changes" if changed else "")


def run(bench: Bench, times: int) -> list[dict[str, Any]]:
    """What `times` runs printed. Raises SystemExit with the script's last words if one failed."""
    command = [sys.executable, *(os.path.expandvars(word) for word in bench.command[1:])]
    found = []
    for number in range(times):
        began = time.monotonic()
        print(f"{bench.name}: run {number + 1} of {times}, about {bench.minutes:g} min", file=sys.stderr)
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            found.append(json.loads(done.stdout[done.stdout.index("{") :]))
        except ValueError:
            sys.exit(f"{bench.name} printed no JSON and ended with {done.returncode}: {' '.join(command)}")
        print(f"{bench.name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return found


def write(kept: dict[str, Any]) -> None:
    PAGE.write_text(page(kept), "utf-8")
    README.write_text(quoted(README.read_text("utf-8"), kept), "utf-8")
    try:
        picture(kept, PICTURE)
    except ModuleNotFoundError:
        print("no picture: pip install 'mlx-plastic[plots]'", file=sys.stderr)


def keep(bench: Bench, runs: list[dict[str, Any]], kept: dict[str, Any], at: str = "") -> None:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    found = {"date": today, "commit": at or commit(), "machine": machine(), "runs": runs}
    with KEEPING:
        kept[bench.name] = found
        part = KEPT.with_suffix(".part")
        part.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
        os.replace(part, KEPT)
        write(kept)


def run_all(benches: list[Bench], times: int, kept: dict[str, Any]) -> list[str]:
    """Those with a clock one by one, then the others, as many at once as there are cores. Why some failed."""

    def one(bench: Bench) -> str:
        try:
            keep(bench, run(bench, times), kept)
        except SystemExit as error:
            return str(error)
        return ""

    failed = [one(bench) for bench in benches if bench.timed]
    others = sorted((bench for bench in benches if not bench.timed), key=lambda bench: -bench.minutes)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as cores:
        failed += cores.map(one, others)
    return [why for why in failed if why]


def main() -> None:
    names = [bench.name for bench in BENCHES]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=names, default=names, help=", ".join(names)
    )
    parser.add_argument("--runs", type=int, default=1, help="of each: medians and spreads are told")
    parser.add_argument("--write", action="store_true", help="only the page and the picture")
    parser.add_argument(
        "--take", nargs=3, metavar=("NAME", "FILE", "COMMIT"), help="keep what NAME printed into FILE there"
    )
    given = parser.parse_args()
    kept = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}
    chosen = [bench for bench in BENCHES if bench.name in given.only]
    if given.write:
        write(kept)
    elif given.take:
        bench = next((bench for bench in BENCHES if bench.name == given.take[0]), None)
        if bench is None:
            parser.error(f"there is no benchmark {given.take[0]!r}: {', '.join(names)}")
        try:
            printed = json.loads(Path(given.take[1]).read_text("utf-8"))
        except (OSError, ValueError) as error:
            parser.error(f"{given.take[1]} is not what a benchmark printed with --json: {error}")
        keep(bench, [printed], kept, given.take[2])
    else:
        possible = []
        for bench in chosen:
            if missing := [name for name in bench.needs if not os.environ.get(name)]:
                print(f"{bench.name}: left out, {', '.join(missing)} is not set", file=sys.stderr)
            else:
                possible.append(bench)
        if failed := run_all(possible, given.runs, kept):
            sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
