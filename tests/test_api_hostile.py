"""Requests that mean harm, or are made by mistake: an answer in bounds, and the next one served."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlx_plastic.errors import PlasticError
from mlx_plastic.home import Home, find_home
from mlx_plastic.serve.api import ServeConfig
from mlx_plastic.serve.api.keys import Keys, hash_of, new_key, read_keys
from mlx_plastic.serve.api.server import listen
from serving import Live, live

CONFIG = ServeConfig(port=0, max_tokens=4, body_kb=64, header_s=0.5, body_s=0.5, grace_s=2.0, connections=300)
CHAT = "/v1/chat/completions"
HELLO = {
    "model": "plastic",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 2,
    "memory": "off",
}
POSTS = (CHAT, "/v1/completions", "/v1/embeddings", "/v1/responses")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(find_home(tmp_path_factory.mktemp("served")), config=CONFIG) as found:
        yield found


def head(line: str, *fields: str) -> bytes:
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1")


def post(path: str, body: bytes, *fields: str, length: int | str | None = None) -> bytes:
    told = len(body) if length is None else length
    kind = (
        ()
        if any(f.lower().startswith("content-type") for f in fields)
        else ("Content-Type: application/json",)
    )
    host = () if any(f.lower().startswith("host") for f in fields) else ("Host: localhost",)
    lines = (*host, *kind, f"Content-Length: {told}", "Connection: close", *fields)
    return head(f"POST {path} HTTP/1.1", *lines) + body


def status(answer: bytes) -> int:
    """0 if the connection was closed without a word."""
    return int(answer.split(b" ")[1]) if answer.startswith(b"HTTP/") else 0


def still_answers(server: Live) -> None:
    assert server.post(CHAT, HELLO)[0] == 200


def chat(**changes: Any) -> bytes:
    return post(CHAT, json.dumps(HELLO | changes).encode())


NESTED = b'{"messages": ' + b"[" * 20_000 + b"]" * 20_000 + b"}"
REFUSED = {
    "no json": post(CHAT, b"not json"),
    "half an object": post(CHAT, b'{"messages": ['),
    "a list": post(CHAT, b"[]"),
    "a text": post(CHAT, b'"hello"'),
    "null": post(CHAT, b"null"),
    "empty": post(CHAT, b""),
    "bad utf-8": post(CHAT, b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}'),
    "utf-16": post(CHAT, json.dumps(HELLO).encode("utf-16")),
    "half a surrogate": chat(messages=[{"role": "user", "content": "\ud800"}]),
    "deeply nested": post(CHAT, NESTED),
    "nested objects": post(CHAT, b'{"a":' * 5_000 + b"1" + b"}" * 5_000),
    "NaN": post(CHAT, b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}'),
    "infinity": post(CHAT, b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}'),
    "a number of 5,000 digits": post(CHAT, b'{"seed": ' + b"9" * 5000 + b"}"),
    "text/plain": post(CHAT, json.dumps(HELLO).encode(), "Content-Type: text/plain"),
    "a form": post(CHAT, b"messages=hi", "Content-Type: application/x-www-form-urlencoded"),
    "no messages": chat(messages=[]),
    "messages of the wrong kind": chat(messages="hi"),
    "a message of the wrong kind": chat(messages=["hi"]),
    "no role": chat(messages=[{"content": "x"}]),
    "a foreign role": chat(messages=[{"role": "root", "content": "x"}]),
    "only a system message": chat(messages=[{"role": "system", "content": "x"}]),
    "content of the wrong kind": chat(messages=[{"role": "user", "content": 7}]),
    "bool for a number": chat(max_tokens=True),
    "negative": chat(max_tokens=-1),
    "zero": chat(max_tokens=0),
    "huge": chat(max_tokens=10**30),
    "a fraction": chat(max_tokens=1.5),
    "many answers": chat(n=1000),
    "many stops": chat(stop=["x"] * 1000),
    "a long stop": chat(stop="x" * 10_000),
    "many packs": chat(packs=[{"name": "x"}] * 1000),
    "a pack with a way out": chat(model="nano:../../etc"),
    "a model with a way out": chat(model="../../etc/passwd"),
    "a model of bytes": chat(model="\x00"),
    "a long model": chat(model="x" * 10_000),
    "a bias that is no id": chat(logit_bias={"x": 1}),
    "a bias of infinity": post(
        CHAT, b'{"messages":[{"role":"user","content":"x"}],"logit_bias":{"1":1e999}}'
    ),
    "an unknown parameter": chat(evil=1),
    "functions": chat(functions=[{}]),
    "audio": chat(modalities=["audio"]),
    "web search": chat(web_search_options={}),
    "top_logprobs alone": chat(top_logprobs=3),
    "a stream option alone": chat(stream_options={"include_usage": True}),
    "a prompt of nothing": post("/v1/completions", b'{"prompt": []}'),
    "a token too high": post("/v1/completions", b'{"prompt": [99999999]}'),
    "a negative token": post("/v1/completions", b'{"prompt": [-1]}'),
    "echo": post("/v1/completions", b'{"prompt": "x", "echo": true}'),
    "an empty embedding": post("/v1/embeddings", b'{"input": ""}'),
    "too many embeddings": post("/v1/embeddings", json.dumps({"input": ["x"] * 1000}).encode()),
    "a response to nothing": post("/v1/responses", b"{}"),
    "a tool for a response": post("/v1/responses", b'{"input": "x", "tools": [{"type": "web_search"}]}'),
    "a negative length": post(CHAT, b"{}", length=-1),
    "a length of words": post(CHAT, b"{}", length="many"),
    "too long a length": post(CHAT, b"{}", length=10**12),
    "two lengths": post(CHAT, b"{}", "Content-Length: 9"),
    "length and chunks": post(CHAT, b"0\r\n\r\n", "Transfer-Encoding: chunked"),
    "a huge body": post(CHAT, b" " * 200_000),
    "no host": head("GET /v1/models HTTP/1.1", "Connection: close"),
    "two hosts": head(
        "GET /v1/models HTTP/1.1", "Host: localhost", "Host: evil.example", "Connection: close"
    ),
    "another host": head("GET /v1/models HTTP/1.1", "Host: evil.example", "Connection: close"),
    "a host that looks like ours": head(
        "GET /v1/models HTTP/1.1", "Host: localhost.evil.example", "Connection: close"
    ),
    "a host with a user": head(
        "GET /v1/models HTTP/1.1", "Host: localhost@evil.example", "Connection: close"
    ),
    "a broken host": head("GET /v1/models HTTP/1.1", "Host: [::1", "Connection: close"),
    "another origin": post(CHAT, json.dumps(HELLO).encode(), "Origin: https://evil.example"),
    "no origin's origin": post(CHAT, json.dumps(HELLO).encode(), "Origin: null"),
    "another site": post(CHAT, json.dumps(HELLO).encode(), "Sec-Fetch-Site: cross-site"),
    "a broken origin": post(CHAT, json.dumps(HELLO).encode(), "Origin: http://[::1"),
    "a path with a way out": head("GET /../../etc/passwd HTTP/1.1", "Host: localhost", "Connection: close"),
    "a coded way out": head("GET /static/%2e%2e/%2e%2e/x HTTP/1.1", "Host: localhost", "Connection: close"),
    "a path of bytes": head("GET /\xff\xfe HTTP/1.1", "Host: localhost", "Connection: close"),
    "a path of zeros": head("GET /%00 HTTP/1.1", "Host: localhost", "Connection: close"),
    "a long path": head("GET /" + "a" * 100_000 + " HTTP/1.1", "Host: localhost", "Connection: close"),
    "a long header": head("GET / HTTP/1.1", "Host: localhost", "X: " + "a" * 100_000, "Connection: close"),
    "another method": head(f"DELETE {CHAT} HTTP/1.1", "Host: localhost", "Connection: close"),
    "get for post": head(f"GET {CHAT} HTTP/1.1", "Host: localhost", "Connection: close"),
    "no http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    "a web socket": head(
        "GET /v1/models HTTP/1.1", "Host: evil.example", "Upgrade: websocket", "Connection: Upgrade, close"
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_words(server: Live, name: str) -> None:
    answer = server.raw(REFUSED[name])
    assert 400 <= status(answer) < 500 or status(answer) == 0, answer[:300]
    body = answer.partition(b"\r\n\r\n")[2]
    if body.startswith(b"{"):
        error = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["message"]
        assert len(body) < 2000  # it does not hand back what it was sent
        assert b"Traceback" not in body


def test_the_same_without_the_fault_is_answered(server: Live) -> None:
    assert status(server.raw(chat())) == 200  # control
    same = f"Origin: http://localhost:{server.port}", f"Host: localhost:{server.port}"
    assert status(server.raw(post(CHAT, json.dumps(HELLO).encode(), *same))) == 200
    assert status(server.raw(head("GET /v1/models HTTP/1.1", "Host: [::1]:80", "Connection: close"))) == 200


ODD: list[Any] = [None, True, -1, 0, 1e308, "", "x", [], {}, [[]], {"a": None}, "\x00", 2**70, [None]]
FIELDS = "n stop stream seed tools tool_choice response_format logprobs packs".split()


def any_request(draw: random.Random, kind: int) -> tuple[bytes, bool]:
    """Odd values, changed bytes or an end too early, by kind modulo 3; and whether the rest never comes."""
    whole = [*REFUSED.values(), chat(), chat(stream=True)]
    if kind % 3 == 0:
        changed = {f: draw.choice(ODD) for f in draw.sample([*HELLO, *FIELDS], 2)}
        return post(CHAT, json.dumps(HELLO | changed).encode()), False
    data = bytearray(draw.choice(whole)[:4000])
    if kind % 3 == 1:
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        return bytes(data), True
    return bytes(data[: draw.randint(1, len(data))]), True


def test_five_hundred_random_requests_do_no_harm(server: Live) -> None:
    """Broken, cut and mixed up; none may hang, none may be answered with a fault of ours."""
    draw = random.Random(0)
    found: list[int] = []
    for i in range(500):
        sent, cut = any_request(draw, i)
        found.append(status(server.raw_cut(sent) if cut else server.raw(sent)))
    assert not [code for code in found if code >= 500]
    assert len({code for code in found if code}) >= 3  # control: they went different ways
    still_answers(server)


def test_two_hundred_slow_clients_do_not_keep_others_waiting(server: Live) -> None:
    slow = []
    for i in range(200):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        part = b"POST /v1/chat" if i % 2 else post(CHAT, b'{"mess', length=5000)
        connection.sendall(part)
        slow.append(connection)
    still_answers(server)
    for connection in slow:
        assert status(connection.recv(65536)) in (0, 408)  # closed in time, or told that it was too slow
        connection.close()
    still_answers(server)


@pytest.mark.slow
def test_a_client_that_does_not_read_is_left(tmp_path: Path) -> None:
    config = ServeConfig(port=0, send_s=0.2, grace_s=1.0)
    with live(find_home(tmp_path / "home"), config=config) as server:
        many = json.dumps({"prompt": ["a"] * 32, "n": 2, "max_tokens": 900, "logprobs": 5, "stream": True})
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(post("/v1/completions", many.encode()))
        wait_until(lambda: sum(server.service.worker.load_now()) > 0)
        wait_until(lambda: sum(server.service.worker.load_now()) == 0)
        assert server.service.worker.counts["said_tokens"] < 64 * 900  # control: it was not just done
        connection.close()
        still_answers(server)


def wait_until(holds: Any) -> None:
    for _ in range(1200):
        if holds():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it did not happen within a minute")


def test_more_than_there_is_room_for_is_told_to_come_again(tmp_path: Path) -> None:
    config = ServeConfig(port=0, requests=3, max_tokens=200, grace_s=1.0)
    with live(find_home(tmp_path / "home"), config=config) as server:
        response, data = server.send(
            "POST",
            CHAT,
            json.dumps(HELLO | {"n": 4}).encode(),
            {"Content-Type": "application/json"},
        )
        assert response.status == 429 and json.loads(data)["error"]["code"] == "queue_full"
        assert int(response.headers["Retry-After"]) > 0
        assert server.post(CHAT, HELLO | {"n": 3})[0] == 200


def test_too_many_connections_are_closed_and_the_old_ones_kept(tmp_path: Path) -> None:
    config = ServeConfig(port=0, connections=8, header_s=30.0, grace_s=1.0)
    with live(find_home(tmp_path / "home"), config=config) as server:
        first = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        first.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        more = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(20)]
        closed = 0
        for connection in more[-8:]:
            try:
                closed += connection.recv(1) == b""
            except ConnectionError:
                closed += 1
        assert closed == 8
        first.sendall(b"\r\n")
        assert status(first.recv(4096)) == 200
        for connection in [first, *more]:
            connection.close()


@pytest.mark.slow
def test_hostile_requests_leave_nothing_in_memory(server: Live) -> None:
    import resource

    big = json.dumps(HELLO | {"messages": [{"role": "user", "content": "x " * 20_000}]}).encode()

    def peak_mb() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    for _ in range(10):
        server.raw(post(CHAT, big))
    before = peak_mb()
    for _ in range(50):
        server.raw(post(CHAT, big))
    assert peak_mb() - before < 40  # a base that is loaded once more would take 100


# -- keys


def test_a_server_for_others_is_reached_by_number_or_by_its_names(home: Home) -> None:
    from mlx_plastic.serve.api.guard import Guard
    from mlx_plastic.serve.api.metrics import Metrics

    def ours(name: str, **config: Any) -> bool:
        return Guard(None, config=ServeConfig(**config), keys=Keys(), metrics=Metrics())._is_ours(name)  # type: ignore[arg-type]

    assert ours("localhost") and ours("127.0.0.1") and ours("::1")
    assert not ours("192.168.1.4")
    assert ours("192.168.1.4", host="0.0.0.0") and ours("fe80::1", host="0.0.0.0")
    assert not ours("evil.example", host="0.0.0.0")
    assert ours("box.home", host="0.0.0.0", hosts="Box.home, other.home")


def test_a_key_is_asked_for_wherever_others_can_reach_it(home: Home) -> None:
    with pytest.raises(PlasticError, match="can be reached by others, and there is no key"):
        listen(ServeConfig(host="0.0.0.0", port=0), Keys())
    key = new_key(home)
    listen(ServeConfig(host="0.0.0.0", port=0), read_keys(home)).close()
    stored = (home.root / "keys.json").read_text()
    assert key not in stored and hash_of(key) in stored
    assert (home.root / "keys.json").stat().st_mode & 0o077 == 0


def test_without_the_key_no_route_answers_but_health(home: Home) -> None:
    key = new_key(home)
    with live(home, config=CONFIG, keys=read_keys(home)) as server:
        for path in ("/v1/models", "/metrics", "/", "/v1/models/nano", "/nothing"):
            assert server.send("GET", path)[0].status == 401
        for path in POSTS:
            assert server.post(path, HELLO)[0] == 401
            assert server.post(path, HELLO, Authorization="Bearer wrong")[0] == 401
        assert server.send("GET", "/health")[0].status == 200
        assert server.post(CHAT, HELLO, Authorization=f"Bearer {key}")[0] == 200
        assert server.post(CHAT, HELLO, X_Api_Key=key)[0] == 200


def test_a_damaged_file_of_keys_lets_nobody_in(home: Home) -> None:
    new_key(home)
    (home.root / "keys.json").write_text("{}")
    with pytest.raises(PlasticError, match=r"keys\.json cannot be read"):
        read_keys(home)


def test_a_taken_port_is_told_before_the_base_is_loaded(home: Home) -> None:
    with listen(ServeConfig(port=0), Keys()) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PlasticError, match=f"port {port} of 127.0.0.1 is taken"):
            listen(ServeConfig(port=port), Keys())


def test_nothing_that_was_said_reaches_a_log_line(
    server: Live, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    import logging

    caplog.set_level(logging.DEBUG)
    secret = "Zanzibarquux"
    server.post(CHAT, HELLO | {"messages": [{"role": "user", "content": f"I am {secret}"}]})
    server.post(CHAT, HELLO | {"messages": [{"role": secret, "content": secret}]})
    server.post(CHAT, HELLO | {"model": secret})
    server.raw(post(CHAT, f'{{"{secret}'.encode()))
    server.raw(head(f"GET /{secret} HTTP/1.1", "Host: localhost", f"X: {secret}", "Connection: close"))
    metrics = server.send("GET", "/metrics")[1].decode()
    told = capfd.readouterr()
    assert secret not in caplog.text + metrics + told.out + told.err
    assert caplog.records  # control: something was logged


def test_a_fault_of_ours_is_told_without_its_words(server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("what was said")

    monkeypatch.setattr(server.service.names, "list", broken)
    response, data = server.send("GET", "/v1/models")
    assert response.status == 500 and b"what was said" not in data
    monkeypatch.undo()
    assert server.send("GET", "/v1/models")[0].status == 200
