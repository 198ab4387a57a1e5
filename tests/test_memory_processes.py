"""Several processes at one memory, and such as end in the middle of it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from letters import Letters
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.memory.index import Index, store
from mlx_plastic.memory.recall import Recall

CHILD = """
import sys
from letters import Letters
from mlx_plastic.home import find_home
from mlx_plastic.memory import Memory
from mlx_plastic.memory.recall import Recall
print("begins", flush=True)
memory = Memory(find_home())
recall = memory._recall = Recall(memory, find_home().memory_index, embedder=Letters(), admit=list)
conversation = memory.new_conversation()
for i in range(int(sys.argv[2])):
    text = f"{sys.argv[1]} word{i} gone{i}in{sys.argv[1]}s " + "and so on " * (i % 5 * 100)
    turn = memory.remember(conversation, "user", text)
    if i % 3 == 0:
        recall.bring_up(hit.turn for hit in recall.search("word", 1))
    print(turn.id, flush=True)
    if i % 4 == 2 and "forget" in sys.argv:
        memory.forget([turn.id])
        print("forgot", turn.id, f"gone{i}in{sys.argv[1]}s", flush=True)
"""


def say(memory: Memory, text: str) -> str:
    return memory.remember(memory.new_conversation(), "user", text).id


def found(index: Index | Recall, question: str, limit: int = 10) -> list[str]:
    return [hit.turn for hit in index.search(question, limit)]


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that has begun, when this returns, to do what it prints "begins" before."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    paths = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=paths)
    assert process.stdout
    assert process.stdout.readline() == "begins\n"
    return process


def bytes_of(home: Home) -> bytes:
    return b"".join(file.read_bytes() for file in home.root.rglob("*") if file.is_file())


# -- ended in the middle


def killed_at_random(home: Home, kills: int) -> None:
    """Each a little after a line that was read, so that a machine's load does not choose the places."""
    dice, kept, forgotten = random.Random(kills), set[str](), dict[str, str]()
    for round_ in range(kills):
        process = python(CHILD, f"round{round_}", 10_000, "forget")
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(dice.randrange(12))]
        time.sleep(dice.random() * 0.03)
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines(keepends=True)
        process.wait()
        for words in (line.split() for line in lines if line.endswith("\n")):
            if words[0] == "forgot":
                forgotten[words[1]] = words[2]
            else:
                kept.add(words[0])
    assert len(kept) > 2 * kills and len(forgotten) > kills / 2  # control: they fell in the middle of work
    check_nothing_was_lost(home, kept - forgotten.keys(), forgotten)


def check_nothing_was_lost(home: Home, kept: set[str], forgotten: dict[str, str]) -> None:
    with Memory(home) as memory:
        recall = Recall(memory, home.memory_index, embedder=Letters(), admit=list)
        recall.catch_up()
        held = {turn for (turn,) in recall._index.run("SELECT turn FROM items")}
        in_log = {turn.id for turn in memory.turns()}
        begun = {record.turn for record in memory.audit() if record.action == "forget"}
        assert kept - begun <= in_log == held  # a forget may have been done, and not yet told
        assert not forgotten.keys() & in_log
        assert recall._index.run("PRAGMA integrity_check") == [("ok",)]
        assert memory.run("PRAGMA integrity_check") == [("ok",)]
        assert recall.rebuilt == ""
        fresh = Recall(memory, None, embedder=Letters(), admit=list)
        fresh.catch_up()
        assert found(recall, "round0 word3", 1) == found(fresh, "round0 word3", 1)
        recall.close()
    left = bytes_of(home)
    assert b"inround" in left  # control: words of their kind are found
    assert [word for word in forgotten.values() if word.encode() in left] == []


def test_a_memory_killed_anywhere_loses_no_turn_and_keeps_none_that_was_forgotten(home: Home) -> None:
    killed_at_random(home, 12)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_memory_killed_at_200_points_loses_no_turn_and_keeps_none_that_was_forgotten(home: Home) -> None:
    killed_at_random(home, 200)


# -- at the same time


def test_two_processes_that_write_at_once_lose_nothing(home: Home) -> None:
    processes = [python(CHILD, name, 60) for name in ("one", "two")]
    acknowledged = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    with Memory(home) as memory:
        recall = Recall(memory, home.memory_index, embedder=Letters(), admit=list)
        recall.catch_up()
        held = {turn for (turn,) in recall._index.run("SELECT turn FROM items")}
        assert recall.rebuilt == ""
        recall.close()
    assert held == {*acknowledged[0], *acknowledged[1]}
    assert len(held) == 120


OPENER = """
import sys, time
from pathlib import Path
from mlx_plastic.memory import database
from mlx_plastic.memory.index import store
print("begins", flush=True)
for i in range(60):
    at = float(sys.argv[2]) + i * 0.02
    while time.time() < at:
        pass
    store.connect(Path(sys.argv[1], f"index{i}"))[0].close()
    database.connect(Path(sys.argv[1], f"log{i}")).close()
"""


def test_processes_that_make_the_same_files_at_once_are_all_let_in(tmp_path: Path) -> None:
    """Once one was told now and then that another had been writing for 30 s, after no time at all."""
    at = time.time() + 1
    processes = [python(OPENER, tmp_path, at) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert not list(tmp_path.glob("*.part*"))


WRITER = """
import sys, time
from pathlib import Path
from mlx_plastic.memory.index import store
from mlx_plastic.memory.index.sync import PAUSE_S
db, _ = store.connect(Path(sys.argv[1]))
print("begins", flush=True)
while True:
    with store.transaction(db):
        store.count(db, "embeddings")
        time.sleep(0.02)
    time.sleep(PAUSE_S)
"""


def test_one_that_writes_all_the_time_lets_others_write(tmp_path: Path) -> None:
    db, _ = store.connect(tmp_path / "i")
    writer = python(WRITER, tmp_path / "i")

    def written() -> int:
        return int(db.execute("SELECT value FROM meta WHERE key = 'embeddings'").fetchone()[0])

    waited = []
    for _ in range(10):
        time.sleep(0.01)
        before = written()
        with store.transaction(db):
            waited.append(written() - before)
    writer.kill()
    writer.communicate()
    db.close()
    assert any(waited)  # control: it was in the way
    assert sum(waited) / len(waited) < 10  # transactions; with SQLite's own waiting 50 and more


def test_another_process_sees_what_came_and_what_went(home: Home) -> None:
    with Memory(home) as one, Memory(home) as two:
        say(one, "the bicycle is in the shed")
        here, there = one.recall(model=False), two.recall(model=False)
        (turn,) = found(there, "bicycle")
        assert found(here, "bicycle") == [turn]
        one.tag([turn], "private")
        assert found(here, "bicycle") == []
        assert found(there, "bicycle") == []


def test_an_index_that_another_process_made_anew_is_the_one_that_is_used(home: Home) -> None:
    with Memory(home) as one, Memory(home) as two:
        turn = say(one, "the quincunx orchard")
        assert found(one.recall(model=False), "orchard") == [turn]
        assert found(two.recall(model=False), "orchard") == [turn]
        one.recall().rebuild()
        assert found(one.recall(), "orchard") == [turn]
        assert b"quincunx" in bytes_of(home)  # control
        two.forget([turn])
        assert b"quincunx" not in bytes_of(home)
        assert found(one.recall(), "orchard") == []
