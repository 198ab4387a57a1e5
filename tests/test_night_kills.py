"""SIGKILL at places of a night drawn by chance: whole packs, no talk learned twice or never, the same end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlx_plastic.home import Home
from test_night import say

HERE = Path(__file__).parent


def killed(checkpoint: Path, tmp_path: Path, count: int, seed: int) -> dict[str, Any]:
    told = Home(tmp_path / "told")
    told.root.mkdir()
    say(told)
    command = [sys.executable, str(HERE / "night_kills.py"), str(checkpoint), str(told.root)]
    command += [str(tmp_path / "lives"), str(count), str(seed)]
    paths = os.pathsep.join([str(HERE), *sys.path])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_night_killed_at_places_drawn_by_chance_ends_as_if_it_had_not_been(
    checkpoint: Path, tmp_path: Path
) -> None:
    found = killed(checkpoint, tmp_path, count=4, seed=0)
    assert found["bad"] == []
    assert found["killed"] >= 4  # control: each was killed, some twice
    assert found["places"] > 100


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_hundred_kills_lose_nothing(checkpoint: Path, tmp_path: Path) -> None:
    found = killed(checkpoint, tmp_path, count=200, seed=1)
    assert found["bad"] == []
    assert found["killed"] >= 200
