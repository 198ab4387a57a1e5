"""Nights by themselves: a systemd user timer or a launchd agent, which both catch up on a night missed.

What they start is `plastic schedule run`, which looks first whether a night is due and the machine on mains.
"""

from __future__ import annotations

import plistlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_plastic.errors import BadConfig
from mlx_plastic.home import Home
from mlx_plastic.sleep import units
from mlx_plastic.sleep.units import Done, Found, Kind, Run, Unit, kind_here, plastic, run_tool

NAME = "mlx-plastic-night"
LABEL = "org.mlx-plastic.night"
AT = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
NOT_NOW = 75  # EX_TEMPFAIL of sysexits.h: the night is asked for again after RETRY_S
RETRY_S = 1800
STOP_S = 120  # to bring a training step to its end and write a checkpoint


@dataclass(frozen=True)
class Job:
    """What is to be run, when. command: absolute, without a shell."""

    command: tuple[str, ...]
    at: str  # HH:MM, local time
    log: Path

    @property
    def hour(self) -> int:
        return int(self.at[:2])

    @property
    def minute(self) -> int:
        return int(self.at[3:])


def job(home: Home, at: str, python: str = sys.executable) -> Job:
    """Raises BadConfig for a time that is none."""
    if not AT.fullmatch(at):
        raise BadConfig(f"{at!r} is no time of day", hint="write it as HH:MM, such as 03:30")
    return Job(plastic(home, "schedule", "run", python=python), at, home.logs / "schedule.log")


def unit(kind: Kind, found: Job, environ: Mapping[str, str] | None = None) -> Unit:
    """What is to be written where."""
    folder = units.folder(kind, environ)
    if kind == "launchd":
        return Unit(kind, LABEL, {folder / f"{LABEL}.plist": plist(found)})
    files = {folder / f"{NAME}.service": service(found), folder / f"{NAME}.timer": timer(found)}
    return Unit(kind, f"{NAME}.timer", files)


def service(found: Job) -> bytes:
    """A service that yields to all else, may be stopped, and is started again after a "not now"."""
    return f"""[Unit]
Description=mlx-plastic: learn what was said since the last night
Documentation=man:systemd.service(5)

[Service]
Type=exec
ExecStart={units.exec_start(found.command)}
Nice=19
IOSchedulingClass=idle
KillSignal=SIGTERM
TimeoutStopSec={STOP_S}
SuccessExitStatus=143
RestartForceExitStatus={NOT_NOW}
RestartSec={RETRY_S}
""".encode()


def timer(found: Job) -> bytes:
    """Persistent: a night missed while the machine was off runs at the next chance."""
    return f"""[Unit]
Description=mlx-plastic: every night at {found.at}

[Timer]
OnCalendar=*-*-* {found.at}:00
Persistent=true
AccuracySec=1min
Unit={NAME}.service

[Install]
WantedBy=timers.target
""".encode()


def plist(found: Job) -> bytes:
    """A launchd agent. At login too: a time at which the Mac was off is missed, and the run sees what is due.

    caffeinate -is keeps the Mac awake and lets its display sleep: with the display on, the GPU's watchdog
    ends long computations.
    """
    value: dict[str, Any] = {
        "Label": LABEL,
        "ProgramArguments": ["/usr/bin/caffeinate", "-is", *found.command],
        "StartCalendarInterval": {"Hour": found.hour, "Minute": found.minute},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},  # asked again after ThrottleInterval, as on battery
        "ThrottleInterval": RETRY_S,
        "ExitTimeOut": STOP_S,
        "ProcessType": "Background",
        "LowPriorityIO": True,
        "StandardOutPath": str(found.log),
        "StandardErrorPath": str(found.log),
    }
    return plistlib.dumps(value)


def install(home: Home, found: Job, *, kind: Kind | None = None, run: Run = run_tool) -> Done:
    """As `units.install`; another time replaces the first."""
    return units.install(home, unit(kind or kind_here(), found), run)


def remove(home: Home, *, kind: Kind | None = None, run: Run = run_tool) -> Done:
    """Unload and delete the files; what was learned stays. No schedule is no error."""
    return units.remove(unit(kind or kind_here(), job(home, "00:00")), run)


@dataclass(frozen=True)
class Scheduled(Found):
    """The same of the nights. at: None if nothing is installed, or if that is not ours."""

    at: str | None = None


def status(home: Home, *, kind: Kind | None = None, run: Run = run_tool) -> Scheduled:
    """What is installed, from the files and from the system. Files of another make are named as such."""
    found = units.look(there := unit(kind or kind_here(), job(home, "00:00")), run)
    at = read_at(there.kind, there.there) if found.command else None
    if found.command and at is None:
        return Scheduled(found.kind, found.files, says="cannot be read: it names no time of ours")
    return Scheduled(found.kind, found.files, found.command, found.loaded, found.says, at)


def read_at(kind: Kind, paths: Sequence[Path]) -> str | None:
    """The time in files that `install` wrote; None in others."""
    if kind == "launchd":
        when = plistlib.loads(paths[0].read_bytes()).get("StartCalendarInterval") or {}
        known = isinstance(when, dict) and {"Hour", "Minute"} <= when.keys()
        return f"{when['Hour']:02d}:{when['Minute']:02d}" if known else None
    text = "\n".join(path.read_text("utf-8") for path in paths)
    at = re.search(r"^OnCalendar=\*-\*-\* (\d\d:\d\d):00$", text, re.MULTILINE)
    return at[1] if at else None
