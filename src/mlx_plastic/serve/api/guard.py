"""Who is answered, and how much is taken from them: before any route sees a request.

A browser on this machine can reach a server on loopback for any page it shows. So the Host must be one of
ours (a page whose name was made to point here is refused), and nothing may come from another origin.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlx_plastic.serve.api.config import ServeConfig
from mlx_plastic.serve.api.errors import ApiError
from mlx_plastic.serve.api.keys import Keys
from mlx_plastic.serve.api.metrics import Metrics

log = logging.getLogger(__name__)

LOCAL = ("localhost", "127.0.0.1", "::1")
COOKIE = "plastic_key"
OPEN_PATHS = ("/health", "/login")  # for everybody: they tell nothing
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class NeedsKey(Exception):
    """A person at a browser without a key: they are asked for it on a page."""


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """An ASGI middleware."""

    def __init__(self, app: ASGIApp, *, config: ServeConfig, keys: Keys, metrics: Metrics) -> None:
        self.app, self.config, self.keys, self.metrics = app, config, keys, metrics
        given = (part.strip().lower() for part in config.hosts.split(","))
        own = (config.host,) if config.host not in ("0.0.0.0", "::") else ()
        self.names = {*LOCAL, *own, *filter(None, given)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
                return
            await self.app(scope, receive, send)
            return
        begun: list[int] = []  # the status, once it was sent
        counting = self._counting(scope, self._timed(send), begun)
        try:
            self._check(scope)
            await self.app(scope, self._bounded(receive), counting)
        except NeedsKey:
            await RedirectResponse("/login", 303)(scope, receive, counting)
        except ApiError as error:
            await error.response()(scope, receive, counting)
        except TimeoutError:
            log.info("a client did not take its answer for %.0f s and was left", self.config.send_s)
        except Exception as error:  # a bug of ours: what an exception says may hold what a person said
            log.error(
                "a request to %s failed: %s", _route(scope), type(error).__name__, exc_info=log_traces()
            )
            if not begun:
                fault = ApiError(500, "the server made a mistake; its log says more")
                await fault.response()(scope, receive, counting)

    # -- who

    def _check(self, scope: Scope) -> None:
        connection = HTTPConnection(scope)
        headers = connection.headers
        if len(headers.getlist("host")) != 1 or not self._is_ours(_name(headers["host"])):
            raise ApiError(
                403, "this host name is not one of this server's; see hosts in [serve]", code="host"
            )
        self._check_origin(scope, headers)
        if not self._is_open(scope["path"]) and not self.keys.lets_in(_key(connection)):
            if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
                raise NeedsKey
            raise ApiError(401, "a key is needed: Authorization: Bearer ...", code="invalid_api_key")

    def _is_ours(self, name: str) -> bool:
        """By a number nobody can be led here who did not mean to: only names are made to point elsewhere."""
        return name in self.names or (not is_loopback(self.config.host) and _is_number(name))

    def _is_open(self, path: str) -> bool:
        return path in OPEN_PATHS or path.startswith("/static/")

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] != headers["host"].lower():
            raise ApiError(403, "requests from other origins are refused", code="origin")
        site = headers.get("sec-fetch-site", "none")
        navigates = scope["method"] in SAFE_METHODS and headers.get("sec-fetch-mode") == "navigate"
        if site not in ("none", "same-origin") and not navigates:
            raise ApiError(403, "requests from other sites are refused", code="origin")

    # -- how much

    def _bounded(self, receive: Receive) -> Receive:
        """The body in time, and no more of it than is allowed."""
        left = self.config.body_kb << 10
        begun = asyncio.get_running_loop().time()
        whole = False

        async def bounded() -> Message:
            nonlocal left, whole
            if whole:
                return await receive()
            rest = begun + self.config.body_s - asyncio.get_running_loop().time()
            try:
                message = await asyncio.wait_for(receive(), max(0.001, rest))
            except TimeoutError:
                raise ApiError(408, "the body of the request did not come in time", code="timeout") from None
            if message["type"] == "http.request":
                left -= len(message.get("body", b""))
                whole = not message.get("more_body", False)
                if left < 0:
                    raise ApiError(413, f"the body is larger than {self.config.body_kb} kB", code="too_large")
            return message

        return bounded

    def _timed(self, send: Send) -> Send:
        """Nobody keeps an answer waiting for ever by not reading it."""

        async def timed(message: Message) -> None:
            await asyncio.wait_for(send(message), self.config.send_s)

        return timed

    def _counting(self, scope: Scope, send: Send, begun: list[int]) -> Send:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.append(int(message["status"]))
                self.metrics.requests[(_route(scope), begun[0])] += 1
                message = {**message, "headers": [*message.get("headers", []), *SAFE_HEADERS]}
            await send(message)

        return counting


SAFE_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),  # with none, browsers send forms with the origin "null"
]


def _route(scope: Scope) -> str:
    """The pattern, never the path: a path is a text of the client's."""
    return str(getattr(scope.get("route"), "path", "other"))


def log_traces() -> bool:
    """Where a fault arose, for who asked for every step with -vv."""
    return log.isEnabledFor(logging.DEBUG)


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _name(host: str) -> str:
    """Without its port; "" for what is no host."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _key(connection: HTTPConnection) -> str:
    headers = connection.headers
    kind, _, key = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and key:
        return key.strip()
    return headers.get("x-api-key") or connection.cookies.get(COOKIE, "")


def json_only(headers: Any) -> None:
    """A form of another page cannot send this type without asking first."""
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "the body must be application/json", code="content_type")
