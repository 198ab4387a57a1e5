"""Nights by themselves: a systemd user timer or a launchd agent, which both catch up on a night missed.

The files are written here and checked by the system's own tools where there are any. What they start is
`plastic schedule run`, which looks first whether a night is due and the machine on mains power.
"""

from __future__ import annotations

import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlx_plastic.errors import BadConfig, PlasticError
from mlx_plastic.home import Home, write_atomic

Kind = Literal["systemd", "launchd"]
NAME = "mlx-plastic-night"
PROGRAM = "from mlx_plastic.cli.main import main; main()"  # found wherever the interpreter is
LABEL = "org.mlx-plastic.night"
AT = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
NOT_NOW = 75  # EX_TEMPFAIL of sysexits.h: the night is asked for again after RETRY_S
RETRY_S = 1800
STOP_S = 120  # to bring a training step to its end and write a checkpoint
TOOL_S = 30.0

Run = Callable[[Sequence[str]], tuple[int, str]]


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


@dataclass(frozen=True)
class Done:
    """What was written or removed, what the system's tools said, and what is left for the person to do."""

    kind: Kind
    files: tuple[str, ...]
    checked: tuple[str, ...] = ()  # by which tools
    loaded: bool = False
    notes: tuple[str, ...] = ()


def job(home: Home, at: str, python: str = sys.executable) -> Job:
    """Raises BadConfig for a time that is none."""
    if not AT.fullmatch(at):
        raise BadConfig(f"{at!r} is no time of day", hint="write it as HH:MM, such as 03:30")
    command = (python, "-c", PROGRAM, "--home", str(home.root), "schedule", "run")
    return Job(command, at, home.logs / "schedule.log")


def kind_here(platform: str = sys.platform) -> Kind:
    if platform == "darwin":
        return "launchd"
    if platform.startswith("linux"):
        return "systemd"
    raise PlasticError(
        f"no schedule for {platform}", hint="run `plastic schedule run` from a scheduler of yours"
    )


def files(kind: Kind, found: Job, environ: dict[str, str] | None = None) -> dict[Path, bytes]:
    """What is to be written where."""
    env = dict(os.environ) if environ is None else environ
    user = Path(env.get("HOME") or "~").expanduser()
    if kind == "launchd":
        return {user / "Library" / "LaunchAgents" / f"{LABEL}.plist": plist(found)}
    folder = Path(env.get("XDG_CONFIG_HOME") or user / ".config") / "systemd" / "user"
    return {folder / f"{NAME}.service": service(found), folder / f"{NAME}.timer": timer(found)}


def service(found: Job) -> bytes:
    """A service that yields to all else, may be stopped, and is started again after a "not now"."""
    command = " ".join(_quoted(word) for word in found.command)
    return f"""[Unit]
Description=mlx-plastic: learn what was said since the last night
Documentation=man:systemd.service(5)

[Service]
Type=exec
ExecStart={command}
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


def _quoted(word: str) -> str:
    """For ExecStart, where % and $ mean something."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if re.search(r"[^\w./:@%+=-]", word) else escaped


def run_tool(arguments: Sequence[str]) -> tuple[int, str]:
    """Its exit code and what it said; 127 if it is not there."""
    try:
        done = subprocess.run(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TOOL_S,
            check=False,
        )
    except OSError as error:
        return 127, str(error)
    except subprocess.TimeoutExpired:
        return 124, f"no answer in {TOOL_S:g} s"
    return done.returncode, done.stdout.strip()


def install(home: Home, found: Job, *, kind: Kind | None = None, run: Run = run_tool) -> Done:
    """Write the files, have them checked, and load them. May be repeated: another time replaces the first.

    Raises PlasticError if the system's own tool finds the files at fault; then what was there before is back.
    """
    kind = kind or kind_here()
    wanted = files(kind, found)
    before = {path: path.read_bytes() if path.is_file() else None for path in wanted}
    home.logs.mkdir(parents=True, exist_ok=True)
    for path, data in wanted.items():
        write_atomic(path, data)
    try:
        checked = check(kind, list(wanted), run)
    except PlasticError:
        for path, old in before.items():
            path.unlink() if old is None else write_atomic(path, old)
        raise
    loaded, notes = _load(kind, list(wanted), run)
    return Done(kind, tuple(map(str, wanted)), checked, loaded, notes)


def check(kind: Kind, paths: Sequence[Path], run: Run) -> tuple[str, ...]:
    """Let the system's own tool read the files, where it is there and can work; returns its name."""
    tool = ["plutil", "-lint"] if kind == "launchd" else ["systemd-analyze", "--user", "verify"]
    if not shutil.which(tool[0]):
        return ()
    with tempfile.TemporaryDirectory() as folder:  # systemd wants one, also where nobody is logged in
        ahead = [] if os.environ.get("XDG_RUNTIME_DIR") else ["env", f"XDG_RUNTIME_DIR={folder}"]
        code, said = run([*(ahead if kind == "systemd" else ()), *tool, *map(str, paths)])
    if any(path.name in said for path in paths) and (code or kind == "systemd"):
        raise PlasticError(
            f"{tool[0]} finds fault with the files: {said[:500]}", hint="nothing was installed"
        )
    return () if code else (tool[0],)


def _load(kind: Kind, paths: Sequence[Path], run: Run) -> tuple[bool, tuple[str, ...]]:
    steps = _load_steps(kind, paths)
    for optional, step in steps:
        code, said = run(step)
        if code and not optional:
            told = f"not loaded: {said.splitlines()[0] if said else f'exit {code}'}"
            return False, (told, f"to load it yourself: {shlex.join(step)}")
    return True, ()


def _load_steps(kind: Kind, paths: Sequence[Path]) -> list[tuple[bool, list[str]]]:
    """(may fail, command), in order."""
    if kind == "systemd":
        enable = ["systemctl", "--user", "enable", "--now", f"{NAME}.timer"]
        return [(False, ["systemctl", "--user", "daemon-reload"]), (False, enable)]
    domain = f"gui/{os.getuid()}"
    out = ["launchctl", "bootout", f"{domain}/{LABEL}"]  # an older one, if there is one
    return [(True, out), (False, ["launchctl", "bootstrap", domain, str(paths[0])])]


def remove(home: Home, *, kind: Kind | None = None, run: Run = run_tool) -> Done:
    """Unload and delete the files; what was learned stays. No schedule is no error."""
    kind = kind or kind_here()
    paths = [path for path in files(kind, job(home, "00:00")) if path.is_file()]
    if kind == "systemd":
        steps = [["systemctl", "--user", "disable", "--now", f"{NAME}.timer"]]
    else:
        steps = [["launchctl", "bootout", f"gui/{os.getuid()}/{LABEL}"]]
    failed = [step for step in steps if paths and run(step)[0]]
    for path in paths:
        path.unlink()
    if kind == "systemd" and paths:
        run(["systemctl", "--user", "daemon-reload"])
    notes = tuple(f"not unloaded; it ends with this session: {shlex.join(step)}" for step in failed)
    return Done(kind, tuple(map(str, paths)), loaded=False, notes=notes)


@dataclass(frozen=True)
class Scheduled:
    """What is installed. at: None if nothing is. command: what it runs. loaded: None: cannot be known."""

    kind: Kind
    files: tuple[str, ...]
    at: str | None
    command: tuple[str, ...]
    loaded: bool | None
    says: str = ""


def status(home: Home, *, kind: Kind | None = None, run: Run = run_tool) -> Scheduled:
    """What is installed, from the files and from the system. Files of another make are named as such."""
    kind = kind or kind_here()
    paths = [path for path in files(kind, job(home, "00:00")) if path.is_file()]
    if not paths:
        return Scheduled(kind, (), None, (), None)
    try:
        at, command = read(kind, paths)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        return Scheduled(
            kind, tuple(map(str, paths)), None, (), None, f"cannot be read: {type(error).__name__}"
        )
    if kind == "systemd":
        code, said = run(["systemctl", "--user", "is-enabled", f"{NAME}.timer"])
    else:
        code, said = run(["launchctl", "print", f"gui/{os.getuid()}/{LABEL}"])
    known = None if code == 127 or "bus" in said else code == 0
    return Scheduled(kind, tuple(map(str, paths)), at, command, known, said.splitlines()[0] if said else "")


def read(kind: Kind, paths: Sequence[Path]) -> tuple[str, tuple[str, ...]]:
    """The time and the command in files that `install` wrote."""
    if kind == "launchd":
        value = plistlib.loads(paths[0].read_bytes())
        when = value["StartCalendarInterval"]
        return f"{when['Hour']:02d}:{when['Minute']:02d}", tuple(value["ProgramArguments"])
    text = "\n".join(path.read_text("utf-8") for path in paths)
    at = re.search(r"^OnCalendar=\*-\*-\* (\d\d:\d\d):00$", text, re.MULTILINE)
    command = re.search(r"^ExecStart=(.+)$", text, re.MULTILINE)
    if not at or not command:
        raise ValueError("not ours")
    words = shlex.split(command[1])
    return at[1], tuple(word.replace("%%", "%").replace("$$", "$") for word in words)
