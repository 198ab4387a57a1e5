"""`plastic sleep --launch`: real processes over the loopback ring learn what one process learns."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import mlx_plastic.packs.train.train as trainer
from mlx_plastic.backend import World, mx
from mlx_plastic.base import Base, load_base
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadConfig, TrainingFailed
from mlx_plastic.home import Home
from mlx_plastic.packs import Pack, Store
from mlx_plastic.packs.train.train import train
from mlx_plastic.samples import Encoded
from mlx_plastic.sleep.journal import nights
from mlx_plastic.sleep.launch import Hosts, launched, read_hosts
from mlx_plastic.sleep.launch.hosts import FIRST_PORT, free_ports
from mlx_plastic.sleep.launch.job import Job, read_trained, trained_bytes
from mlx_plastic.sleep.night import Settings, sleep
from mlx_plastic.sleep.stop import Stop
from nightly import write_config
from test_night import CHOSEN, say

HERE = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}
PLAIN = dataclasses.replace(
    CHOSEN,
    judge=dataclasses.replace(CHOSEN.judge, canaries=0, commands=0),
    # a second training has another seed; and what the base itself said has no gradient at the first step
    # but rounding, of which Adam makes whole steps: then already another order of sums is another pack
    night=dataclasses.replace(CHOSEN.night, tries=1, anchor=0.0),
)
CLOSE = 1e-3  # sums in another order: 1.4e-5 after 15 steps here


@pytest.fixture(scope="module")
def base(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    file = tmp_path / "hosts.json"
    file.write_text(json.dumps([HERE, HERE]))
    return read_hosts(file)


def learned(home: Home, chosen: Settings, base: Base, **asked: Any) -> Pack:
    """The pack that a night makes of a copy of the home."""
    root = Path(
        shutil.copytree(home.root, home.root.with_name(f"copy{len(list(home.root.parent.iterdir()))}"))
    )
    night = sleep(Home(root), base, chosen=chosen, tag="n", **asked)
    assert night.outcome in ("passed", "failed"), night.reason
    return Store(Home(root)).read("n")


def distance(one: Pack, other: Pack) -> float:
    """How far two packs are apart, as a share of what the first changes: Frobenius norms of the updates."""
    assert one.manifest.data == other.manifest.data  # they learned the same
    a, b = ({p: f.b.astype("f4") @ f.a.astype("f4") for p, f in x.factors.items()} for x in (one, other))
    return math.sqrt(sum(((a[p] - b[p]) ** 2).sum() for p in a) / sum((a[p] ** 2).sum() for p in a))


class Deaf(World):
    """The first of two processes, that never hears of the other's gradients."""

    def summed(self, *arrays: mx.array) -> tuple[mx.array, ...]:
        return arrays

    def told(self, data: bytes | None) -> bytes | None:
        return data


def samples(count: int, seed: int = 0) -> list[Encoded]:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(6, 20, count)
    return [Encoded(tuple(map(int, draw.integers(5, 300, n))), (False,) + (True,) * (n - 1)) for n in lengths]


# --- the same pack


def test_a_night_on_two_hosts_makes_the_pack_of_one_process(
    home: Home, base: Base, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(home)
    write_config(home, PLAIN, base.path)
    alone = learned(home, PLAIN, base)
    monkeypatch.setattr(trainer, "world", lambda: Deaf(0, 2))
    deaf = learned(home, PLAIN, base)
    monkeypatch.undo()
    line = ["--home", str(home.root), "sleep", "--launch", str(hosts.file), "--tag", "n", "--json"]
    done = CliRunner().invoke(plastic, line)
    assert json.loads(done.stdout)["outcome"] in ("passed", "failed"), done.output
    (journal,) = nights(home)
    assert journal.record.stages["train"].facts["steps"] > 5
    assert not journal.path("checkpoint").exists()  # the tokens of what was said are gone
    assert distance(alone, Store(home).read("n")) < CLOSE
    assert distance(alone, deaf) > 50 * CLOSE  # control: gradients that nobody sums


def test_a_job_and_its_outcome_come_back_as_they_were(base: Base) -> None:
    config = dataclasses.replace(PLAIN.night, epochs=1, anchor=0.5)
    given = [dataclasses.replace(s, soft=i % 2 == 0) for i, s in enumerate(samples(5))]
    job = Job("nano", "f" * 64, 7, config, given, [], {"model.layers.0.mlp.up_proj": 2})
    assert Job.from_bytes(job.to_bytes()) == job
    trained = train(base, given, [], config)
    back = read_trained(trained_bytes(trained))
    assert back.report == trained.report
    for path, f in trained.factors.items():
        assert (back.factors[path].a == f.a).all() and (back.factors[path].b == f.b).all()
        assert back.factors[path].alpha == f.alpha


# --- bad hosts


BAD: dict[str, tuple[object, str]] = {
    "no list": ({}, "there is no list of hosts"),
    "empty": ([], "there is no list of hosts"),
    "one": ([HERE], "there is one host only: a launch needs two or more"),
    "not this machine": ([{"ssh": "ada", "ips": ["10.0.0.2"]}, HERE], "the first host is 'ada'"),
    "no ssh": ([HERE, {"ips": ["10.0.0.2"]}], "host 1 has no ssh"),
    "an option": ([HERE, {"ssh": "-oProxyCommand=x", "ips": ["10.0.0.2"]}], "host 1 has no ssh"),
    "no ips": ([HERE, {"ssh": "ada"}], "host 1 has no ips"),
    "a name as ip": ([HERE, {"ssh": "ada", "ips": ["ada"]}], "host 1: ips is not a list of IPv4"),
    "a text": ([HERE, "ada"], "host 1 is no object"),
    "unknown key": ([HERE, HERE | {"ip": "10.0.0.2"}], "host 1: unknown key 'ip'; did you mean 'ips'"),
    "backend": ({"hosts": [HERE, HERE], "backend": "nccl"}, "backend is 'nccl', not one of ring"),
    "envs": ({"hosts": [HERE, HERE], "envs": ["A B=1"]}, "envs is not a list of texts"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_hosts_file_is_refused_before_anything_is_done(name: str, tmp_path: Path, home: Home) -> None:
    file = tmp_path / "hosts.json"
    value, why = BAD[name]
    file.write_text(json.dumps(value))
    with pytest.raises(BadConfig, match=why):
        read_hosts(file)
    done = CliRunner().invoke(plastic, ["sleep", "--launch", str(file)])
    assert done.exit_code == 1 and "it looks like [{" in done.output
    assert not home.nights.exists() or not list(home.nights.iterdir())


@pytest.mark.parametrize(
    ("data", "why"), [(b"[{", "it is no JSON: line 1"), (b"\xff", "not UTF-8"), (b"[" * 100_000, "no JSON")]
)
def test_a_file_that_is_no_json_is_refused(data: bytes, why: str, tmp_path: Path) -> None:
    file = tmp_path / "hosts.json"
    file.write_bytes(data)
    with pytest.raises(BadConfig, match=why):
        read_hosts(file)
    assert CliRunner().invoke(plastic, ["sleep", "--launch", str(tmp_path / "none")]).exit_code == 2


def test_a_dry_run_prints_the_command_and_starts_nothing(home: Home, base: Base, hosts: Hosts) -> None:
    say(home)
    write_config(home, PLAIN, base.path)
    line = ["--home", str(home.root), "sleep", "--launch", str(hosts.file), "--dry-run", "--tag", "x"]
    done = CliRunner().invoke(plastic, line)
    assert done.exit_code == 0, done.output
    assert re.search(
        r"it would train by: \S*mlx\.launch --backend ring --hostfile \S+hosts\.json", done.stdout
    )
    assert not (home.nights / "x").exists() and Store(home).names() == []


def test_ports_that_somebody_listens_on_are_passed_over() -> None:
    import socket

    first = free_ports(4)
    with socket.socket() as taken:
        taken.bind(("", first + 2))
        taken.listen()
        assert free_ports(4) > first >= FIRST_PORT


# --- a host dies, the person stops it, the night is killed


def at_step(number: int, do: Callable[[], None]) -> Callable[[str, float, float, str], None]:
    """A tick that does something once, after so many steps of training."""
    done: list[float] = []

    def tick(stage: str, step: float, *_: object) -> None:
        if stage == "training" and step >= number and not done:
            done.append(step)
            do()

    return tick


@pytest.mark.slow
def test_a_host_that_dies_ends_the_night_cleanly_and_it_goes_on_to_the_same_pack(
    home: Home, base: Base, hosts: Hosts, caplog: pytest.LogCaptureFixture
) -> None:
    say(home)
    whole = learned(home, PLAIN, base)
    caplog.set_level(logging.DEBUG, "mlx_plastic.sleep.launch")

    def kill() -> None:
        (pid,) = re.findall(r"host 1 \S+ is process (\d+)", caplog.text)
        os.kill(int(pid), signal.SIGKILL)

    with pytest.raises(TrainingFailed, match=r"on 2 hosts: host 1 \(127.0.0.1\) exited with code -9") as told:
        sleep(home, base, chosen=PLAIN, tag="n", hosts=hosts, tick=at_step(5, kill))
    assert "plastic sleep --resume --launch" in told.value.hint
    (journal,) = nights(home)
    assert journal.record.status == "running" and set(journal.record.stages) == {"lessons"}
    assert Store(home).names() == [] and Store(home).active() == ()
    assert [f.name for f in journal.path("checkpoint").iterdir()] == ["training.safetensors"]
    steps: list[float] = []
    tick = lambda stage, step, *_: steps.append(step) if stage == "training" else None  # noqa: E731
    night = sleep(home, base, chosen=PLAIN, resume=True, hosts=hosts, tick=tick)
    assert night.outcome == "passed" and min(steps) > 4  # it began where the checkpoint was
    assert distance(whole, Store(home).read("n")) < CLOSE


@pytest.mark.slow
def test_a_night_that_is_stopped_keeps_its_step_and_goes_on_without_a_launch(
    home: Home, base: Base, hosts: Hosts
) -> None:
    say(home)
    stop = Stop()
    tick = at_step(3, lambda: stop.ask("enough for today"))
    assert sleep(home, base, chosen=PLAIN, tag="n", hosts=hosts, stop=stop, tick=tick).outcome == "stopped"
    (journal,) = nights(home)
    assert [f.name for f in journal.path("checkpoint").iterdir()] == ["training.safetensors"]
    steps: list[float] = []
    more = lambda stage, step, *_: steps.append(step) if stage == "training" else None  # noqa: E731
    assert sleep(home, base, chosen=PLAIN, resume=True, tick=more).outcome == "passed"
    assert min(steps) >= 4


@pytest.mark.slow
def test_another_checkpoint_on_a_host_is_told(base: Base, hosts: Hosts, tmp_path: Path) -> None:
    other = dataclasses.replace(base, fingerprint="0" * 64)
    with pytest.raises(TrainingFailed, match="another checkpoint on host 0, 1 than in this night"):
        launched(
            other,
            samples(4),
            [],
            PLAIN.night,
            hosts=hosts,
            pulse=lambda: None,
            checkpoint=tmp_path / "checkpoint",
        )
    assert list((tmp_path / "checkpoint").iterdir()) == []


@pytest.mark.slow
def test_processes_whose_night_was_killed_end_by_themselves(
    home: Home, base: Base, hosts: Hosts, tmp_path: Path
) -> None:
    say(home)
    long = dataclasses.replace(
        PLAIN, night=dataclasses.replace(PLAIN.night, epochs=2000, checkpoint_every=20)
    )
    write_config(home, long, base.path)
    line = [str(Path(sys.executable).with_name("plastic")), "-vv", "--home", str(home.root)]
    with open(tmp_path / "said", "wb") as said:
        night = subprocess.Popen([*line, "sleep", "--tag", "n", "--launch", str(hosts.file)], stderr=said)
    state = home.nights / "n" / "checkpoint" / "training.safetensors"
    until = time.monotonic() + 120
    while not state.exists() and time.monotonic() < until:
        time.sleep(0.2)
    pids = [int(n) for n in re.findall(r"is process (\d+)", (tmp_path / "said").read_text())]
    assert len(pids) == 2 and all(is_there(pid) for pid in pids)  # control: they were at work
    night.kill()
    night.wait()
    while any(is_there(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.2)
    assert not any(is_there(pid) for pid in pids)
    assert state.exists()


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
