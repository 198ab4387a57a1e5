"""A real server on a free port of loopback, for tests of what it answers."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

from starlette.routing import BaseRoute

from mlx_plastic.home import Home
from mlx_plastic.serve.api import ServeConfig, Service, make_app
from mlx_plastic.serve.api.keys import Keys
from mlx_plastic.serve.api.opening import open_service
from mlx_plastic.serve.api.server import listen, make_server

CONFIG = ServeConfig(port=0, grace_s=5.0, max_tokens=32)
WAIT_S = 60


@dataclass
class Live:
    service: Service
    port: int
    home: Home
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        with contextlib.closing(connection):
            connection.request(method, path, body, self.headers | (headers or {}))
            response = connection.getresponse()
            return response, response.read()

    def post(self, path: str, value: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        named = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        response, data = self.send("POST", path, body, named)
        return response.status, json.loads(data)

    def ask(self, text: str, **fields: Any) -> dict[str, Any]:
        value = {"model": "plastic", "messages": [{"role": "user", "content": text}]} | fields
        status, answer = self.post("/v1/chat/completions", value)
        assert status == 200, answer
        return answer

    def said(self) -> list[tuple[str, str]]:
        return [(turn.role, turn.content) for turn in self.service.memory.turns()]

    def raw(self, data: bytes, *, wait_s: float = WAIT_S) -> bytes:
        """What comes back for these very bytes, up to the end of the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait_s) as connection:
            connection.sendall(data)
            found = b""
            with contextlib.suppress(ConnectionError):
                while part := connection.recv(65536):
                    found += part
            return found

    def raw_cut(self, data: bytes) -> bytes:
        """The same where the client ends its side: the server must not wait for what never comes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S) as connection:
            found = b""
            with contextlib.suppress(ConnectionError):
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(65536):
                    found += part
            return found


@contextlib.contextmanager
def live(
    home: Home,
    *,
    base: str | Path = "nano",
    config: ServeConfig = CONFIG,
    keys: Keys | None = None,
    board: Callable[[Service], Sequence[BaseRoute]] | None = None,
) -> Iterator[Live]:
    """A server in a thread of this process; it is asked to end, and does, when the block ends."""
    keys = keys or Keys()
    found = listen(config, keys)
    port = found.getsockname()[1]
    service = open_service(home, dataclasses.replace(config, port=port), base=str(base))
    shown = board(service) if board else ()
    server = make_server(make_app(service, keys=keys, pages=shown), config, service.leaving)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [found]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            threading.Event().wait(0.01)
        yield Live(service, port, home)
    finally:
        server.should_exit = True
        thread.join(WAIT_S)
        service.memory.close()
        found.close()
        assert not thread.is_alive(), "the server did not end"
