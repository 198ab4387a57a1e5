"""What the system starts by itself for this user: files for systemd or launchd, checked by its own tools."""

from __future__ import annotations

import contextlib
import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mlx_plastic.errors import PlasticError
from mlx_plastic.home import Home, write_atomic

Kind = Literal["systemd", "launchd"]
PROGRAM = "from mlx_plastic.cli.main import main; main()"  # found wherever the interpreter is
TOOL_S = 60.0  # a server that is stopped says first what it is saying

Run = Callable[[Sequence[str]], tuple[int, str]]


@dataclass(frozen=True)
class Unit:
    """Files by path, and the name by which the system's own tool loads and unloads them."""

    kind: Kind
    name: str
    files: Mapping[Path, bytes]

    @property
    def there(self) -> list[Path]:
        return [path for path in self.files if path.is_file()]


@dataclass(frozen=True)
class Done:
    """What was written or removed, what the system's tools said, and what is left for the person to do."""

    kind: Kind
    files: tuple[str, ...]
    checked: tuple[str, ...] = ()  # by which tools
    loaded: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What is installed. command: what it runs. loaded: None: cannot be known."""

    kind: Kind
    files: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    loaded: bool | None = None
    says: str = ""


def kind_here(platform: str = sys.platform) -> Kind:
    if platform == "darwin":
        return "launchd"
    if platform.startswith("linux"):
        return "systemd"
    raise PlasticError(
        f"no schedule for {platform}", hint="run `plastic schedule run` from a scheduler of yours"
    )


def folder(kind: Kind, environ: Mapping[str, str] | None = None) -> Path:
    """Where the system looks for files of this user."""
    env = os.environ if environ is None else environ
    user = Path(env.get("HOME") or "~").expanduser()
    if kind == "launchd":
        return user / "Library" / "LaunchAgents"
    return Path(env.get("XDG_CONFIG_HOME") or user / ".config") / "systemd" / "user"


def plastic(home: Home, *arguments: str, python: str = sys.executable) -> tuple[str, ...]:
    """A command of ours for this home, absolute and without a shell."""
    return (python, "-c", PROGRAM, "--home", str(home.root), *arguments)


def exec_start(command: Sequence[str]) -> str:
    """For ExecStart, where % and $ mean something."""
    return " ".join(_quoted(word) for word in command)


def _quoted(word: str) -> str:
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


def install(home: Home, unit: Unit, run: Run = run_tool) -> Done:
    """Write the files, have them checked, and load them. May be repeated: what is new replaces what was.

    Raises PlasticError if they cannot be written, or if the system's own tool finds them at fault; then what
    was there before is back.
    """
    before = {path: path.read_bytes() if path.is_file() else None for path in unit.files}
    try:
        home.logs.mkdir(parents=True, exist_ok=True)
        for path, data in unit.files.items():
            write_atomic(path, data)
        checked = check(unit.kind, list(unit.files), run)
    except (OSError, PlasticError) as error:
        with contextlib.suppress(OSError):
            for path, old in before.items():
                path.unlink(missing_ok=True) if old is None else write_atomic(path, old)
        if isinstance(error, OSError):
            raise _unwritable(unit, error) from error
        raise
    loaded, notes = _load(unit, run)
    return Done(unit.kind, tuple(map(str, unit.files)), checked, loaded, notes)


def _unwritable(unit: Unit, error: OSError) -> PlasticError:
    where = next(iter(unit.files)).parent
    return PlasticError(
        f"the files of {unit.name} cannot be changed in {where}: {error.strerror}", hint="check who owns it"
    )


def check(kind: Kind, paths: Sequence[Path], run: Run) -> tuple[str, ...]:
    """Let the system's own tool read the files, where it is there and can work; returns its name."""
    tool = ["plutil", "-lint"] if kind == "launchd" else ["systemd-analyze", "--user", "verify"]
    if not shutil.which(tool[0]):
        return ()
    with tempfile.TemporaryDirectory() as made:  # systemd wants one, also where nobody is logged in
        ahead = [] if os.environ.get("XDG_RUNTIME_DIR") else ["env", f"XDG_RUNTIME_DIR={made}"]
        code, said = run([*(ahead if kind == "systemd" else ()), *tool, *map(str, paths)])
    if any(path.name in said for path in paths) and (code or kind == "systemd"):
        raise PlasticError(
            f"{tool[0]} finds fault with the files: {said[:500]}", hint="nothing was installed"
        )
    return () if code else (tool[0],)


def _load(unit: Unit, run: Run) -> tuple[bool, tuple[str, ...]]:
    for optional, step in _load_steps(unit):
        code, said = run(step)
        if code and not optional:
            told = f"not loaded: {said.splitlines()[0] if said else f'exit {code}'}"
            return False, (told, f"to load it yourself: {shlex.join(step)}")
    return True, ()


def _load_steps(unit: Unit) -> list[tuple[bool, list[str]]]:
    """(may fail, command), in order."""
    if unit.kind == "systemd":
        enable = ["systemctl", "--user", "enable", "--now", unit.name]
        return [(False, ["systemctl", "--user", "daemon-reload"]), (False, enable)]
    domain = f"gui/{os.getuid()}"
    out = ["launchctl", "bootout", f"{domain}/{unit.name}"]  # an older one, if there is one
    return [(True, out), (False, ["launchctl", "bootstrap", domain, str(next(iter(unit.files)))])]


def remove(unit: Unit, run: Run = run_tool) -> Done:
    """Unload and delete the files. None there is no error. Raises PlasticError if they cannot be deleted."""
    paths = unit.there
    if unit.kind == "systemd":
        step = ["systemctl", "--user", "disable", "--now", unit.name]
    else:
        step = ["launchctl", "bootout", f"gui/{os.getuid()}/{unit.name}"]
    failed = bool(paths) and run(step)[0] != 0
    try:
        for path in paths:
            path.unlink()
    except OSError as error:
        raise _unwritable(unit, error) from error
    if unit.kind == "systemd" and paths:
        run(["systemctl", "--user", "daemon-reload"])
    notes = (f"not unloaded; it ends with this session: {shlex.join(step)}",) if failed else ()
    return Done(unit.kind, tuple(map(str, paths)), notes=notes)


def look(unit: Unit, run: Run = run_tool) -> Found:
    """What is installed, from the files and from the system. Files of another make are named as such."""
    paths = unit.there
    if not paths:
        return Found(unit.kind)
    found = Found(unit.kind, tuple(map(str, paths)))
    try:
        found = replace(found, command=command_in(unit.kind, paths))
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        return replace(found, says=f"cannot be read: {type(error).__name__}")
    if unit.kind == "systemd":
        code, said = run(["systemctl", "--user", "is-enabled", unit.name])
    else:
        code, said = run(["launchctl", "print", f"gui/{os.getuid()}/{unit.name}"])
    known = None if code == 127 or "bus" in said else code == 0
    return replace(found, loaded=known, says=said.splitlines()[0] if said else "")


def command_in(kind: Kind, paths: Sequence[Path]) -> tuple[str, ...]:
    """The command in files that `install` wrote. Raises ValueError or KeyError for others."""
    if kind == "launchd":
        return tuple(plistlib.loads(paths[0].read_bytes())["ProgramArguments"])
    text = "\n".join(path.read_text("utf-8") for path in paths)
    command = re.search(r"^ExecStart=(.+)$", text, re.MULTILINE)
    if not command:
        raise ValueError("not ours")
    return tuple(word.replace("%%", "%").replace("$$", "$") for word in shlex.split(command[1]))
