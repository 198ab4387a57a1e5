"""The last run: what is ours goes, after it was told; what is not stays."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlx_plastic.cli.main import plastic
from mlx_plastic.cli.uninstall import command
from mlx_plastic.home import Home, find_home, locked
from mlx_plastic.home.remove import plan
from mlx_plastic.memory import Memory
from test_init import units, user

__all__ = ["user"]


@pytest.fixture
def lived(home: Home, user: Path, tmp_path: Path) -> Home:
    """A home with data, caches, a link, something half written, and a file that is not ours."""
    with Memory(home) as memory:
        memory.remember(memory.new_conversation(), "user", "hello")
    for name in ("packs/one/pack.safetensors", "cache/x.json", "logs/nights.jsonl", "config.toml"):
        (home.root / name).parent.mkdir(parents=True, exist_ok=True)
        (home.root / name).write_text("# 1\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_text("mine")
    (home.root / "runs").symlink_to(tmp_path / "elsewhere")
    (home.root / "packs" / "out").symlink_to(tmp_path / "elsewhere")
    (home.root / ".config.toml.1.2.part").write_text("half")
    (home.root / "letter.txt").write_text("not ours")
    compiled = user / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "mlx-plastic" / "blas"
    compiled.mkdir(parents=True)
    (compiled / "shim.so").write_text("x")
    (compiled.parent / "other").mkdir()
    return home


def run(home: Home, *arguments: str, says: str = "") -> Result:
    return CliRunner().invoke(plastic, ["--home", str(home.root), "uninstall", *arguments], input=says)


def all_files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_everything_of_ours_goes_and_nothing_else(lived: Home, user: Path, tmp_path: Path) -> None:
    told = json.loads(run(lived, "--yes", "--json").stdout)
    assert all_files(lived.root) == ["letter.txt"]
    assert (tmp_path / "elsewhere" / "mine").read_text() == "mine"
    assert not list(user.rglob("shim.so")) and list(user.rglob("other"))
    assert told["foreign"] == ["letter.txt"] and told["bytes"] > 0
    assert told["program"].endswith("mlx-plastic")


def test_what_goes_is_told_first_and_without_a_yes_nothing_does(lived: Home, user: Path) -> None:
    before = all_files(lived.root)
    asked = run(lived, says="n\n")
    assert asked.exit_code == 1
    for word in ("what was said", "packs", "letter.txt", "not ours", "settings", "a link"):
        assert word in asked.stdout, word
    assert run(lived).exit_code == 1  # nobody there to say yes
    dry = json.loads(run(lived, "--dry-run", "--json").stdout)
    assert dry["dry_run"] is True and {e["name"] for e in dry["go"]} >= {"memory", "packs", "cache"}
    assert [name for name in all_files(lived.root) if not name.startswith("locks")] == before


def test_data_can_be_kept(lived: Home, user: Path) -> None:
    assert run(lived, "--keep-data", "--yes").exit_code == 0
    names = all_files(lived.root)
    assert {"config.toml", "letter.txt", "memory/log.sqlite", "packs/one/pack.safetensors"} <= set(names)
    assert not {"cache", "locks", ".config.toml.1.2.part"} & set(names)
    with Memory(lived) as memory:
        assert [turn.content for turn in memory.turns()] == ["hello"]


def test_a_home_of_ours_alone_goes_as_a_whole_and_twice_is_no_error(tmp_path: Path, user: Path) -> None:
    home = find_home(tmp_path / "alone")
    home.config_file.write_text("")
    for _ in range(2):
        assert run(home, "--yes").exit_code == 0
        assert not home.root.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the names of systemd's units")
def test_the_schedule_and_the_server_go_but_not_those_of_another_home(
    lived: Home, user: Path, tmp_path: Path
) -> None:
    other = find_home(tmp_path / "other")
    for arguments in (["install", "--at", "03:30"], ["install", "--server"]):
        done = CliRunner().invoke(plastic, ["--home", str(other.root), "schedule", *arguments])
        assert done.exit_code == 0, done.output
    assert len(units(user)) == 3
    assert json.loads(run(lived, "--yes", "--json").stdout)["units"] == []
    assert len(units(user)) == 3  # control: they are there
    assert len(json.loads(run(other, "--yes", "--json").stdout)["units"]) == 3
    assert units(user) == [] and not other.root.exists()


def test_a_home_in_use_is_left_alone(lived: Home, user: Path) -> None:
    before = {n for n in all_files(lived.root) if "log.sqlite" not in n and not n.startswith("locks")}
    with locked(lived, "night", hint=""):
        assert run(lived, "--yes").exit_code == 1
    with Memory(lived) as memory:
        talk = memory.new_conversation()
        memory.remember(talk, "user", "I am talking")
        done = run(lived, "--yes")
        assert done.exit_code == 1 and "has" in done.stderr and "plastic chat" in done.stderr
        memory.remember(talk, "user", "still")
        assert len(memory.turns()) == 3
    assert before <= set(all_files(lived.root))
    assert run(lived, "--yes").exit_code == 0  # control


def test_a_folder_that_holds_more_than_a_home_is_left_to_its_owner(user: Path, tmp_path: Path) -> None:
    for root in (user, tmp_path, tmp_path / "checkout"):
        (root / "logs").mkdir(parents=True, exist_ok=True)
        (root / "logs" / "mine").write_text("mine")
    (tmp_path / "checkout" / ".git").mkdir()
    for root in (user, tmp_path, tmp_path / "checkout"):
        done = run(Home(root), "--yes")
        assert done.exit_code == 1 and "is no folder of ours alone" in done.stderr
        assert (root / "logs" / "mine").read_text() == "mine"


def test_a_damaged_log_goes_too(lived: Home, user: Path) -> None:
    lived.memory_db.write_bytes(b"no database" * 100)
    assert run(lived, "--yes").exit_code == 0
    assert all_files(lived.root) == ["letter.txt"]


def test_what_removes_the_program_is_what_installed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "uninstall" in command() and sys.executable in command()
    monkeypatch.setattr(sys, "prefix", "/home/a/.local/share/pipx/venvs/mlx-plastic")
    assert command() == "pipx uninstall mlx-plastic"
    monkeypatch.setattr(sys, "prefix", "/home/a/.local/share/uv/tools/mlx-plastic")
    assert command() == "uv tool uninstall mlx-plastic"


def test_a_plan_names_every_entry_once(lived: Home) -> None:
    for keep in (False, True):
        found = plan(lived, keep_data=keep)
        names = [e.name for part in (found.go, found.stay, found.foreign) for e in part]
        assert sorted(names) == sorted(p.name for p in lived.root.iterdir())
