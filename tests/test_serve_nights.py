"""Nights beside a running server: in a process of their own, on the same home."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from mlx_plastic.backend import mx
from mlx_plastic.cli.serve import _doors
from mlx_plastic.home import Home, is_locked, locked
from mlx_plastic.memory import Memory
from mlx_plastic.serve.api.keys import Keys
from mlx_plastic.serve.dashboard import pages, routes
from nightly import write_config
from serving import CONFIG, WAIT_S, Live, live
from test_night import CHOSEN, say

PLASTIC = [sys.executable, "-c", "from mlx_plastic.cli.main import main; main()"]
HOLD = """
import sys
from mlx_plastic.home import Home, locked
from pathlib import Path
with locked(Home(Path(sys.argv[1])), "night", hint=""):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextlib.contextmanager
def held_elsewhere(home: Home) -> Iterator[None]:
    """The lock of a night, held by another process."""
    command = [sys.executable, "-c", HOLD, str(home.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        yield
        other.communicate("\n", timeout=WAIT_S)


def until(true: Callable[[], bool]) -> None:
    for _ in range(WAIT_S * 20):
        if true():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it did not come about")


def health(server: Live) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.send("GET", "/health")[1])
    return found


def question(text: str = "Hello there.", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 4} | fields


def events(server: Live, found: list[list[dict[str, Any]]]) -> None:
    """What /nights/live tells, until a night has ended."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.request("GET", "/nights/live")
        response = connection.getresponse()
        while line := response.readline():
            if line.startswith(b"data: "):
                found.append(json.loads(line[6:]))
                if found[-1] and found[-1][-1]["status"] != "running":
                    return


def test_a_real_night_runs_beside_the_server_is_told_live_and_worn_in_the_morning(
    home: Home, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "NIGHTS_EVERY_S", 0.02)  # a night of a second is not to be missed
    say(home, 8)
    longer = dataclasses.replace(CHOSEN.night, epochs=8)
    write_config(home, dataclasses.replace(CHOSEN, night=longer), checkpoint)
    with live(home, base=checkpoint, board=lambda s: pages(s, _doors(home), Keys())) as server:
        bare = server.ask("What is cat 3 called?", max_tokens=8, memory="off")
        told: list[list[dict[str, Any]]] = []
        listening = threading.Thread(target=events, args=(server, told))
        listening.start()
        command = [*PLASTIC, "--home", str(home.root), "sleep", "--tag", "one", "--json"]
        night = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until(lambda: health(server)["night"] or night.poll() is not None)
        during = server.ask("Are you awake?")
        assert health(server)["night"], "the night was over too soon to see anything"
        said, fault = night.communicate(timeout=WAIT_S)
        assert night.returncode == 0, fault
        listening.join(WAIT_S)
        assert json.loads(said)["outcome"] == "passed"
        assert during["choices"][0]["message"]["content"] is not None
        states = [[(n["status"], tuple(n["stages"])) for n in rows] for rows in told]
        assert states[0] == []  # before there was one
        assert any(rows and rows[-1][0] == "running" for rows in states)
        assert states[-1] == [("passed", ("lessons", "train", "judge"))]
        assert not health(server)["night"]
        models = {m["id"]: m for m in json.loads(server.send("GET", "/v1/models")[1])["data"]}
        assert models["plastic"]["packs"] == ["one"]
        worn = server.ask("What is cat 3 called?", max_tokens=8, memory="off")
        named = server.ask("What is cat 3 called?", max_tokens=8, memory="off", model="one")
        assert worn["choices"] == named["choices"] != bare["choices"]
        with Memory(home) as memory:  # what was said while it ran is of the next night
            assert memory.stats().waiting == 1


def test_where_memory_is_short_the_base_leaves_it_for_the_night_and_comes_back(
    home: Home, checkpoint: Path
) -> None:
    config = dataclasses.replace(CONFIG, nights="wait")
    with live(home, base=checkpoint, config=config) as server:
        assert server.post("/v1/chat/completions", question())[0] == 200
        full = mx.get_active_memory()
        with held_elsewhere(home):
            body = json.dumps(question("Not now.")).encode()
            response, data = server.send(
                "POST", "/v1/chat/completions", body, {"Content-Type": "application/json"}
            )
            assert (response.status, response.headers["Retry-After"]) == (503, "30")
            assert json.loads(data)["error"]["code"] == "night_running"
            assert server.post("/v1/completions", {"prompt": "a"})[0] == 503
            assert server.send("GET", "/v1/models")[0].status == 200  # all else goes on
            until(lambda: not health(server)["loaded"])
            assert mx.get_active_memory() < full  # the weights are gone, not only forgotten
            assert b"mlx_plastic_night 1" in server.send("GET", "/metrics")[1]
        assert server.post("/v1/chat/completions", question("And now?"))[0] == 200
        assert health(server) | {"version": ""} == {
            "status": "ok",
            "version": "",
            "loaded": True,
            "night": False,
        }
        asked = [text for role, text in server.said() if role == "user"]
        assert asked == ["Hello there.", "And now?"]  # what was refused is not logged: it comes again


def test_a_server_that_starts_in_the_night_reads_no_weights_until_the_morning(
    home: Home, checkpoint: Path
) -> None:
    config = dataclasses.replace(CONFIG, nights="wait")
    with contextlib.ExitStack() as morning:
        night = contextlib.ExitStack()
        with night:
            night.enter_context(held_elsewhere(home))
            server = morning.enter_context(live(home, base=checkpoint, config=config))
            assert not health(server)["loaded"]
            assert server.post("/v1/chat/completions", question())[0] == 503
        assert server.post("/v1/chat/completions", question())[0] == 200
        assert health(server)["loaded"]


def test_an_answer_that_has_begun_is_said_to_its_end(home: Home, checkpoint: Path) -> None:
    config = dataclasses.replace(CONFIG, nights="wait")
    with live(home, base=checkpoint, config=config) as server:
        ends = {str(token): -100 for token in server.service.base.tokenizer.eos_token_ids}
        body = question("Go on and on.", max_tokens=150, logit_bias=ends)
        answers: list[tuple[int, dict[str, Any]]] = []
        asking = threading.Thread(target=lambda: answers.append(server.post("/v1/chat/completions", body)))
        asking.start()
        until(lambda: server.service.worker.load_now()[0] > 0)
        with held_elsewhere(home):
            until(lambda: not health(server)["loaded"])
            asking.join(WAIT_S)
        assert answers[0][0] == 200
        assert answers[0][1]["usage"]["completion_tokens"] == 150


def test_looking_at_a_lock_never_keeps_anybody_from_taking_it(home: Home) -> None:
    """Two that look as fast as they can, and one that takes the lock as a night does."""
    from mlx_plastic.home import SEEN_S

    looking, looks = threading.Event(), [0]

    def look() -> None:
        while not looking.is_set():
            is_locked(home, "night")
            looks[0] += 1
            time.sleep(0.001)

    assert not is_locked(home, "night") and not home.lock_file("night").exists()
    lookers = [threading.Thread(target=look) for _ in range(2)]
    for one in lookers:
        one.start()
    try:
        for _ in range(50):
            with locked(home, "night", hint="", wait_s=SEEN_S):
                assert is_locked(home, "night")
    finally:
        looking.set()
        for one in lookers:
            one.join()
    assert looks[0] > 10 and not is_locked(home, "night")
