"""Several processes train one pack as one would: real ones, started by mlx.launch over the loopback ring."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mlx_plastic.backend import World
from mlx_plastic.backend.distributed import Watchdog

LAUNCH = Path(sys.executable).with_name("mlx.launch")
SCRIPT = """
import dataclasses, hashlib, json, sys
from pathlib import Path
from mlx_plastic.backend import world
from mlx_plastic.base import load_base
from mlx_plastic.packs.train.train import train
sys.path.insert(0, {tests!r})
from test_train import SMALL, Killed, some_samples

base = load_base({checkpoint!r})
config = dataclasses.replace(SMALL, checkpoint_every=2)
folder = Path({folder!r}) / "checkpoint"

def killed(progress):
    if progress.step == 5:
        raise Killed

samples, valid = some_samples(), some_samples(4, seed=9)
found = train(base, samples, valid, config)
try:
    train(base, samples, valid, config, checkpoint=folder, on_progress=killed)
except Killed:
    pass
ticks = []
again = train(base, samples, valid, config, checkpoint=folder, on_progress=ticks.append)
everyone = world()

def digest(trained):
    parts = [(path, f.a.tobytes(), f.b.tobytes()) for path, f in trained.factors.items()]
    return hashlib.sha256(repr(parts).encode()).hexdigest()

out = dict(
    size=everyone.size, losses=[(p.train, p.valid) for p in found.report.losses], factors=digest(found),
    resumed_at=ticks[0].step, resumed=digest(again), tokens=found.report.tokens,
)
(Path({folder!r}) / f"rank{{everyone.rank}}.json").write_text(json.dumps(out))
"""


def results(checkpoint: Path, folder: Path, processes: int) -> list[dict[str, object]]:
    folder.mkdir()
    script = folder / "script.py"
    names = {"tests": str(Path(__file__).parent), "checkpoint": str(checkpoint), "folder": str(folder)}
    script.write_text(SCRIPT.format(**names))
    command = [sys.executable, str(script)]
    if processes > 1:
        launch = [str(LAUNCH), "--backend", "ring", "-n", str(processes), "--cwd", str(folder), "--"]
        command = [*launch, *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(processes)]


def test_two_processes_take_the_steps_of_one_and_go_on_together(checkpoint: Path, tmp_path: Path) -> None:
    (alone,) = results(checkpoint, tmp_path / "one", 1)
    first, second = results(checkpoint, tmp_path / "two", 2)
    assert (alone["size"], first["size"], second["size"]) == (1, 2, 2)  # control: there were two
    np.testing.assert_allclose(
        np.array(first["losses"], np.float64), np.array(alone["losses"], np.float64), atol=2e-4
    )
    assert first["factors"] == second["factors"]  # the same bits in both
    assert first["tokens"] == alone["tokens"]  # of the whole step, not of one's share
    for found in (alone, first, second):
        assert found["resumed_at"] == 6 and found["resumed"] == found["factors"]


def test_one_process_needs_no_other() -> None:
    alone = World()
    assert alone.first and alone.told(b"x") == b"x" and alone.summed() == ()
    with alone.watched() as dog:
        assert dog.silence_s == 0


@pytest.mark.parametrize(("naps", "code"), [(5, 0), (1, 1)])
def test_a_process_whose_others_fall_silent_ends(naps: int, code: int) -> None:
    """Fed five times in 0.25 s it lives; left alone for a second it ends with 1."""
    script = (
        "import time; from mlx_plastic.backend.distributed import Watchdog; dog = Watchdog(0.5)\n"
        f"for _ in range({naps}): time.sleep({0.25 if naps > 1 else 2}); dog.feed()\n"
        "dog.stop()"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == code
    assert ("no word from the other processes" in done.stderr) == bool(code)
    assert time.monotonic() - began < 60
    assert Watchdog(0.0).silence_s == 0.0
