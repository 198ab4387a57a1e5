"""A short bad day: a fault of every kind, and nothing lost; `make chaos` is the long one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from docs import ROOT
from mlx_plastic.machine import COMPILERS

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not any(map(shutil.which, COMPILERS)),
    reason="the shim before libc needs Linux and a C compiler",
)
BENCH = ROOT / "benchmarks" / "bench_chaos.py"
QUICK = (
    *("kill store", "tear store", "full store", "fail store", "clock store", "two store"),
    *("kill memory", "full memory", "tear survey", "full survey", "kill chat", "torn", "pack", "request"),
    *("kill export", "full export", "kill import", "full import"),
)


def lived(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(BENCH), "--json", *arguments], capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == bool(found["lost"])
    return found


def test_a_fault_of_each_quick_kind_loses_nothing() -> None:
    found = lived("--n", str(len(QUICK) + 1), "--seed", "0", "--only", *QUICK)
    assert found["lost"] == []
    assert found["tried"] == len(QUICK) + 1 and set(found["kinds"]) == set(QUICK)
    assert found["hit"] >= 14  # control: they fell while there was work to disturb


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ninety_faults_of_all_kinds_lose_nothing() -> None:
    found = lived("--n", "90", "--seed", "2")
    assert found["lost"] == []
    assert found["hit"] >= 70


LIARS = """
import sys
from pathlib import Path
from chaos import seam
seam.start_again_behind_it()
import json
from chaos import run
from chaos.acts import Act, nothing

def promises_too_early(checkpoint, room, tell, which):
    for i in range(20):
        tell(str(i))
        (room / str(i)).write_text("x")

def replaces_in_place(checkpoint, room, tell, which):
    for i in range(20):
        (room / "file").write_text(f"{i} " * 50)

def all_there(checkpoint, room, promised, which):
    assert {path.name for path in room.iterdir()} >= set(promised), "what was promised"

def old_or_new(checkpoint, room, promised, which):
    text = (room / "file").read_text() if (room / "file").exists() else "0 "
    assert len(set(text.split())) == 1 and len(text.split()) in (1, 50), "half a file"

def breaks_a_leg(checkpoint, room, tell, which):
    try:
        promises_too_early(checkpoint, room, lambda line: None, which)
    except OSError:
        raise ZeroDivisionError("a fault of ours")

run.ACTS |= {
    "early": Act(nothing, promises_too_early, all_there),
    "place": Act(nothing, replaces_in_place, old_or_new),
    "leg": Act(nothing, breaks_a_leg, lambda *_: None),
}
kinds = ["kill early", "tear place", "full leg"]
found = run.run(Path(sys.argv[1]), count=24, seed=0, kinds=kinds, tick=lambda *_: None)
print(json.dumps(found["kinds"]))
"""


def test_control_what_is_written_carelessly_is_found_out(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r})\n{LIARS}",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    kinds = json.loads(done.stdout)
    for kind in ("kill early", "tear place", "full leg"):
        assert kinds[kind]["tried"] == 8 and kinds[kind]["survived"] < 8, kind
