"""The recipe of the built-in base at toy size: it learns, it resumes, and what comes out loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_plastic.base import load_base
from mlx_plastic.samples import Message

pytest.importorskip("torch", reason="the extra `nano` is not installed")

ROOT = Path(__file__).parent.parent


def run(work: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "train_nano.py"), "--toy", "--work", str(work)]
    return subprocess.run(
        [*command, "--out", str(out), *arguments],
        capture_output=True,
        text=True,
        timeout=1200,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_whole_recipe_converges_resumes_and_gives_a_checkpoint_that_loads(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "toy"
    done = run(work, out, "--every", "130")
    assert done.returncode == 0, done.stderr
    curve = [json.loads(line) for line in (work / "curve.jsonl").read_text().splitlines()]
    assert curve[-1]["step"] == 389
    first, second, last = (point["perplexity"] for point in curve)
    assert first > second > last
    assert last < 15  # of 1,024 words; it began at about that
    base = load_base(str(out))
    assert base.answers([[Message("user", "Hello!")]], max_tokens=8)[0]
    again = run(work, out)  # nothing is left to do
    assert again.returncode == 0 and "resumed at step 389" in again.stdout


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_that_was_stopped_reads_and_becomes_the_same_as_one_that_was_not(tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    few = ("--tokens", "30720", "--polish", "10240", "--every", "20")  # 40 steps
    assert run(whole, tmp_path / "a", *few).returncode == 0
    assert run(halves, tmp_path / "b", *few, "--stop-at", "20").returncode == 0
    assert run(halves, tmp_path / "b", *few).returncode == 0
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert a == b
