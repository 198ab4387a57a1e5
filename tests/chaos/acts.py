"""What is being done when the bad day comes, and how to see that nothing was lost by it.

An act is prepared once, in a room that every life gets a copy of. `do` tells each promise when it is made;
`check` looks at the room after the fault, goes on to the end, and gives back what must be as if nothing had
happened.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import test_store
from chaos.lives import Tell, folder_bytes
from letters import Letters
from mlx_plastic.base import load_base
from mlx_plastic.cli.main import Failure, plastic
from mlx_plastic.compress.apply import Applying, apply
from mlx_plastic.compress.make import Planning, make_plan
from mlx_plastic.compress.plan import read_plan, write_plan
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.memory.recall import Recall
from mlx_plastic.packs import Store
from mlx_plastic.serve.engine import Engine
from mlx_plastic.sleep import forget as forgetting
from mlx_plastic.sleep.pending import pending
from mlx_plastic.sleep.unlearn import forget
from mlx_plastic.survey.collect import collect, plan_collect
from mlx_plastic.survey.folder import RunFolder, init_run
from night_kills import after_kill, one_night, state
from serving import live
from test_forget import LEARNS, SECRETS, lived
from test_memory_processes import check_nothing_was_lost
from test_night import say
from test_survey_runs import FAST, SCHEME, rows


@dataclass(frozen=True)
class Act:
    """A thing that people do, in one of several ways (`which`); all are given checkpoint and room first."""

    prepare: Callable[[Path, Path], None]
    do: Callable[[Path, Path, Tell, str], None]
    check: Callable[[Path, Path, Sequence[str], str], Any]
    ways: tuple[str, ...] = ("",)


def nothing(checkpoint: Path, room: Path) -> None:
    room.mkdir()


# -- a chat


def chat(checkpoint: Path, room: Path, tell: Tell, which: str) -> None:
    home = Home(room)
    with Memory(home) as memory:
        engine = Engine(load_base(str(checkpoint), cache=home.cache), memory, Store(home))
        conversation = memory.new_conversation()
        for i in range(3):
            stream = engine.reply(conversation, f"My cat {i} is called Rex.", max_tokens=3)
            tell(engine.why().question)  # type: ignore[union-attr]
            list(stream)
            tell(engine.why().answer)  # type: ignore[union-attr]


def chatted(checkpoint: Path, room: Path, promised: Sequence[str], which: str) -> None:
    with Memory(Home(room)) as memory:
        held = {turn.id for turn in memory.turns()}
        assert {turn for turn in promised if turn} <= held, "a turn that was acknowledged"
        assert memory.run("PRAGMA integrity_check") == [("ok",)], "the log's integrity"
    later: list[str] = []
    chat(checkpoint, room, later.append, which)
    assert len(later) == 6, "the next talk"


# -- the memory: said, tagged, found, forgotten


def remember(checkpoint: Path, room: Path, tell: Tell, which: str) -> None:
    converse(room, tell, f"round{os.getpid()}", 12)


def converse(room: Path, tell: Tell, name: str, turns: int) -> None:
    home = Home(room)
    with Memory(home) as memory:
        recall = memory._recall = Recall(memory, home.memory_index, embedder=Letters(), admit=list)
        conversation = memory.new_conversation()
        for i in range(turns):
            text = f"{name} word{i} gone{i}in{name}s " + "and so on " * (i % 5 * 100)
            turn = memory.remember(conversation, "user", text)
            tell(turn.id)
            if i % 3 == 0:
                recall.bring_up(hit.turn for hit in recall.search("word", 1))
            if i % 4 == 2:
                memory.forget([turn.id])
                tell(f"forgot {turn.id} gone{i}in{name}s")
        recall.close()


def begun_memory(checkpoint: Path, room: Path) -> None:
    room.mkdir()
    converse(room, lambda line: None, "round0", 6)


def remembered(checkpoint: Path, room: Path, promised: Sequence[str], which: str) -> None:
    forgotten = {line.split()[1]: line.split()[2] for line in promised if line.startswith("forgot ")}
    kept = {line for line in promised if " " not in line}
    check_nothing_was_lost(Home(room), kept - forgotten.keys(), forgotten)
    converse(room, lambda line: None, "later", 3)


# -- the store of packs


def begun_store(checkpoint: Path, room: Path) -> None:
    room.mkdir()
    test_store.prepare(Store(Home(room)))


def keep(checkpoint: Path, room: Path, tell: Tell, which: str) -> None:
    test_store.STEPS[which](Store(Home(room)))


def kept(checkpoint: Path, room: Path, promised: Sequence[str], which: str) -> None:
    test_store.check_whole(Store(Home(room)), which)


# -- a night


def begun_night(checkpoint: Path, room: Path) -> None:
    room.mkdir()
    say(Home(room))


def sleep(checkpoint: Path, room: Path, tell: Tell, which: str) -> None:
    one_night(checkpoint, room, -1)


def slept(checkpoint: Path, room: Path, promised: Sequence[str], which: str) -> Any:
    after_kill(room)
    one_night(checkpoint, room, -1)
    return state(room)


# -- a pack that is trained


def begun_pack(checkpoint: Path, room: Path) -> None:
    room.mkdir()
    say(Home(room))
    Home(room).config_file.write_text("[train]\ncheckpoint_every = 2\nvalid_every = 3\n")


def create(checkpoint: Path, room: Path, tell: Tell, which: str) -> None:
    words = ["--name", "p", "--base", str(checkpoint), "--data", str(room / "Rex.jsonl"), "--steps", "8"]
    command(room, "packs", "create", *words, *which.split())


def created(checkpoint: Path, room: Path, promised: Sequence[str], which: str) -> str:
    store = Store(Home(room))
    if "p" not in store.names():
        create(checkpoint, room, lambda line: None, "--resume")
    return store.read("p").manifest.sha256


def command(room: Path, *words: str) -> None:
    """Raises what the command raises, as a PlasticError where it is one."""
    try:
        plastic.main(["--home", str(room), *words], standalone_mode=False)
    except Failure as error:
        raise error.__cause__ or error from None


# -- forgetting, and learning again what remains


def learned_secrets(checkpoint: Path, room: Path) -> None:
    room.mkdir()
    lived(Home(room), load_base(str(checkpoint)))


def forget_them(checkpoint: Path, room: Path, tell: Tell, which: str) -> None:
    home = Home(room)
    with Memory(home) as memory:
        secret = [turn.id for turn in memory.turns() if "blue" in turn.content]
    if secret or pending(home):
        found = forgetting.plan(home, secret) if secret else None
        forget(home, load_base(str(checkpoint)), found, chosen=LEARNS)


def forgotten(checkpoint: Path, room: Path, promised: Sequence[str], which: str) -> Any:
    forget_them(checkpoint, room, lambda line: None, which)
    store, left = Store(Home(room)), b"".join(folder_bytes(room).values())
    assert [who for who in SECRETS.values() if who.encode() in left] == [], "what was forgotten is there"
    assert b"The cat is called" in left  # control: such words are found
    return [store.read(name).manifest.sha256 for name in store.active()]


# -- a survey


def begun_survey(checkpoint: Path, room: Path) -> None:
    model, values = room / "model", np.random.default_rng(0)
    model.mkdir(parents=True)
    for i in range(3):
        w = values.standard_normal((64, 256)).astype(np.float32)
        save_file({f"model.layers.{i}.mlp.up_proj.weight": w}, model / f"model-{i}.safetensors")
    init_run(room / "runs", FAST | {"model_path": str(model), "quant_schemes": SCHEME}, model_id="m")


def the_run(room: Path) -> RunFolder:
    return RunFolder(next((room / "runs").glob("m/*")))


def survey(checkpoint: Path, room: Path, tell: Tell, which: str) -> None:
    run = the_run(room)
    collect(run, plan_collect(run), workers=1)


def surveyed(checkpoint: Path, room: Path, promised: Sequence[str], which: str) -> Any:
    survey(checkpoint, room, lambda line: None, which)
    return json.loads(json.dumps(rows(the_run(room))))


# -- a compression


def begun_compression(checkpoint: Path, room: Path) -> None:
    room.mkdir()
    write_plan(room / "plan.json", make_plan(str(checkpoint), Planning(budget="5.0bpw")))


def compress(checkpoint: Path, room: Path, tell: Tell, which: str) -> None:
    apply(read_plan(room / "plan.json"), str(checkpoint), room / "out", Applying(park="all"))


def compressed(checkpoint: Path, room: Path, promised: Sequence[str], which: str) -> Any:
    if not (room / "out").exists():
        compress(checkpoint, room, lambda line: None, which)
    weights = {n: b for n, b in folder_bytes(room / "out").items() if n.endswith("safetensors")}
    assert sorted(path.name for path in room.iterdir()) == ["out", "plan.json"], "the room is not tidy"
    return {name: hashlib.sha256(data).hexdigest() for name, data in weights.items()}


# -- a server under load


def serve(checkpoint: Path, room: Path, tell: Tell, which: str) -> None:
    """Tells its port, and ends when a file `stop` is there."""
    with live(Home(room), base=checkpoint) as server:
        tell(f"port {server.port}")
        while not (room / "stop").exists():
            time.sleep(0.01)


def ask(port: int, clients: int, each: int, tell: Tell) -> None:
    """So many clients at once; each question is told once it was acknowledged by an answer."""

    def one(k: int) -> None:
        for i in range(each):
            text = f"Question {k} {i} to {port}"
            body = json.dumps({"messages": [{"role": "user", "content": text}], "max_tokens": 3})
            connection = HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                answer = json.loads(response.read())
            except (OSError, HTTPException, ValueError):
                return
            finally:
                connection.close()
            if response.status == 200:
                said = answer["choices"][0]["message"]["content"] or ""
                tell(f"{'answered' if said.strip() else 'asked'} {text}")  # a random base may say nothing

    threads = [threading.Thread(target=one, args=(k,)) for k in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def served(checkpoint: Path, room: Path, promised: Sequence[str], which: str) -> None:
    (room / "stop").unlink(missing_ok=True)
    with Memory(Home(room)) as memory:
        talks: dict[str, list[str]] = {}
        for turn in memory.turns():
            talks.setdefault(turn.conversation, []).append(turn.content)
        assert memory.run("PRAGMA integrity_check") == [("ok",)], "the log's integrity"
    kept = {f"asked {turns[0]}" for turns in talks.values()}
    kept |= {f"answered {turns[0]}" for turns in talks.values() if len(turns) == 2}
    assert set(promised) <= kept, f"an acknowledged turn: {set(promised) - kept}"
    with live(Home(room), base=checkpoint) as server:
        server.ask("Still there?", max_tokens=2)


ACTS = {
    "chat": Act(nothing, chat, chatted),
    "memory": Act(begun_memory, remember, remembered),
    "store": Act(begun_store, keep, kept, tuple(test_store.STEPS)),
    "night": Act(begun_night, sleep, slept),
    "create": Act(begun_pack, create, created),
    "forget": Act(learned_secrets, forget_them, forgotten),
    "survey": Act(begun_survey, survey, surveyed),
    "compress": Act(begun_compression, compress, compressed),
    "serve": Act(nothing, serve, served),
}
