"""Consent is asked of every door: what is not agreed to is neither kept nor learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mlx_plastic.base import Base, load_base
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import NoConsent
from mlx_plastic.home import Home, find_home
from mlx_plastic.memory import Memory
from mlx_plastic.serve.api import ServeConfig
from mlx_plastic.sleep import sleep
from nightly import write_config
from serving import live
from test_night import CHOSEN, say


def run(home: Home, *arguments: object, says: str = "") -> Result:
    return CliRunner().invoke(plastic, ["--home", str(home.root), *map(str, arguments)], input=says)


def agree(home: Home, **told: bool) -> None:
    pairs = [word for key, value in told.items() for word in (f"consent.{key}", str(value).lower())]
    assert run(home, "config", "set", *pairs).exit_code == 0


def kept(home: Home) -> list[str]:
    with Memory(home) as memory:
        return [turn.content for turn in memory.turns()]


def test_a_chat_keeps_nothing_that_was_not_agreed_to(home: Home, checkpoint: Path) -> None:
    agree(home, log=False)
    done = run(home, "chat", "--base", checkpoint, "--max-tokens", 4, says="quincunx\n")
    assert done.exit_code == 0, done.stderr
    assert "nothing is remembered: you have not agreed to it" in done.stderr
    assert not home.memory_db.exists()
    assert b"quincunx" not in b"".join(f.read_bytes() for f in home.root.rglob("*") if f.is_file())
    agree(home, log=True)  # control
    run(home, "chat", "--base", checkpoint, "--max-tokens", 4, says="quincunx\n")
    assert kept(home)[0] == "quincunx"


def test_every_door_to_the_log_asks_for_consent(home: Home) -> None:
    with Memory(home) as memory:
        talk = memory.new_conversation()
        memory.remember(talk, "user", "before")
        agree(home, log=False)  # taken back while the log is open
        with pytest.raises(NoConsent):
            memory.remember(talk, "user", "after")
    done = run(home, "memory", "add", "after", "--json")
    assert done.exit_code == 1 and json.loads(done.stdout)["error"]["code"] == "PLASTIC-C002"
    assert kept(home) == ["before"]
    with Memory(None) as private:  # what is in no home needs none
        private.remember(private.new_conversation(), "user", "private")


def test_a_server_keeps_nothing_from_the_moment_it_is_taken_back(tmp_path: Path, checkpoint: Path) -> None:
    home = find_home(tmp_path / "home")
    with live(home, base=checkpoint, config=ServeConfig(port=0, max_tokens=4)) as server:
        server.ask("one")
        agree(home, log=False)
        server.ask("two")
        server.ask("three", memory="on")
        assert [text for role, text in server.said() if role == "user"] == ["one"]
        agree(home, log=True)
        server.ask("four")
        assert [text for role, text in server.said() if role == "user"] == ["one", "four"]
        taken_back = iter([True])
        real = server.service.diary.answer

        def answer(*arguments: Any, **named: Any) -> Any:
            if next(taken_back, False):  # between the question and its answer
                agree(home, log=False)
            return real(*arguments, **named)

        server.service.diary.answer = answer  # type: ignore[method-assign]
        server.ask("five")
        assert server.said()[-1] == ("user", "five")
    agree(home, log=False)
    done = run(home, "serve", "--memory", "--port", 0)
    assert done.exit_code == 1 and "does not allow to keep" in done.stderr


@pytest.fixture(scope="module")
def base(checkpoint: Path) -> Base:
    return load_base(str(checkpoint), cache=None)


def test_no_night_learns_what_may_not_be_learned(home: Home, base: Base, checkpoint: Path) -> None:
    write_config(home, CHOSEN, checkpoint)
    say(home, 4)
    agree(home, train=False)
    for dry_run in (False, True):
        with pytest.raises(NoConsent):
            sleep(home, base, chosen=CHOSEN, dry_run=dry_run)
    assert not home.nights.exists() or not list(home.nights.iterdir())
    assert not home.packs.exists() or not list(home.packs.glob("*/pack.safetensors"))
    done = run(home, "sleep")
    assert done.exit_code == 1 and "code: PLASTIC-C002" in done.stderr
    scheduled = run(home, "schedule", "run", "--now", "--json")  # not tried again all night, nobody alarmed
    assert (scheduled.exit_code, json.loads(scheduled.stdout)["outcome"]) == (0, "nothing")
    agree(home, train=True)
    assert sleep(home, base, chosen=CHOSEN, dry_run=True).outcome == "dry-run"  # control


def test_a_forget_is_brought_as_far_as_it_goes_without_learning(home: Home, base: Base) -> None:
    from mlx_plastic.packs import Store
    from mlx_plastic.sleep.pending import pending

    say(home, 12)
    assert sleep(home, base, chosen=CHOSEN, tag="one").outcome == "passed"
    with Memory(home) as memory:
        learned = Store(home).read("one").manifest.lineage[0]
        memory.forget([learned])  # through another door: the next night finds it
    agree(home, train=False)
    with pytest.raises(NoConsent):
        sleep(home, base, chosen=CHOSEN)
    assert Store(home).active() == () and Store(home).status("one") == "quarantined"
    waiting = pending(home)
    assert waiting is not None and waiting.left == ("one",)
    agree(home, train=True)
    sleep(home, base, chosen=CHOSEN)
    assert pending(home) is None  # control: with consent it is learned again
