"""How many small faults in gate, privacy, pack validation and store the fast tests notice.

    python benchmarks/bench_mutants.py [--rooms gate privacy packs store] [--n 60] [--seed 0] [--json]

Of all mutants of a room (see mutants.py) `--n` are drawn. For each, a forked process imports the program with
the fault in it and runs the room's fast tests up to the first that fails. A mutant that no test notices has
survived: it is either a hole in the tests, or a change that makes no difference. One that runs longer than
ten times the undisturbed tests counts as noticed. Ends with 1 if the undisturbed tests fail.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, ModuleType
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
        ("test_privacy.py", "test_privacy_kinds.py", "test_privacy_hostile.py", "test_privacy_memory.py"),
    ),
    "packs": Room(
        ("packs/format/*.py",),
        ("test_format.py", "test_hostile_packs.py", "test_sign.py", "test_quantized.py"),
    ),
    "store": Room(("packs/store/*.py",), ("test_store.py", "test_versions.py", "test_hostile_packs.py")),
}


class Changed(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Gives one module with another source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(
            name, self.path, loader=self, submodule_search_locations=self._folder()
        )

    def _folder(self) -> list[str] | None:
        return [str(self.path.parent)] if self.path.stem == "__init__" else None

    def get_source(self, fullname: str) -> str:
        return self.source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, str(self.path), "exec")

    def exec_module(self, module: ModuleType) -> None:
        exec(self.get_code(self.name), module.__dict__)


def tried(tests: Sequence[str], changed: Changed | None, limit_s: float) -> tuple[str, float]:
    """How the tests end in a child: passed, failed or late; and its processor time."""
    began = os.times()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os._exit(_run(tests, changed, limit_s))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    ended = os.times()
    took = ended.children_user + ended.children_system - began.children_user - began.children_system
    how = "passed" if code == 0 else "late" if code == -signal.SIGXCPU else "failed"
    return how, took


def _run(tests: Sequence[str], changed: Changed | None, limit_s: float) -> int:
    import resource

    import pytest

    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s), int(limit_s) + 5))
    sys.dont_write_bytecode = True
    if changed:
        sys.meta_path.insert(0, changed)
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(ROOT)]
    return int(pytest.main([*options, *(str(ROOT / "tests" / name) for name in tests)]))


def prepare() -> None:
    """Import what is slow and not ours, so that the children need not; MLX behind its fast BLAS."""
    import mlx_plastic.backend  # noqa: F401

    for name in SLOW:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.split(".")[0] == "mlx_plastic"]:
        del sys.modules[name]
    sys.path.insert(0, str(ROOT / "src"))


def measured(name: str, count: int, seed: int) -> dict[str, Any]:
    room = ROOMS[name]
    how, alone_s = tried(room.tests, None, 3600)
    if how != "passed":
        raise SystemExit(f"the tests of {name} fail without a fault")
    limit_s = max(LEAST_S, TIMES * alone_s)
    every = [(path, mutant) for path in files_of(room) for mutant in mutants(path.read_text("utf-8"))]
    drawn = random.Random(f"{seed} {name}").sample(every, min(count, len(every)))
    survived, late, began = [], 0, time.monotonic()
    for i, (path, mutant) in enumerate(sorted(drawn, key=lambda pair: (pair[0], pair[1].line))):
        how, _ = tried(room.tests, Changed(module_of(path), path, mutant.source), limit_s)
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


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


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
    prepare()
    found = {}
    for name in given.rooms:
        found[name] = measured(name, given.n, given.seed)
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
