"""Run Python that a model wrote: in a child of its own, with little time and memory, no network, no files.

Layers, each there whether or not the others hold: limits of the kernel on cpu time, memory and file size; on
Linux, where the kernel lets us, namespaces of its own without a network and with nothing outliving it, and
Landlock, by which it can write in its empty folder alone and read nothing else but Python's own library; and
in the child an audit hook that denies processes, sockets, foreign code and files (`sandbox_child.py`). The
program never runs in this process and sees none of its variables. On macOS the limits and the hook are all
there is, and a hook can be got around by those who try: ask strange models for code in a virtual machine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

log = logging.getLogger(__name__)

CHILD = Path(__file__).with_name("sandbox_child.py")
SHOWN = 64_000  # bytes of what it prints that are read
NAMESPACES = ("--user", "--map-root-user", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child")


@dataclass(frozen=True)
class Limits:
    """What a program may use."""

    cpu_s: int = 4
    wall_s: float = 8.0
    memory_mb: int = 512
    file_kb: int = 1024  # of each file that it writes, its output included


@dataclass(frozen=True)
class Ran:
    """How a program ended.

    error: the name of the exception that ended it, never what it said. layers: what kept it in.
    """

    outcome: Literal["done", "failed", "timeout"]
    stdout: str = ""
    error: str = ""
    layers: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.outcome == "done"


def run_python(program: str, *, tests: str = "", limits: Limits | None = None) -> Ran:
    """Run `program` and then `tests` in its namespace, where `_` is the value of its last expression.

    Done means that both came to their end; what they print is `stdout`, cut at 64 kB.
    """
    limits, word = limits or Limits(), secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="plastic-sandbox-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        (room := root / "room").mkdir()
        (root / "program.py").write_text(program, "utf-8", "replace")
        (root / "tests.py").write_text(tests, "utf-8", "replace")
        out = root / "out"
        in_time = _run([*_alone(), *_command(root, room, limits)], room, out, limits, word)
        shown = out.read_bytes()[:SHOWN].decode("utf-8", "replace")
        said, *held = _said(root / "done")
    if not in_time:
        return Ran("timeout", shown)
    layers = ("limits", *(("namespaces",) if _alone() else ()), *filter(None, held), "audit hook")
    return Ran("done", shown, "", layers) if said == word else Ran("failed", shown, said or "killed", layers)


def _said(done: Path) -> list[str]:
    try:
        return done.read_text("utf-8", "replace").split("\n")
    except FileNotFoundError:
        return [""]


def _command(root: Path, room: Path, limits: Limits) -> list[str]:
    given = [str(value) for value in asdict(limits).values()]
    return [sys.executable, "-I", "-S", "-B", "-X", "utf8", str(CHILD), str(root), str(room), *given]


def _run(command: Sequence[str], room: Path, out: Path, limits: Limits, word: str) -> bool:
    """Whether it ended in time. Afterwards nothing of it runs any more."""
    with open(out, "wb") as file:
        child = subprocess.Popen(
            command,
            cwd=room,
            env={"PATH": os.defpath, "HOME": str(room), "TMPDIR": str(room), "LANG": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that all of it can be ended at once
        )
    try:
        child.communicate(word.encode() + b"\n", limits.wall_s)
        return True
    except subprocess.TimeoutExpired:
        return False
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@cache
def _alone() -> tuple[str, ...]:
    """The command that gives a child namespaces of its own; () where that is not to be had."""
    tool = shutil.which("unshare") if sys.platform == "linux" else None
    command = (tool, *NAMESPACES, "--") if tool else ()
    if command and subprocess.run([*command, "true"], capture_output=True, timeout=10).returncode == 0:
        return tuple(command)
    log.info("no namespaces here: programs that a model wrote are kept in by limits and an audit hook alone")
    return ()
