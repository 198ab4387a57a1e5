"""Nights from the command line: what is told before, stopped, gone on with, bounded, listed and compared."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlx_plastic.base import Base, load_base
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadConfig
from mlx_plastic.home import Home
from mlx_plastic.memory import Exchange, Memory
from mlx_plastic.packs import Store
from mlx_plastic.samples import part_of
from mlx_plastic.sleep.config import BudgetConfig
from mlx_plastic.sleep.digest import digest
from mlx_plastic.sleep.fit import needed_mb, within
from mlx_plastic.sleep.journal import Journal, nights
from mlx_plastic.sleep.night import Settings, sleep
from mlx_plastic.sleep.preflight import needs
from mlx_plastic.sleep.stop import Stop, Stopped
from nightly import write_config
from test_night import CHOSEN, STRICT, pack_digest, say, waiting

PLAIN = dataclasses.replace(CHOSEN, judge=dataclasses.replace(CHOSEN.judge, canaries=0, commands=0))


@pytest.fixture(scope="module")
def base(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory, base: Base) -> Path:
    """A home with a night that passed, one that failed, and turns that wait; to be copied."""
    home = Home(tmp_path_factory.mktemp("life"))
    say(home, 8)
    assert sleep(home, base, chosen=PLAIN, tag="one").outcome == "passed"
    say(home, 8, word="Tom")
    strict = dataclasses.replace(PLAIN, gate=STRICT.gate)
    assert sleep(home, base, chosen=strict, tag="two").outcome == "failed"
    say(home, 8, word="Kim", whose="Bob's ")
    write_config(home, PLAIN, base.path)
    return home.root


@pytest.fixture
def home(life: Path, home: Home) -> Home:
    shutil.copytree(life, home.root, symlinks=True, dirs_exist_ok=True)
    return home


def run(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(plastic, ["--home", str(home.root), *arguments])


# --- looking back


def test_nights_are_listed_shown_and_compared_without_a_word_of_what_was_said(home: Home) -> None:
    found = json.loads(run(home, "nights", "list", "--json").stdout)
    assert [(n["tag"], n["status"], n["pack"]) for n in found] == [
        ("one", "passed", "active"),
        ("two", "failed", "quarantined"),
    ]
    assert all(n["tokens_per_s"] > 0 and n["peak_memory_mb"] > 0 and n["seconds"] > 0 for n in found)
    shown = json.loads(run(home, "nights", "show", "one", "--json").stdout)
    assert set(shown["stages"]) == {"lessons", "train", "judge"} and shown["evidence"]["verdict"]["passed"]
    assert shown["pack"]["tensor_bytes"] > 0 and shown["turns"] == 16
    differ = json.loads(run(home, "nights", "diff", "one", "two", "--json").stdout)
    assert differ["settings"]["gate.min_new_gain"] == [PLAIN.gate.min_new_gain, 99.0]
    assert "night_loss" in differ["scores"]
    plain = [run(home, "nights", *a) for a in (("list",), ("show", "two"), ("diff", "one", "two"))]
    assert "FAILED" in plain[1].stdout and all(p.exit_code == 0 for p in plain)
    assert not any(word in p.output for p in plain for word in ("Rex", "Tom", "cat"))


def test_timing_peak_memory_and_speed_stand_in_the_manifest(home: Home) -> None:
    manifest = Store(home).read("one").manifest
    assert set(manifest.evals["timing"]) == {"lessons", "train", "judge"}
    assert manifest.run.tokens_per_s > 0 and manifest.run.peak_memory_mb > 0


def test_a_night_that_there_was_not_is_named_with_the_nearest(home: Home) -> None:
    told = run(home, "nights", "show", "onee")
    assert told.exit_code == 1 and "did you mean 'one'?" in told.output


def test_the_digest_tells_breaches_and_what_waits_and_is_a_file_too(home: Home) -> None:
    found = json.loads(run(home, "digest", "--nights", "2", "--write", "--json").stdout)
    assert (found["worn"], found["waiting"]) == ("one", 16)  # the failed night's turns wait to be asked for
    assert len(found["breaches"]) == 1 and found["adapter"].startswith("one-")
    page = (home.root / "digest.md").read_text()
    assert "## Night two: failed" in page and "99.000 is needed" in page
    assert not any(word in page for word in ("Rex", "Tom", "Kim"))
    assert digest(home).urgent and digest(home).headline.startswith("night two failed")


# --- before


@pytest.mark.parametrize(("given", "level"), [("--verbose", "INFO"), ("--json", "WARNING")])
def test_a_night_says_more_if_it_is_asked_where_older_tools_were_asked(
    home: Home, given: str, level: str
) -> None:
    run(home, "sleep", "--preflight", given)
    assert logging.getLevelName(logging.getLogger("mlx_plastic").level) == level


def test_preflight_tells_turns_minutes_memory_and_disk_and_does_nothing(home: Home) -> None:
    before = sorted(p.name for p in home.nights.iterdir())
    found = json.loads(run(home, "sleep", "--preflight", "--json").stdout)
    assert found["turns"] == 16 and found["nights"] == 2
    assert 0 < found["fastest"] <= found["minutes"] <= found["slowest"]
    assert found["memory_mb"] > 0 and found["fits_disk"]
    assert sorted(p.name for p in home.nights.iterdir()) == before
    assert needs(home, 16, most=10).over == 6
    many = needs(home, 20 * 16, most=1000)  # minutes are told in hundredths, and these nights take seconds
    assert found["minutes"] < (many.minutes or 0) < 20 * found["minutes"] + 0.2  # more turns, more time
    assert needs(home, 16, most=10, fingerprint="of another base").minutes is None


def test_a_night_that_will_not_fit_on_the_disk_is_refused_before_it_begins(
    home: Home, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(home.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5_000_000))
    told = run(home, "sleep", "--tag", "three")
    assert told.exit_code == 1 and "MB of disk, and 5 MB are free" in told.output
    assert not (home.nights / "three").exists()


def test_batches_shrink_until_the_memory_is_enough_and_not_below_the_least(base: Base) -> None:
    night = dataclasses.replace(CHOSEN.night, batch_tokens=4096, cache_mb=256)
    whole = needed_mb(night, base)
    assert within(night, base, whole) == night  # control
    less = within(night, base, 0.9 * whole)
    assert needed_mb(less, base) <= 0.9 * whole
    assert (less.batch_tokens, less.cache_mb) != (night.batch_tokens, night.cache_mb)
    with pytest.raises(BadConfig, match="at the least"):
        within(night, base, 100.0)


@pytest.mark.parametrize(
    "arguments", [("--resume", "--tag", "x"), ("--resume", "--retry"), ("--minutes", "0")]
)
def test_options_that_contradict_each_other_are_wrong_usage(home: Home, arguments: tuple[str, ...]) -> None:
    assert run(home, "sleep", *arguments).exit_code == 2
    assert run(home, "sleep", "--reset-adapter", "--adapter-tag", "one").exit_code == 2


def test_a_budget_that_is_none_is_refused() -> None:
    with pytest.raises(BadConfig, match="turns is 0, less than 1"):
        BudgetConfig(turns=0).check()
    with pytest.raises(BadConfig, match="minutes is nan"):
        BudgetConfig(minutes=float("nan")).check()


# --- stopping and going on

CHILD = """
import os, signal, sys
from mlx_plastic.cli.main import main
from mlx_plastic.sleep.doors import Doors
real = Doors.tick
def tick(self, stage, done, total, detail):
    if f"{stage} {done:g}" == os.environ["AT"]:
        os.kill(os.getpid(), signal.SIGTERM)
    real(self, stage, done, total, detail)
Doors.tick = tick
sys.argv = ["plastic", *sys.argv[1:]]
main()
"""


def stopped(home: Home, at: str) -> subprocess.CompletedProcess[str]:
    """`plastic sleep` in a process of its own, which gets a SIGTERM when it comes to `at`."""
    command = [sys.executable, "-c", CHILD, "--home", str(home.root), "sleep", "--tag", "three"]
    env = os.environ | {"AT": at}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=280)


@pytest.fixture(scope="module")
def undisturbed(life: Path, tmp_path_factory: pytest.TempPathFactory, base: Base) -> str:
    root = shutil.copytree(life, tmp_path_factory.mktemp("same"), symlinks=True, dirs_exist_ok=True)
    assert sleep(Home(root), base, chosen=PLAIN, tag="three").outcome == "passed"
    return pack_digest(Home(root), "three")


def test_sigterm_stops_at_a_good_place_and_resume_ends_with_the_same_pack(
    home: Home, base: Base, undisturbed: str
) -> None:
    done = stopped(home, "training 3")
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "stopped by SIGTERM; done: lessons; the next night goes on from there" in done.stderr
    assert Store(home).active() == ("one",)
    assert (home.nights / "three" / "checkpoint").is_dir()  # step 3 was kept, though every second one is
    say(home, 3, word="Leo", whose="Eve's ")  # a chat meanwhile is not lost, and not in this night
    changed = dataclasses.replace(PLAIN, night=dataclasses.replace(PLAIN.night, epochs=9))
    night = sleep(home, base, chosen=changed, resume=True)  # with the settings that it began with
    assert (night.outcome, night.tag) == ("passed", "three")
    assert pack_digest(home, "three") == undisturbed
    assert waiting(home) == 8 + 3  # the failed night's and the new ones


def test_a_night_stopped_before_its_lessons_learns_only_what_it_began_with(
    home: Home, base: Base, undisturbed: str
) -> None:
    stop = Stop()
    stop.ask()
    assert sleep(home, base, chosen=PLAIN, tag="three", stop=stop).outcome == "stopped"
    say(home, 3, word="Leo", whose="Eve's ")
    assert sleep(home, base, chosen=PLAIN).outcome == "passed"  # without --resume too
    assert pack_digest(home, "three") == undisturbed


def test_resume_with_nothing_broken_off_does_nothing_and_says_so(home: Home, base: Base) -> None:
    night = sleep(home, base, chosen=PLAIN, resume=True)
    assert night.outcome == "nothing" and "no night was broken off" in night.reason
    assert [j.record.tag for j in nights(home)] == ["one", "two"]


def test_resume_cleans_up_what_cannot_go_on(home: Home, base: Base) -> None:
    stop = Stop()

    def tick(stage: str, done: float, total: float, detail: str) -> None:
        if stage == "judging":
            stop.ask()

    assert sleep(home, base, chosen=PLAIN, tag="three", stop=stop, tick=tick).outcome == "stopped"
    assert "three" in Store(home).names()
    Store(home).rollback("base")
    night = sleep(home, base, chosen=PLAIN, resume=True)
    assert night.outcome == "nothing"
    assert night.reason.endswith("cannot go on: another pack is worn since; cleaned up")
    assert "three" not in Store(home).names()
    assert list((home.nights / "three").glob("*.jsonl")) == []
    assert waiting(home) == 16  # nothing that was said is lost


def test_time_that_is_up_ends_training_at_its_best_and_it_is_judged(home: Home, base: Base) -> None:
    chosen = dataclasses.replace(PLAIN, night=dataclasses.replace(PLAIN.night, epochs=40, valid_every=2))
    now = [0.0]
    stop = Stop(minutes=1, clock=lambda: now[0])

    def tick(stage: str, done: float, total: float, detail: str) -> None:
        now[0] += 61.0 if stage == "training" and done == 12 else 0.0

    night = sleep(home, base, chosen=chosen, tag="three", stop=stop, tick=tick)
    assert night.outcome in ("passed", "failed")  # it was judged; which of them hangs on random weights
    facts = next(j for j in nights(home) if j.record.tag == "three").record.stages["train"].facts
    assert facts["stopped"] == "the 1 minutes are spent" and facts["steps"] == 12
    assert Store(home).status("three") == {"passed": "active", "failed": "quarantined"}[night.outcome]


def _fresh(memory: Memory, home: Home) -> list[Exchange]:
    """What the next night takes: what no night has learned or tried."""
    return memory.unlearned(without={t for j in nights(home) for t in j.record.turns})


def test_time_that_is_up_before_anything_was_learned_breaks_the_night_off(home: Home, base: Base) -> None:
    idle = dataclasses.replace(PLAIN, night=dataclasses.replace(PLAIN.night, learning_rate=1e-30))
    with Memory(home) as memory:
        while not {"valid", "test"} <= {part_of(e.conversation) for e in _fresh(memory, home)}:
            say(home, 4, word="Kim", whose=f"Bob {len(memory.turns())}'s ")  # else nothing can be told apart
    left = waiting(home)
    now = [0.0]
    stop = Stop(minutes=1, clock=lambda: now[0])

    def tick(stage: str, *_: object) -> None:
        now[0] += 61.0 if stage == "training" else 0.0

    night = sleep(home, base, chosen=idle, tag="three", stop=stop, tick=tick)
    assert night.outcome == "stopped"
    assert "minutes are spent, before training had brought anything" in night.reason
    assert Store(home).active() == ("one",) and waiting(home) == left


def test_a_second_signal_ends_it_at_once() -> None:
    stop = Stop()
    with stop.on_signals():
        with pytest.raises(Stopped, match="stopped by SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), stop.held():
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # as it was before


# --- from where, and how many stay


def test_adapter_tag_grows_from_that_pack(home: Home, base: Base) -> None:
    night = sleep(home, base, chosen=PLAIN, tag="three", adapter_tag="base")
    assert night.outcome == "passed"
    assert Store(home).read("three").manifest.parents == ()
    told = run(home, "sleep", "--adapter-tag", "nobody")
    assert told.exit_code == 1 and "no pack 'nobody'" in told.output


def test_only_the_last_packs_of_nights_stay_and_pinned_ones_and_those_made_by_hand(
    home: Home, base: Base
) -> None:
    store, (night, _) = Store(home), nights(home)
    for name in ("night-1", "night-2", "night-3", "by-hand", "night-4"):
        pack = store.read("one")
        store.add(pack.factors, dataclasses.replace(pack.manifest, name=name))
        store.activate(name)
        if name != "by-hand":
            shutil.copytree(night.folder, home.nights / name)
            Journal(home.nights / name, dataclasses.replace(night.record, tag=name)).save()
    store.pin("night-2")
    short = dataclasses.replace(PLAIN, budget=BudgetConfig(keep=1))
    assert sleep(home, base, chosen=short, tag="three").outcome == "passed"
    assert store.names() == ["by-hand", "night-2", "night-4", "three", "two"]  # two is quarantined, and young


def test_a_night_that_lost_a_file_is_named_and_not_a_traceback(home: Home) -> None:
    (home.nights / "one" / "train.jsonl").unlink()
    told = run(home, "sleep", "--tag", "three")
    assert told.exit_code == 1 and "night one lacks its train.jsonl" in told.output


def test_a_clock_that_was_set_back_does_not_turn_the_order_of_nights_round(home: Home) -> None:
    first, second = nights(home)
    second.save(started="1999-01-01T00:00:00+00:00")
    assert [j.record.tag for j in nights(home)] == ["one", "two"]
    assert (first.record.number, second.record.number) == (1, 2)


def test_a_night_takes_no_more_turns_than_its_budget_and_the_longest_waiting_first(
    home: Home, base: Base
) -> None:
    with Memory(home) as memory:
        before = memory.unlearned(most=4)
        assert sum(t.role == "user" and t.id in e.new for e in before for t in e.turns) == 4
        everything = memory.unlearned()
        assert [e.conversation for e in before] == [e.conversation for e in everything][:4]
    chosen: Settings = dataclasses.replace(PLAIN, budget=BudgetConfig(turns=6))
    assert sleep(home, base, chosen=chosen, tag="three").outcome == "passed"
    assert waiting(home) == 16 - 6


def test_what_is_said_during_a_night_is_logged_at_once_and_waits_for_the_next(
    home: Home, base: Base, undisturbed: str
) -> None:
    said = []

    def tick(stage: str, *_: object) -> None:
        if stage == "training" and not said:
            with Memory(home) as chat:  # as `plastic chat` beside it
                said.append(chat.remember(chat.new_conversation(), "user", "My cat is called Leo."))

    assert sleep(home, base, chosen=PLAIN, tag="three", tick=tick).outcome == "passed"
    assert pack_digest(home, "three") == undisturbed
    with Memory(home) as memory:
        (waits,) = memory.unlearned(only={said[0].id})
        assert waits.new == {said[0].id}


def test_a_pack_that_has_grown_beyond_all_bounds_is_an_error_and_not_a_traceback(
    home: Home, base: Base
) -> None:
    wild = dataclasses.replace(PLAIN.night, learning_rate=30.0, valid_every=1)
    write_config(home, dataclasses.replace(PLAIN, night=wild), base.path)
    told = run(home, "sleep", "--tag", "three")
    assert told.exit_code == 1 and isinstance(told.exception, SystemExit)
    assert Store(home).active() == ("one",)
    assert "learning rate" in told.output or "FAILED" in told.output
