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


def killed(checkpoint: Path, tmp_path: Path, count: int, seed: int, *more: str) -> dict[str, Any]:
    told = Home(tmp_path / "told")
    told.root.mkdir()
    say(told)
    command = [sys.executable, str(HERE / "night_kills.py"), str(checkpoint), str(told.root)]
    command += [str(tmp_path / "lives"), str(count), str(seed), *more]
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


def test_a_night_that_is_trained_once_more_can_be_killed_anywhere_too(
    checkpoint: Path, tmp_path: Path
) -> None:
    found = killed(checkpoint, tmp_path, 3, 2, "twice")
    assert found["bad"] == [] and found["killed"] >= 3
    assert found["tried"] == [1]  # control: the undisturbed night was


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("more", [(), ("twice",)])
def test_two_hundred_kills_lose_nothing(checkpoint: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    found = killed(checkpoint, tmp_path, 200, 1, *more)
    assert found["bad"] == []
    assert found["killed"] >= 200
