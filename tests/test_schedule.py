"""Nights by themselves: files that the system accepts, what is due, battery, a word on the desktop."""

from __future__ import annotations

import json
import plistlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadConfig, PlasticError
from mlx_plastic.home import Home, locked
from mlx_plastic.sleep import schedule, server_unit, units
from mlx_plastic.sleep.due import is_due, last_run, last_time, note_run, on_battery
from mlx_plastic.sleep.notify import command, notify

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=timezone(timedelta(hours=1)))


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a space and a sign in it that systemd and shells read."""
    folder = tmp_path / "An na 100%"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return folder


class System:
    """Stands for systemctl and launchctl, which would change this machine; notes what was asked of them."""

    def __init__(self, code: int = 0, said: str = "") -> None:
        self.asked: list[list[str]] = []
        self.code, self.said = code, said

    def __call__(self, arguments: Sequence[str]) -> tuple[int, str]:
        self.asked.append(list(arguments))
        tools = ("systemd-analyze", "plutil")
        return units.run_tool(arguments) if any(t in arguments for t in tools) else (self.code, self.said)


def spaced(user: Path) -> Home:
    home = Home(user / "my home %h $x")
    home.root.mkdir()
    return home


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_itself_accepts_the_files_and_refuses_broken_ones(user: Path) -> None:
    home = spaced(user)
    done = schedule.install(home, schedule.job(home, "03:30"), kind="systemd", run=System())
    assert done.checked == ("systemd-analyze",)
    broken = Path(done.files[0])
    broken.write_text(broken.read_text().replace("Type=exec", "Type=nonsense"))
    with pytest.raises(PlasticError, match="systemd-analyze finds fault"):
        units.check("systemd", [Path(f) for f in done.files], units.run_tool)


@pytest.mark.skipif(not shutil.which("plutil"), reason="no plutil here")
def test_plutil_accepts_the_plist(user: Path) -> None:
    home = spaced(user)
    done = schedule.install(home, schedule.job(home, "03:30"), kind="launchd", run=System())
    assert done.checked == ("plutil",)


def test_what_is_installed_is_read_back_and_runs_the_very_command(user: Path) -> None:
    home = spaced(user)
    for kind in ("systemd", "launchd"):
        job = schedule.job(home, "04:05")
        schedule.install(home, job, kind=kind, run=System())
        found = schedule.status(home, kind=kind, run=System())
        assert found.at == "04:05" and found.loaded is True
        assert found.command[-len(job.command) :] == job.command  # the home's odd name as well
    assert job.command[:2] == (sys.executable, "-c")
    asked = [*job.command[:-2], "schedule", "status", "--json"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert json.loads(told.stdout)["last_run"] is None


def test_the_plist_keeps_the_mac_awake_with_its_display_dark(user: Path) -> None:
    value = plistlib.loads(schedule.plist(schedule.job(spaced(user), "03:30")))
    assert value["ProgramArguments"][:2] == ["/usr/bin/caffeinate", "-is"]
    assert value["StartCalendarInterval"] == {"Hour": 3, "Minute": 30}
    assert value["RunAtLoad"] and value["KeepAlive"] == {"SuccessfulExit": False}


def test_the_timer_catches_up_and_the_service_may_be_stopped_in_peace(user: Path) -> None:
    job = schedule.job(spaced(user), "03:30")
    assert "Persistent=true" in schedule.timer(job).decode()
    service = schedule.service(job).decode()
    assert "KillSignal=SIGTERM" in service and f"RestartForceExitStatus={schedule.NOT_NOW}" in service
    assert '100%%/my home %%h $$x"' in service


def test_installing_again_moves_the_time_and_removing_leaves_nothing(user: Path) -> None:
    home, system = spaced(user), System()
    for at in ("03:30", "05:00"):
        schedule.install(home, schedule.job(home, at), kind="systemd", run=system)
    assert schedule.status(home, kind="systemd", run=system).at == "05:00"
    assert ["systemctl", "--user", "enable", "--now", "mlx-plastic-night.timer"] in system.asked
    assert len(schedule.remove(home, kind="systemd", run=system).files) == 2
    assert ["systemctl", "--user", "disable", "--now", "mlx-plastic-night.timer"] in system.asked
    assert [p for p in user.rglob("*") if "mlx-plastic" in p.name] == []
    assert schedule.remove(home, kind="systemd", run=system).files == ()  # again is no error
    assert schedule.status(home, kind="systemd", run=system).files == ()


def test_where_no_timer_can_be_loaded_the_person_is_told_how(user: Path) -> None:
    home = spaced(user)
    done = schedule.install(
        home, schedule.job(home, "03:30"), kind="systemd", run=System(1, "Failed to connect to bus")
    )
    assert not done.loaded
    assert done.notes[0] == "not loaded: Failed to connect to bus"
    assert "systemctl --user daemon-reload" in done.notes[1]


# --- the server


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_itself_accepts_the_servers_service_and_refuses_a_broken_one(user: Path) -> None:
    done = server_unit.install(spaced(user), grace_s=30.0, kind="systemd", run=System())
    assert done.checked == ("systemd-analyze",) and done.loaded
    (file,) = map(Path, done.files)
    file.write_text(file.read_text().replace("Restart=on-failure", "Restart=perhaps"))
    with pytest.raises(PlasticError, match="systemd-analyze finds fault"):
        units.check("systemd", [file], units.run_tool)


@pytest.mark.skipif(not shutil.which("plutil"), reason="no plutil here")
def test_plutil_accepts_the_servers_plist(user: Path) -> None:
    assert server_unit.install(spaced(user), grace_s=30.0, kind="launchd", run=System()).checked


def test_the_servers_unit_is_read_back_and_runs_the_very_command(user: Path) -> None:
    home = spaced(user)
    for kind in ("systemd", "launchd"):
        server_unit.install(home, grace_s=30.0, kind=kind, run=System())
        found = server_unit.status(home, kind=kind, run=System())
        assert found.command == units.plastic(home, "serve") and found.loaded is True
        assert schedule.status(home, kind=kind, run=System()).files == ()  # no night comes with it
    told = subprocess.run([*found.command, "--help"], capture_output=True, text=True, check=True)
    assert "Answer any OpenAI client" in told.stdout


def test_the_server_comes_again_after_a_crash_and_ends_in_peace(user: Path) -> None:
    home = spaced(user)
    (service,) = server_unit.unit(home, "systemd", grace_s=30.0).files.values()
    lines = service.decode().splitlines()
    assert {"Restart=on-failure", "KillSignal=SIGTERM", "UMask=0077", "WantedBy=default.target"} <= set(lines)
    stop = next(line for line in lines if line.startswith("TimeoutStopSec="))
    assert int(stop.partition("=")[2]) > 30  # answers get their time
    (plist,) = server_unit.unit(home, "launchd", grace_s=30.0).files.values()
    value = plistlib.loads(plist)
    assert value["RunAtLoad"] and value["KeepAlive"] == {"SuccessfulExit": False}
    assert value["ExitTimeOut"] > 30 and value["Umask"] == 0o077


def test_a_place_that_cannot_be_written_is_an_error_and_nothing_is_left(user: Path) -> None:
    home = spaced(user)
    (user / ".config").write_text("a file, not a folder")
    with pytest.raises(PlasticError, match=r"cannot be changed in .*/systemd/user"):
        server_unit.install(home, grace_s=30.0, kind="systemd", run=System())
    (user / ".config").unlink()
    assert server_unit.install(home, grace_s=30.0, kind="systemd", run=System()).files  # control


def test_nights_and_server_are_installed_and_removed_apart(user: Path) -> None:
    home, system = spaced(user), System()
    schedule.install(home, schedule.job(home, "03:30"), kind="systemd", run=system)
    server_unit.install(home, grace_s=30.0, kind="systemd", run=system)
    assert ["systemctl", "--user", "enable", "--now", "mlx-plastic-serve.service"] in system.asked
    assert len(server_unit.remove(home, kind="systemd", run=system).files) == 1
    assert ["systemctl", "--user", "disable", "--now", "mlx-plastic-serve.service"] in system.asked
    assert schedule.status(home, kind="systemd", run=system).at == "03:30"
    assert server_unit.remove(home, kind="systemd", run=system).files == ()  # again is no error
    assert server_unit.status(home, kind="systemd", run=system).files == ()


def test_the_commands_show_a_server_and_refuse_what_could_not_run(home: Home, user: Path) -> None:
    shown = run(home, "install", "--server", "--dry-run", "--json")
    ((path, text),) = json.loads(shown.stdout)["files"].items()
    assert "serve" in Path(path).name and "serve" in text
    assert run(home, "install", "--server", "--at", "03:30").exit_code == 2
    assert run(home, "remove", "--server", "--dry-run").stdout == "none\n"
    told = json.loads(run(home, "status", "--json").stdout)
    assert told["server"]["files"] == [] and told["server"]["answers"] is False
    home.config_file.write_text('[serve]\nhost = "0.0.0.0"\n')
    refused = run(home, "install", "--server", "--dry-run")
    assert refused.exit_code == 1 and "there is no key" in refused.output
    assert [p for p in user.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("at", ["3:30", "24:00", "12:60", "", "03:30:00", "0330", "03:3x"])
def test_a_time_that_is_none_is_refused(home: Home, at: str) -> None:
    with pytest.raises(BadConfig, match="no time of day"):
        schedule.job(home, at)


# --- what is due


def test_a_night_is_due_once_a_day_and_a_missed_one_at_the_next_chance(home: Home) -> None:
    assert is_due(home, "03:30", NOW)  # never run: installed at noon, the first is due now
    note_run(home, NOW, "passed")
    assert last_run(home) == NOW
    assert not is_due(home, "03:30", NOW + timedelta(hours=15))  # until half past three
    assert is_due(home, "03:30", NOW + timedelta(hours=16))
    assert is_due(home, "03:30", NOW + timedelta(days=9))  # off for a week


def test_a_clock_that_jumps_costs_at_most_one_night_too_many(home: Home) -> None:
    note_run(home, NOW + timedelta(days=4000), "passed")  # the clock was years ahead
    assert is_due(home, "03:30", NOW)
    note_run(home, NOW, "passed")
    assert not is_due(home, "03:30", NOW + timedelta(hours=1))
    (home.root / "schedule.json").write_text("{")
    assert last_run(home) is None and is_due(home, "03:30", NOW)


def test_the_last_time_is_of_yesterday_before_and_of_today_after_it() -> None:
    assert last_time("03:30", NOW) == NOW.replace(hour=3, minute=30)
    assert last_time("13:00", NOW) == (NOW - timedelta(days=1)).replace(hour=13)


def supplies(folder: Path, **values: dict[str, str]) -> Path:
    for name, files in values.items():
        (folder / name).mkdir(parents=True)
        for key, value in files.items():
            (folder / name / key).write_text(f"{value}\n")
    return folder


def test_battery_is_told_from_mains_from_a_mouse_and_from_nothing(tmp_path: Path) -> None:
    draining = {"type": "Battery", "status": "Discharging"}
    full = {"type": "Battery", "status": "Full"}
    mouse = draining | {"scope": "Device"}
    plugged, pulled = {"type": "Mains", "online": "1"}, {"type": "Mains", "online": "0"}
    cases = [
        ({"BAT0": draining, "AC": pulled}, True),
        ({"BAT0": draining}, True),
        ({"BAT0": draining, "AC": plugged}, False),
        ({"BAT0": full, "AC": plugged}, False),
        ({"mouse": mouse}, False),
        ({}, False),
    ]
    for i, (found, wanted) in enumerate(cases):
        assert on_battery("linux", supplies(tmp_path / str(i), **found)) is wanted, found


# --- what the timer starts


def run(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(plastic, ["--home", str(home.root), "schedule", *arguments])


def test_a_run_that_is_not_due_or_not_now_does_nothing(
    home: Home, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlx_plastic.sleep.due.on_battery", lambda: True)
    waits = run(home, "run", "--json")
    assert waits.exit_code == schedule.NOT_NOW
    assert json.loads(waits.stdout)["outcome"] == "not now"
    note_run(home, datetime.now().astimezone(), "passed")
    told = run(home, "run", "--json")
    assert (told.exit_code, json.loads(told.stdout)["text"]) == (0, "no night is due")


def test_a_run_while_a_night_runs_asks_to_be_started_later(home: Home, user: Path, checkpoint: Path) -> None:
    home.config_file.write_text(f'[base]\nref = "{checkpoint}"\n')
    with locked(home, "night", hint=""):
        assert run(home, "run", "--now").exit_code == schedule.NOT_NOW
    assert last_run(home) is None
    done = run(home, "run", "--now", "--json")  # control
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["outcome"] == "nothing" and last_run(home) is not None


def test_an_error_of_the_night_is_told_and_not_tried_all_night_long(home: Home, user: Path) -> None:
    home.config_file.write_text('[base]\nref = "/no/such/base"\n')
    done = run(home, "run", "--now", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["outcome"] == "error"
    assert last_run(home) is not None


def test_the_command_shows_files_and_writes_none_on_a_dry_run(home: Home, user: Path) -> None:
    done = run(home, "install", "--at", "03:30", "--dry-run", "--json")
    assert len(json.loads(done.stdout)["files"]) in (1, 2)
    assert [p for p in user.rglob("*") if p.is_file()] == []
    assert run(home, "install", "--at", "soon").exit_code == 1
    assert "no night is scheduled" in run(home, "status").stdout


# --- the word on the desktop


def test_no_desktop_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert command("x") is None
    assert notify("x") is False


def test_what_is_shown_is_handed_over_as_text_and_not_as_a_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("notify-send", "osascript"):
        tool = tmp_path / name
        tool.write_text('#!/bin/sh\nfor last; do :; done\nprintf %s "$*" > "$OUT"\n')
        tool.chmod(0o755)
    out = tmp_path / "out"
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("OUT", str(out))
    text = '--urgency "; do shell script "x"'
    for platform in ("linux", "darwin"):
        arguments = command(text, platform=platform)
        assert arguments is not None and text in arguments
        assert all(text not in a or a == text for a in arguments)
        before = arguments[: arguments.index(text)]
        assert "--" in before or "end run" in before  # nothing behind it is read as an option or a script
    assert notify("night one passed") is True
    assert "night one passed" in out.read_text()
