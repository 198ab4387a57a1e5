"""The routes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from mlx_plastic import __version__
from mlx_plastic.errors import PlasticError
from mlx_plastic.serve.api.chat import chat
from mlx_plastic.serve.api.completions import complete
from mlx_plastic.serve.api.embeddings import embed
from mlx_plastic.serve.api.errors import ApiError, as_api_error
from mlx_plastic.serve.api.fields import parse_body
from mlx_plastic.serve.api.guard import Guard, json_only
from mlx_plastic.serve.api.keys import Keys
from mlx_plastic.serve.api.responses import respond
from mlx_plastic.serve.api.service import Service, in_thread

Handler = Callable[[Request, Service, dict[str, Any]], Awaitable[Response]]


def make_app(service: Service, *, keys: Keys | None = None, pages: Sequence[BaseRoute] = ()) -> Starlette:
    """The application. pages: the dashboard's routes."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        making_room = asyncio.create_task(service.nights.make_room(service.worker))
        yield
        making_room.cancel()
        await service.close()

    routes: list[BaseRoute] = [
        Route("/v1/models", _models(service)),
        Route("/v1/models/{name:path}", _model(service)),
        *(
            Route(path, _posted(service, handler), methods=["POST"])
            for path, handler in (
                ("/v1/chat/completions", chat),
                ("/v1/completions", complete),
                ("/v1/embeddings", embed),
                ("/v1/responses", respond),
            )
        ),
        Route("/health", _health(service)),
        Route("/metrics", _metrics(service)),
        *pages,
    ]
    guard = Middleware(Guard, config=service.config, keys=keys or Keys(), metrics=service.metrics)
    handlers: dict[Any, Any] = {
        ApiError: _api_error,
        PlasticError: _plastic_error,
        HTTPException: _http_error,
        ClientDisconnect: _left,
    }
    return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers, lifespan=lifespan)


def _posted(service: Service, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        json_only(request.headers)
        body = parse_body(await request.body())
        return await handler(request, service, body)

    return endpoint


def _models(service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": await in_thread(service.names.list)})

    return endpoint


def _model(service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return JSONResponse(await in_thread(service.names.find, request.path_params["name"]))

    return endpoint


def _health(service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_: Request) -> Response:
        told = {"loaded": service.worker.is_loaded, "night": service.nights.running()}
        return JSONResponse({"status": "ok", "version": __version__} | told)

    return endpoint


def _metrics(service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_: Request) -> Response:
        told = service.metrics.text(service.worker, night=service.nights.running())
        return PlainTextResponse(told, media_type="text/plain; version=0.0.4")

    return endpoint


# -- what goes wrong


async def _api_error(_: Request, error: ApiError) -> Response:
    return error.response()


async def _plastic_error(_: Request, error: PlasticError) -> Response:
    return as_api_error(error).response()


async def _http_error(_: Request, error: HTTPException) -> Response:
    words = {404: "there is nothing here", 405: "this method is not allowed here"}
    found = ApiError(error.status_code, words.get(error.status_code, "the request cannot be answered"))
    response = found.response()
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def _left(_: Request, __: ClientDisconnect) -> Response:
    return Response(status_code=499)  # nobody is there to read it
