"""One process of a launch, on its host: `python -m mlx_plastic.sleep.launch.worker FOLDER`.

The first has the job in FOLDER and tells it to the others, so that they need only the program and the base.
What it has to say goes line by line to stdout, where the night reads it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from mlx_plastic.backend import World, mx, world
from mlx_plastic.base import load_base
from mlx_plastic.base.model import Base
from mlx_plastic.errors import BaseMismatch, PlasticError
from mlx_plastic.home import write_atomic
from mlx_plastic.packs.train.train import Progress, train
from mlx_plastic.sleep.launch.job import JOB, MARK, TRAINED, WISH, Job, trained_bytes


class Halted(BaseException):
    """The night has asked to stop, or is gone: the state is kept and all processes end."""


def main(folder: Path) -> int:
    everyone = world()
    say(everyone, pid=os.getpid())
    try:
        _work(folder, everyone)
    except Halted:
        return 0
    except PlasticError as error:
        say(everyone, error=error.message, hint=error.hint)
        return 1
    except OSError as error:
        say(everyone, error=f"{type(error).__name__}: {error.strerror}", hint="")
        return 1
    return 0


def _work(folder: Path, everyone: World) -> None:
    with everyone.watched() as dog:
        data = everyone.told((folder / JOB).read_bytes() if everyone.first else None)
        assert data is not None
        job = Job.from_bytes(data)
        dog.feed()
        base = _base(job, everyone)
    trained = train(
        base,
        job.train,
        job.valid,
        job.config,
        ranks=job.ranks,
        start=job.start,
        checkpoint=folder,
        on_progress=lambda p: _tell(p, everyone),
        enough=lambda: _wished(folder, job.night, everyone),
    )
    if everyone.first:
        write_atomic(folder / TRAINED, trained_bytes(trained))


def _base(job: Job, everyone: World) -> Base:
    """The base on this host. Raises BaseMismatch in every process if it is another one in any."""
    base = load_base(job.base)
    other = mx.zeros(everyone.size, mx.int32)
    other[everyone.rank] = int(base.fingerprint != job.fingerprint)
    (others,) = everyone.summed(other)
    if ranks := [rank for rank, count in enumerate(others.tolist()) if count]:  # type: ignore[arg-type]
        raise BaseMismatch(
            f"{job.base} is another checkpoint on host {', '.join(map(str, ranks))} than in this night",
            hint="copy the same files to every host",
        )
    return base


def _tell(progress: Progress, everyone: World) -> None:
    if everyone.first:
        say(everyone, progress=dataclasses.asdict(progress))


def _wished(folder: Path, night: int, everyone: World) -> str:
    """What the night wants, read by the first process and the same in all: a reason to end here, or none.

    Raises Halted to stop and go on later.
    """
    told = everyone.told(_wish(folder, night) if everyone.first else None)
    if told is None:
        return ""
    wish = json.loads(told)
    if wish["stop"]:
        raise Halted
    return str(wish["reason"])


def _wish(folder: Path, night: int) -> bytes | None:
    try:
        return (folder / WISH).read_bytes()
    except FileNotFoundError:
        return None if _is_there(night) else b'{"stop": true}'


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def say(everyone: World, **what: Any) -> None:
    """In one write, so that what several processes say is not mixed up."""
    line = MARK + json.dumps({"rank": everyone.rank} | what) + "\n"
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), line.encode("ascii"))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
