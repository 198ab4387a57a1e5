"""Server-sent events: a response that stays open while the answer grows."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse

ALIVE_S = 10.0  # silence after which a comment says that we are still there

HEADERS = {"Cache-Control": "no-cache, no-store", "X-Accel-Buffering": "no"}


def event(value: Any, name: str = "") -> str:
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\ndata: {data}\n\n" if name else f"data: {data}\n\n"


def sse(events: AsyncIterator[str]) -> StreamingResponse:
    """events: as `event` makes them. They are closed when the client leaves."""
    return StreamingResponse(_kept_alive(events), media_type="text/event-stream", headers=HEADERS)


async def _kept_alive(events: AsyncIterator[str]) -> AsyncIterator[str]:
    waiting: asyncio.Future[str] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(_next(events))
            done, _ = await asyncio.wait([waiting], timeout=ALIVE_S)
            if not done:
                yield ": still there\n\n"
                continue
            found, waiting = waiting.result(), None
            if not found:
                return
            yield found
    finally:
        if waiting:
            waiting.cancel()
        close = getattr(events, "aclose", None)
        if close:
            await _quietly(close())


async def _next(events: AsyncIterator[str]) -> str:
    return await anext(events, "")


async def _quietly(closing: Any) -> None:
    with contextlib.suppress(asyncio.CancelledError, RuntimeError):
        await closing
