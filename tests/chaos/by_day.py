"""A chat, the memory and the store of packs, disturbed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import test_store
from chaos.lives import Tell
from letters import Letters
from mlx_plastic.base import load_base
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.memory.recall import Recall
from mlx_plastic.packs import Store
from mlx_plastic.serve.engine import Engine
from test_memory_processes import check_nothing_was_lost

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
