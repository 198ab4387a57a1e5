"""The first run: what suits the machine, what is agreed to, and nothing that was not asked for."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlx_plastic.base.offers import BUILT_IN, HUB, Offer, choose, is_here
from mlx_plastic.cli.main import COMMANDS, plastic
from mlx_plastic.home import Home

SCRIPT = "import sys; from mlx_plastic.cli.main import main; main()"
GB = 10**9


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, and tools of the system that note what they are asked instead of doing it."""
    tools, folder = tmp_path / "tools", tmp_path / "user"
    for made in (tools, folder):
        made.mkdir()
    for name in ("systemctl", "launchctl"):
        (tools / name).write_text(f'#!/bin/sh\necho {name} "$@" >> "{tmp_path / "asked"}"\n')
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # it was read at import
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return folder


def run(home: Home, *arguments: object, command: str = "init") -> Result:
    return CliRunner().invoke(plastic, ["--home", str(home.root), command, *map(str, arguments)])


def units(user: Path) -> list[str]:
    found = (p for p in user.rglob("*") if p.is_file() and ".cache" not in p.parts)
    return sorted(p.name for p in found if "mlx-plastic" in p.name)


# -- what suits the machine


def test_nano_always_suits_and_larger_ones_by_memory() -> None:
    for kind in ("metal", "cuda", "cpu"):
        assert choose(kind, 0).fitting == (BUILT_IN,) and choose(kind, 0).proposed is BUILT_IN
    small, large = choose("metal", 8 * GB), choose("metal", 64 * GB)
    assert set(small.fitting) < set(large.fitting) == {BUILT_IN, *HUB}
    assert small.proposed.needs_gb("metal") <= 8 and small.proposed.parameters_b > 1
    assert large.proposed.parameters_b == 8.2  # not the largest: that would answer slowly
    assert {*small.fitting, *small.too_large} == {BUILT_IN, *HUB}


def test_without_a_gpu_nothing_larger_is_proposed() -> None:
    found = choose("cpu", 256 * GB)
    assert found.proposed is BUILT_IN and len(found.fitting) == 1 + len(HUB)
    assert all(offer.needs_gb("cpu") > offer.needs_gb("metal") for offer in HUB)  # computed in float32


def test_every_offer_tells_its_size_and_licence() -> None:
    assert [o.parameters_b for o in HUB] == sorted(o.parameters_b for o in HUB)
    for offer in HUB:
        assert offer.ref.count("/") == 1 and offer.licence == "Apache-2.0"
        assert offer.download_gb == pytest.approx(offer.parameters_b * 4.5 / 8, abs=0.06)
    assert isinstance(BUILT_IN, Offer) and BUILT_IN.download_gb == 0


def test_only_a_whole_base_counts_as_here(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_here("nano") and is_here(str(checkpoint)) and not is_here("org/none") and not is_here("none")
    import huggingface_hub

    cache = tmp_path / "hub"
    folder = cache / "models--org--name" / "snapshots" / "abc"
    shutil.copytree(checkpoint, folder)
    (cache / "models--org--name" / "refs").mkdir()
    (cache / "models--org--name" / "refs" / "main").write_text("abc")
    real = huggingface_hub.try_to_load_from_cache
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a: real(*a, cache_dir=cache))
    assert is_here("org/name")
    (folder / "model.safetensors").unlink()  # a download that was broken off
    assert not is_here("org/name")


# -- without a terminal


def test_every_question_has_an_option(home: Home, user: Path) -> None:
    done = run(home, "--base", "nano", "--no-log", "--train", "--schedule", "no", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert tomllib.loads(home.config_file.read_text()) == {
        "base": {"ref": "nano"},
        "consent": {"log": False, "train": True},
    }
    assert (told["base"], told["log"], told["train"], told["schedule"]["at"]) == ("nano", False, True, None)
    assert told["fitting"][0]["ref"] == "nano" and told["machine"]["memory_gb"] > 0
    assert units(user) == []


def test_what_nobody_answers_is_wrong_usage_and_consent_is_never_assumed(home: Home, user: Path) -> None:
    done = run(home)
    assert done.exit_code == 2
    for name in ("--base", "--log/--no-log", "--train/--no-train", "--schedule", "--yes"):
        assert name in done.stderr
    assert run(home, "--base", "nano", "--log", "--train").exit_code == 2
    assert not home.config_file.exists()
    assert run(home, "--yes", "--base", "nano").exit_code == 0
    assert "consent" not in home.config_file.read_text()  # --yes answers no question


def test_it_can_be_run_again_and_keeps_comments_and_all_else(home: Home, user: Path) -> None:
    home.config_file.write_text('# mine\n[chat]\nrag = true  # always\n\n[base]\nref = "nano"  # small\n')
    for _ in range(2):
        assert run(home, "--yes", "--log", "--no-train").exit_code == 0
        assert home.config_file.read_text() == (
            '# mine\n[chat]\nrag = true  # always\n\n[base]\nref = "nano"  # small\n'
            "\n[consent]\nlog = true\ntrain = false\n"
        )


def test_a_dry_run_shows_and_changes_nothing(home: Home, user: Path) -> None:
    done = run(home, "--dry-run", "--log", "--train", "--schedule", "03:30", "--json")
    told = json.loads(done.stdout)
    assert "log = true" in told["text"] and told["schedule"]["at"] == "03:30" and told["schedule"]["files"]
    assert not home.config_file.exists() and units(user) == []
    assert "would hold" in run(home, "--dry-run", "--no-log").stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the names of systemd's units")
def test_the_schedule_comes_and_goes_and_another_homes_stays(home: Home, user: Path, tmp_path: Path) -> None:
    assert run(home, "--yes", "--schedule", "04:05").exit_code == 0
    assert units(user) == ["mlx-plastic-night.service", "mlx-plastic-night.timer"]
    assert "enable --now mlx-plastic-night.timer" in (tmp_path / "asked").read_text()
    other = Home(tmp_path / "other")
    assert run(other, "--yes", "--schedule", "no").exit_code == 0
    assert len(units(user)) == 2
    assert run(home, "--yes", "--schedule", "no").exit_code == 0
    assert units(user) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--schedule", "3:30"), 2, "no time of day"),
        (("--schedule", "04:00", "--no-train"), 2, "nothing to learn"),
        (("--schedule", "04:00", "--no-log"), 2, "nothing to learn"),
        (("--base", "/no/such"), 1, "no checkpoint folder"),
        (("--base", "nnao"), 1, "no checkpoint folder"),
        (("--base", "org/none", "--download"), 1, "switched off by HF_HUB_OFFLINE"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_set(
    home: Home, user: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = run(home, "--yes", *arguments)
    assert done.exit_code == code and message in done.stderr
    assert not home.config_file.exists() and units(user) == []


def test_a_hub_base_is_set_and_not_fetched_unasked(home: Home, user: Path) -> None:
    done = run(home, "--yes", "--base", HUB[0].ref, "--json")  # offline: a try to fetch it would fail
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["base_is_here"] is False
    assert tomllib.loads(home.config_file.read_text())["base"]["ref"] == HUB[0].ref


def test_at_a_terminal_it_asks_for_each_apart(home: Home, user: Path) -> None:
    keyboard, screen = pty.openpty()
    command = [sys.executable, "-c", SCRIPT, "--home", str(home.root), "init"]
    process = subprocess.Popen(command, stdin=screen, stdout=subprocess.PIPE, stderr=screen)
    os.close(screen)
    said, answers = "", [("Base [", "1\n"), ("be kept", "y\n"), ("nights learn", "n\n")]
    for question, answer in answers:
        until = time.monotonic() + 60
        while question not in said:
            ready, _, _ = select.select([keyboard], [], [], max(0.0, until - time.monotonic()))
            assert ready, said
            said += os.read(keyboard, 65536).decode(errors="replace")
        os.write(keyboard, answer.encode())
    assert process.wait(60) == 0
    os.close(keyboard)
    assert "nano" in said and "Shall a night run" not in said  # nothing could be learned by one
    assert tomllib.loads(home.config_file.read_text())["consent"] == {"log": True, "train": False}


# -- completion


def complete(words: str, place: int, **variables: str) -> list[str]:
    asked = {"_PLASTIC_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=os.environ | asked, check=False
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_a_shell_completes_commands_options_and_choices() -> None:
    assert complete("plastic co", 1) == [name for name in COMMANDS if name.startswith("co")]
    assert "--train" in complete("plastic init --tr", 2)
    assert complete("plastic completion f", 2) == ["fish"]
    assert complete("plastic packs rollb", 2) == ["rollback"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_each_shell_is_one_that_it_reads(shell: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(plastic, ["completion", shell])
    assert done.exit_code == 0 and "_PLASTIC_COMPLETE" in done.stdout
    if shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(done.stdout)
        assert subprocess.run([shell, "-n", str(script)], check=False).returncode == 0
    assert CliRunner().invoke(plastic, ["completion", "tcsh"]).exit_code == 2
