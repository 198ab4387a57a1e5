from __future__ import annotations

import errno
import json
import multiprocessing
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from mlx_plastic.errors import BadConfig, Busy, PlasticError
from mlx_plastic.home import (
    Home,
    append_line,
    find_home,
    from_mapping,
    locked,
    settings,
    write_atomic,
    write_json,
)


@dataclass(frozen=True)
class Settings:
    rank: int = 8
    learning_rate: float = 1e-4
    mode: Literal["answer", "all"] = "answer"
    quiet: bool = False


def test_the_home_is_made_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_PLASTIC_HOME", str(tmp_path / "by-variable"))
    assert find_home().root == (tmp_path / "by-variable").resolve()
    named = find_home(tmp_path / "a" / "named")
    assert named.root == (tmp_path / "a" / "named").resolve()
    assert stat.S_IMODE(named.root.stat().st_mode) == 0o700


def test_a_home_that_cannot_be_made_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlasticError, match="cannot make the home folder") as caught:
        find_home(tmp_path / "file" / "home")
    assert "--home DIR" in caught.value.hint


def test_settings_come_from_their_section_and_keep_their_defaults(home: Home) -> None:
    assert settings(home, "train", Settings) == Settings()
    home.config_file.write_text("[train]\nrank = 4\nlearning_rate = 1\n[chat]\nmax_tokens = 2\n")
    assert settings(home, "train", Settings) == Settings(rank=4, learning_rate=1)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[train]\nrnak = 4", "unknown key 'rnak'", "did you mean 'rank'?"),
        ("[train]\nzzz = 4", "unknown key 'zzz'", "known: learning_rate, mode, quiet, rank"),
        ("[train]\nrank = '4'", "rank is '4', not of type int", "write a int"),
        ("[train]\nrank = true", "rank is True, not of type int", "write a int"),
        ("[train]\nquiet = 1", "quiet is 1, not of type bool", "write a bool"),
        ("[train]\nmode = 'some'", "mode is 'some'", "use one of 'answer', 'all'"),
        ("train = 3", "train must be a table", "write [train]"),
        ("[train", "is not TOML", "mend that line"),
        ("[train]\nrank = 4\nrank = 5", "is not TOML", "mend that line"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(home: Home, text: str, message: str, hint: str) -> None:
    home.config_file.write_text(text)
    with pytest.raises(BadConfig) as caught:
        settings(home, "train", Settings)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_config_that_is_a_folder_is_an_error_of_the_user(home: Home) -> None:
    home.config_file.mkdir()
    with pytest.raises(BadConfig, match="cannot read"):
        settings(home, "train", Settings)


def test_from_mapping_says_where_the_value_stood() -> None:
    with pytest.raises(BadConfig, match=r"^night 3: unknown key"):
        from_mapping(Settings, {"x": 1}, where="night 3")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state.json"
    write_atomic(file, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    with monkeypatch.context() as patch:
        patch.setattr("mlx_plastic.home.files.sync", full)
        with pytest.raises(OSError, match="disk full"):
            write_atomic(file, b"new")
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state.json"]
    write_atomic(file, b"new")  # control: it does replace
    assert file.read_bytes() == b"new"


def test_a_file_of_a_mode_has_it_before_anybody_can_open_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    change = os.fchmod
    monkeypatch.setattr(
        os, "fchmod", lambda file, mode: (seen.append(os.fstat(file).st_mode), change(file, mode))
    )
    write_atomic(tmp_path / "keys.json", b"{}", mode=0o600)
    assert [stat.S_IMODE(mode) for mode in seen] == [0o600]
    write_atomic(tmp_path / "list", b"", mode=0o664)
    write_atomic(tmp_path / "own", b"")
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "list").stat().st_mode) == 0o664  # whatever the mask takes away
    assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o666 & ~mask


def test_json_refuses_what_json_has_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not (tmp_path / "x.json").exists()
    write_json(tmp_path / "x.json", {"name": "Zoë"})
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == {"name": "Zoë"}


def test_a_line_after_a_torn_one_stands_alone(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    append_line(log, {"n": 1})
    with open(log, "ab") as file:
        file.write(b'{"n": 2, "tor')  # what a crash leaves
    append_line(log, {"n": 3})
    lines = log.read_text("utf-8").splitlines()
    assert [json.loads(lines[0]), json.loads(lines[2])] == [{"n": 1}, {"n": 3}]


def test_a_line_that_does_not_fit_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log.jsonl"
    append_line(log, {"n": 1})
    before = log.read_bytes()
    write = os.write
    monkeypatch.setattr("os.write", lambda descriptor, data: write(descriptor, data[:4]))
    with pytest.raises(OSError) as caught:
        append_line(log, {"n": 2})
    assert caught.value.errno == errno.ENOSPC
    assert log.read_bytes() == before


def _hold(root: str, ready: multiprocessing.Event, go: multiprocessing.Event) -> None:  # type: ignore[valid-type]
    with locked(Home(Path(root)), "night", hint=""):
        ready.set()
        go.wait(30)


def test_a_lock_keeps_another_process_out_and_dies_with_its_holder(home: Home) -> None:
    context = multiprocessing.get_context("spawn")
    ready, go = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(str(home.root), ready, go))
    holder.start()
    assert ready.wait(30)
    with pytest.raises(Busy, match="'night'") as caught, locked(home, "night", hint="wait for it"):
        pass
    assert caught.value.hint == "wait for it"
    with locked(home, "memory", hint=""):  # control: another lock is free
        pass
    holder.kill()
    holder.join()
    with locked(home, "night", hint=""):
        pass
