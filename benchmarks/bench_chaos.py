"""One bad day: faults drawn by chance, and how many were survived with nothing lost.

    python benchmarks/bench_chaos.py [--n 1000] [--seed 0] [--only KIND ...] [--json] [--keep DIR]

Kinds are `<what> <who>`: kill, tear, full, fail, clock or two of chat, memory, store, night, create, forget,
survey, compress, export, import or serve; and torn, pack and request. --only takes a kind, or a word of one.
The n-th life of a kind is the same whatever else is lived: number 6 comes again with --only KIND --n 7. Ends
with 1 if anything was lost. Needs Linux and a C compiler.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=1000, help="faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[], metavar="KIND", help="these, or words of them")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, help="a new folder; what was lost can be looked at there")
    given = parser.parse_args()

    from chaos import seam

    seam.start_again_behind_it()
    from chaos.run import KINDS, run

    kinds = [k for k in KINDS if not given.only or any(o == k or o in k.split() for o in given.only)]
    if not kinds or given.n < 1:
        parser.error(f"nothing to do; kinds are {', '.join(KINDS)}")
    with tempfile.TemporaryDirectory(prefix="chaos") as nowhere:
        root = given.keep or Path(nowhere)
        root.mkdir(parents=True, exist_ok=True)
        found = run(root, count=given.n, seed=given.seed, kinds=kinds, tick=told)
    print(json.dumps(found, indent=1) if given.json else page(found))
    sys.exit(1 if found["lost"] else 0)


def told(done: int, count: int, detail: str) -> None:
    if sys.stderr.isatty() or done % 25 == 0 or done == count:
        print(f"{done} of {count}, {detail}", file=sys.stderr, flush=True)


def page(found: dict[str, Any]) -> str:
    rows = [f"{'kind':16} {'tried':>6} {'hit':>6} {'survived':>9}"]
    rows += [f"{k:16} {r['tried']:6} {r['hit']:6} {r['survived']:9}" for k, r in found["kinds"].items()]
    rows += [f"{'all':16} {found['tried']:6} {found['hit']:6} {found['survived']:9}", ""]
    for life in found["lost"]:
        rows += [f"{life['kind']} number {life['number']} ({life['what']})", *life["lost"], ""]
    return "\n".join([*rows, f"seed {found['seed']}, {found['seconds']} s, lost: {len(found['lost'])}"])


if __name__ == "__main__":
    main()
