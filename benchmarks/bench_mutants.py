"""How many small faults in gate, privacy, pack validation and store the fast tests notice.

    python benchmarks/bench_mutants.py [--rooms gate privacy packs store] [--n 60] [--seed 0] [--json]

Of all mutants of a room (see mutants.py) `--n` are drawn. For each, a forked process imports a copy of the
program with the fault in it and runs the room's fast tests up to the first that fails. A mutant that no test
notices has survived: it is either a hole in the tests, or a change that makes no difference. One that runs
longer than ten times the undisturbed tests counts as noticed. Ends with 1 if the undisturbed tests fail.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mutants import Mutant, mutants

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "mlx_plastic"
SLOW = ("click.testing", "pytest", "safetensors.numpy", "mlx_lm", "mlx_lm.utils", "phonenumbers")  # to import
LEAST_S, TIMES = 60.0, 10.0  # of processor time, before a mutant is given up


@dataclass(frozen=True)
class Room:
    """files: of the source, by glob. tests: that are to notice."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


ROOMS = {
    "gate": Room(("evals/gate.py", "evals/bounds.py", "evals/intervals.py"), ("test_gate.py",)),
    "privacy": Room(
        ("memory/privacy/*.py", "memory/guard.py"),
        (  # the slowest last: most faults never get there
            "test_privacy_said.py",
            "test_privacy_edges.py",
            "test_privacy_kinds.py",
            "test_privacy_chain.py",
            "test_privacy.py",
            "test_privacy_memory.py",
            "test_privacy_second.py",
            "test_privacy_cli.py",
            "test_privacy_hostile.py",
        ),
    ),
    "packs": Room(
        ("packs/format/*.py",),
        ("test_format.py", "test_hostile_packs.py", "test_sign.py", "test_quantized.py"),
    ),
    "store": Room(("packs/store/*.py",), ("test_store.py", "test_sign.py", "test_versions.py")),
}


@contextlib.contextmanager
def changed(tree: Path, path: Path, mutant: Mutant) -> Iterator[None]:
    """The copy of the source with the fault in it."""
    there = tree / path.relative_to(SOURCE.parent)
    there.write_text(mutant.source, encoding="utf-8")
    try:
        yield
    finally:
        shutil.copyfile(path, there)


def tried(tests: Sequence[str], limit_s: float) -> tuple[str, float]:
    """How the tests end in a child: passed, failed or late; and its processor time."""
    began = os.times()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os._exit(_run(tests, limit_s))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    ended = os.times()
    took = ended.children_user + ended.children_system - began.children_user - began.children_system
    how = "passed" if code == 0 else "late" if code == -signal.SIGXCPU else "failed"
    return how, took


def _run(tests: Sequence[str], limit_s: float) -> int:
    import resource

    import pytest

    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s), int(limit_s) + 5))
    options = [
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--rootdir",
        str(ROOT),
        "-o",
        "pythonpath=",
    ]
    return int(pytest.main([*options, *(str(ROOT / "tests" / name) for name in tests)]))


def prepare(tree: Path) -> None:
    """Import what is slow and not ours, so that the children need not; MLX behind its fast BLAS.

    What is ours they import from `tree`, and so do the processes that they start.
    """
    import mlx_plastic.backend  # noqa: F401

    for name in SLOW:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.split(".")[0] == "mlx_plastic"]:
        del sys.modules[name]
    shutil.copytree(SOURCE, tree / SOURCE.name, ignore=shutil.ignore_patterns("__pycache__"))
    sys.path.insert(0, str(tree))
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}


def measured(name: str, count: int, seed: int, tree: Path) -> dict[str, Any]:
    room = ROOMS[name]
    how, alone_s = tried(room.tests, 3600)
    if how != "passed":
        raise SystemExit(f"the tests of {name} fail without a fault")
    limit_s = max(LEAST_S, TIMES * alone_s)
    every = [(path, mutant) for path in files_of(room) for mutant in mutants(path.read_text("utf-8"))]
    drawn = random.Random(f"{seed} {name}").sample(every, min(count, len(every)))
    survived, late, began = [], 0, time.monotonic()
    for i, (path, mutant) in enumerate(sorted(drawn, key=lambda pair: (pair[0], pair[1].line))):
        with changed(tree, path, mutant):
            how, _ = tried(room.tests, limit_s)
        late += how == "late"
        if how == "passed":
            survived.append(told(path, mutant))
            print(f"survived: {survived[-1]}", file=sys.stderr)
        print(f"{name}: {i + 1} of {len(drawn)}, {len(survived)} survived", file=sys.stderr, flush=True)
    return {
        "mutants": len(every),
        "drawn": len(drawn),
        "survived": len(survived),
        "late": late,
        "rate": round(len(survived) / max(1, len(drawn)), 4),
        "seed": seed,
        "tests_cpu_s": round(alone_s, 1),
        "seconds": round(time.monotonic() - began, 1),
        "survivors": survived,
    }


def files_of(room: Room) -> list[Path]:
    return sorted(path for pattern in room.files for path in SOURCE.glob(pattern))


def told(path: Path, mutant: Mutant) -> dict[str, Any]:
    line = path.read_text("utf-8").split("\n")[mutant.line - 1].strip()
    rest = {name: value for name, value in asdict(mutant).items() if name != "source"}
    return {"file": str(path.relative_to(SOURCE)), **rest, "source": line}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rooms", nargs="+", choices=[*ROOMS], default=[*ROOMS])
    parser.add_argument("--n", type=int, default=60, help="mutants of each room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory(prefix="mutants") as folder:
        prepare(Path(folder))
        for name in given.rooms:
            found[name] = measured(name, given.n, given.seed, Path(folder))
            if not given.json:
                page(name, found[name])
    if given.json:
        print(json.dumps(found, indent=1))


def page(name: str, found: dict[str, Any]) -> None:
    print(f"{name}: {found['survived']} of {found['drawn']} survived ({found['mutants']} there are)")
    for one in found["survivors"]:
        print(f"  {one['file']}:{one['line']}  {one['what']}:  {one['source']}")


if __name__ == "__main__":
    main()
