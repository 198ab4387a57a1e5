"""Listen: a home's service behind uvicorn, with time limits for slow clients."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mlx_plastic.errors import PlasticError
from mlx_plastic.serve.api.config import ServeConfig
from mlx_plastic.serve.api.guard import is_loopback
from mlx_plastic.serve.api.keys import Keys

if TYPE_CHECKING:
    from starlette.applications import Starlette

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 15
MOST_HEAD = 64 << 10  # bytes of a request's head


def protocol(config: ServeConfig) -> type[H11Protocol]:
    class Timed(H11Protocol):
        """uvicorn's, which waits for ever for the head of a request and takes any number of connections."""

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > config.connections:
                transport.abort()
                return
            self._wait_for_head()

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            if self._timer is None and (before is None or before.response_complete):
                self._wait_for_head()
            try:
                super().data_received(data)
            except Exception as error:  # a target that is not ASCII, say
                log.info("a request cannot be read: %s", type(error).__name__)
                self.transport.abort()
            if self.cycle is not before:
                self._stop_waiting()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait_for_head(self) -> None:
            self._timer = self.loop.call_later(config.header_s, self._too_slow)

        def _stop_waiting(self) -> None:
            if self._timer:
                self._timer.cancel()
            self._timer = None

        def _too_slow(self) -> None:
            self._timer = None
            if not self.transport.is_closing():
                self.transport.abort()

    return Timed


def require_key(config: ServeConfig, keys: Keys) -> None:
    """Raises PlasticError where others could reach the server and no key keeps them out."""
    if not is_loopback(config.host) and not keys.hashes:
        raise PlasticError(
            f"{config.host} can be reached by others, and there is no key",
            hint="make one: plastic serve --new-key; or listen on 127.0.0.1",
        )


def listen(config: ServeConfig, keys: Keys) -> socket.socket:
    """A socket at the configured place. Raises PlasticError if that is taken, or needs a key and has none."""
    require_key(config, keys)
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((config.host, config.port))
        found.listen(min(1024, config.connections))
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise PlasticError(
                f"port {config.port} of {config.host} is taken",
                hint="end what listens there, or choose another: plastic serve --port 0",
            ) from error
        raise PlasticError(
            f"cannot listen on {config.host} port {config.port}: {error.strerror}",
            hint="use 127.0.0.1 and a port from 1024 to 65535",
        ) from error
    return found


class Server(uvicorn.Server):
    """One that ends as asked; uvicorn's own sends itself the signal again, and so kills the process.

    leaving: set when it begins to end, for what would otherwise stay open for ever.
    """

    leaving: threading.Event

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.leaving.set()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def make_server(app: Starlette, config: ServeConfig, leaving: threading.Event) -> uvicorn.Server:
    """A server that logs no requests: their paths and bodies are a person's."""
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    settings = uvicorn.Config(
        app,
        http=protocol(config),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(config.grace_s)),
        h11_max_incomplete_event_size=MOST_HEAD,
    )
    server = Server(settings)
    server.leaving = leaving
    return server
