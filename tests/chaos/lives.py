"""Children of one process that has everything imported: what they promised, and how they ended.

A child is forked, so that a life costs no start. The process that forks computes nothing with MLX itself: its
threads would not be there in the child. What one child had to import it imports for those that follow.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos import seam
from mlx_plastic.cli.main import MACHINE_FAULTS
from mlx_plastic.errors import PlasticError

Tell = Callable[[str], None]

PATIENCE_S = 240  # a child that is not done then hangs
TOLD, BUG = 3, 4  # exit codes of a child: told what is wrong, or a fault of ours


@dataclass(frozen=True)
class Fault:
    """What happens at the `place`-th change of a file. mode: of seam.MODES, or "" for nothing."""

    mode: str = ""
    place: int = 0
    seconds: int = 0  # of a clock that jumps


@dataclass(frozen=True)
class Ended:
    """promised: lines that the child told. code: 0, TOLD, BUG, or minus a signal; said: why."""

    code: int
    promised: tuple[str, ...]
    said: str = ""
    hits: int = 0
    places: int = 0

    @property
    def hit(self) -> bool:
        return self.hits > 0 or self.code == -signal.SIGKILL


class Child:
    """A forked process that does `work`; what it tells is promised once the line is out."""

    def __init__(self, work: Callable[[Tell], object], fault: Fault | None = None) -> None:
        self.lines, end = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.lines)
            os._exit(_live(work, fault or Fault(), end))
        os.close(end)
        self._file = os.fdopen(self.lines, "rb")

    def line(self) -> str:
        """The next line, or "" at the end."""
        return self._file.readline().decode().rstrip("\n")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def end(self, earlier: tuple[str, ...] = ()) -> Ended:
        """Wait for it. earlier: lines that were read by `line`."""
        rest = self._file.read().splitlines(keepends=True)
        lines = (*earlier, *(part.decode() for part in rest if part.endswith(b"\n")))  # one may be cut off
        self._file.close()
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        promised = tuple(line.strip() for line in lines if not line.startswith("\t"))
        report = next((json.loads(line) for line in reversed(lines) if line.startswith("\t")), {})
        for name in report.pop("imported", ()):  # so that the next child need not
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        return Ended(code, promised, **report)


def _live(work: Callable[[Tell], object], fault: Fault, end: int) -> int:
    report: dict[str, Any] = {}
    known = set(sys.modules)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(PATIENCE_S)
    _silence()

    def tell(line: str) -> None:
        os.write(end, f"{line}\n".encode())

    if fault.mode:
        seam.arm(fault.mode, fault.place, fault.seconds)
    try:
        work(tell)
        code = 0
    except PlasticError as error:
        code, report["said"] = TOLD, str(error)
    except OSError as error:
        code = TOLD if error.errno in MACHINE_FAULTS else BUG
        report["said"] = str(error) if code == TOLD else traceback.format_exc()
    except BaseException:
        code, report["said"] = BUG, traceback.format_exc()
    report |= {"hits": seam.hits(), "places": seam.places(), "imported": sorted(set(sys.modules) - known)}
    seam.disarm()
    report["said"] = report.get("said", "")[-4000:]
    os.write(end, f"\t{json.dumps(report)}\n".encode())
    return code


def _silence() -> None:
    """What a command prints is not looked at here."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def done(work: Callable[[Tell], object], fault: Fault | None = None) -> Ended:
    """What a child that does `work` came to."""
    return Child(work, fault).end()


def found(work: Callable[[], Any]) -> Any:
    """What `work` gives back, computed in a child. Raises AssertionError with its traceback if it fails."""

    def tells(tell: Tell) -> None:
        tell(json.dumps(work()))

    ended = done(tells)
    if ended.code:
        raise AssertionError(ended.said or f"ended with {ended.code}")
    return json.loads(ended.promised[-1])


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
