"""A server that several clients ask at once, disturbed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from chaos.lives import Tell
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from serving import live


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
