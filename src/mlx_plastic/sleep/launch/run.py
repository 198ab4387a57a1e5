"""The night's side of a launch: write the job, start the processes, pass on what they say, take the pack.

Only this process writes to the home's store and journal. The processes write their state to the night's
checkpoint, as a training without a launch does, so each can go on where the other stopped.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_plastic.base import NANO
from mlx_plastic.errors import TrainingFailed
from mlx_plastic.home import write_atomic, write_json
from mlx_plastic.packs import Pack
from mlx_plastic.packs.train.train import Progress, Trained
from mlx_plastic.samples import Encoded
from mlx_plastic.sleep.config import NightConfig
from mlx_plastic.sleep.launch.hosts import Hosts, command
from mlx_plastic.sleep.launch.job import JOB, MARK, TRAINED, WISH, Job, read_trained

if TYPE_CHECKING:
    from mlx_plastic.base import Base

log = logging.getLogger(__name__)

LOOK_S = 0.5  # between two looks whether the night is to stop
GRACE_S = 120.0  # for a step to end that was begun when somebody asked to stop
WHY = re.compile(r"\w+(Error|Exception): ")  # the last line of a traceback
GONE = re.compile(r"Node with rank (\d+) (exited with code -?[1-9]\d*)")  # what mlx.launch says


def launched(
    base: Base,
    train: Sequence[Encoded],
    valid: Sequence[Encoded],
    config: NightConfig,
    *,
    hosts: Hosts,
    pulse: Callable[[], None],
    checkpoint: Path,
    ranks: Mapping[str, int] | None = None,
    start: Pack | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    enough: Callable[[], str] | None = None,
) -> Trained:
    """As `train`, by one process on each host; the factors are those of one process, up to rounding.

    pulse: called twice a second; what it raises stops the processes after their step, and their state is
    kept. Raises TrainingFailed when a host fails: the state of the last checkpoint is kept to go on from.
    """
    checkpoint.mkdir(parents=True, exist_ok=True)
    job = Job(_ref(base), base.fingerprint, os.getpid(), config, train, valid, ranks, start)
    with _only_now(checkpoint, JOB, WISH, TRAINED):
        write_atomic(checkpoint / JOB, job.to_bytes())
        heard = _Heard(hosts)
        log.info("training on %d hosts by %s", len(hosts.hosts), hosts.backend)
        with _started(command(hosts, checkpoint), checkpoint) as lines:
            for line in lines:
                pulse()
                if (step := heard.hear(line)) and on_progress:
                    on_progress(step)
                if step and enough and (why := enough()):
                    write_json(checkpoint / WISH, {"stop": False, "reason": why})
        try:
            data = (checkpoint / TRAINED).read_bytes()  # whole, whatever befell a process after it
        except FileNotFoundError:
            raise heard.failure() from None
        return read_trained(data)


class _Heard:
    """What the processes and mlx.launch have said so far."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.error: TrainingFailed | None = None
        self.gone = ""
        self.why = ""

    def hear(self, line: str) -> Progress | None:
        if found := GONE.search(line):
            self.gone = self.gone or f"{self.hosts.name(int(found[1]))} {found[2]}"
        mark = line.find(MARK)
        said = _parsed(line[mark + len(MARK) :]) if mark >= 0 else None
        if said is None:
            self.why = self.why or (line.strip() if WHY.match(line) else "")
            return None
        if "pid" in said:
            log.debug("%s is process %d", self.hosts.name(said["rank"]), said["pid"])
        if "error" in said:
            told = f"{self.hosts.name(said['rank'])}: {said['error']}"
            self.error = self.error or TrainingFailed(told, hint=said["hint"] or self._hint())
        return Progress(**said["progress"]) if "progress" in said else None

    def failure(self) -> TrainingFailed:
        """Why there is no pack, as far as anybody said."""
        why = f"{self.gone}{self.why and f': {self.why[:200]}'}" if self.gone else "they ended without a pack"
        told = f"training on {len(self.hosts.hosts)} hosts: {why}"
        return self.error or TrainingFailed(told, hint=self._hint())

    def _hint(self) -> str:
        return f"mend that host, then: plastic sleep --resume --launch {self.hosts.file}; or without --launch"


@contextlib.contextmanager
def _started(given: list[str], checkpoint: Path) -> Iterator[Iterator[str]]:
    """The lines that the processes print until all have ended; an empty one when there was none for a while.

    In a session of their own, so that a Ctrl-C reaches only the night, which stops them after their step.
    """
    process = subprocess.Popen(
        given,
        stdin=subprocess.PIPE,  # never written to: mlx.launch reads without a pause from what has ended
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    lines = _lines(process)
    try:
        yield lines
    except BaseException:
        write_json(checkpoint / WISH, {"stop": True})
        until = time.monotonic() + GRACE_S
        for _ in lines:
            if time.monotonic() > until:
                break
        raise
    finally:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)  # what is left of them, at the end or after an error
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    assert process.stdout is not None
    descriptor, rest = process.stdout.fileno(), b""
    while True:
        ready, _, _ = select.select([descriptor], [], [], LOOK_S)
        if not ready:
            yield ""
            continue
        data = os.read(descriptor, 1 << 16)
        *whole, rest = (rest + data).split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in whole)
        if not data:
            return


@contextlib.contextmanager
def _only_now(folder: Path, *names: str) -> Iterator[None]:
    """These files are not there before and after: they hold what was said, as tokens."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
    try:
        yield
    finally:
        for name in names:
            (folder / name).unlink(missing_ok=True)


def _ref(base: Base) -> str:
    """How another host finds this base: built in, by its hub id, or in the same folder."""
    is_folder = base.ref != NANO and Path(base.ref).expanduser().is_dir()
    return str(base.path) if is_folder else base.ref


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
