"""/v1/chat/completions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlx_plastic.serve.api.answering import Answer, Answering
from mlx_plastic.serve.api.errors import ApiError
from mlx_plastic.serve.api.requests import ChatRequest, read_chat
from mlx_plastic.serve.api.service import Service
from mlx_plastic.serve.api.shapes import Head, Tokens, finish_of, head, usage_of
from mlx_plastic.serve.api.stream import event, sse
from mlx_plastic.serve.api.tools import CallReader
from mlx_plastic.serve.batch import End, Piece, Said

DONE = "data: [DONE]\n\n"


async def chat(request: Request, service: Service, body: dict[str, Any]) -> Response:
    asked = read_chat(body, request.headers, service.defaults)
    answering, choice = await service.chat(asked)
    top = head("chat.completion", choice.name, "chatcmpl")
    if asked.speaking.stream:
        return sse(Streaming(service, asked, answering, top).events())
    answers = await whole(request, answering)
    choices = [_choice(service, asked, answer) for answer in answers]
    return JSONResponse(top.part(top.kind, choices, usage=usage_of(answers)))


async def whole(request: Request, answering: Answering) -> list[Answer]:
    """The answers once they have ended. Raises ApiError if one failed; what nobody waits for is cut short."""
    waiting = asyncio.ensure_future(answering.whole())
    leaving = asyncio.ensure_future(gone(request.receive))
    try:
        await asyncio.wait([waiting, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            answering.cancel()
        answers = await waiting
    finally:
        leaving.cancel()
        answering.cancel()  # of what has ended nothing is left to cancel
    for answer in answers:
        raise_if_failed(answer.end)
    return answers


async def gone(receive: Callable[[], Awaitable[Any]]) -> None:
    """Until the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def raise_if_failed(end: End | None) -> None:
    if end is not None and end.finish == "error":
        raise ApiError(500 if end.fault.startswith("decoding failed") else 503, failed(end), code="failed")


def failed(end: End) -> str:
    return f"{end.fault} ({end.hint})" if end.hint else end.fault


def _choice(service: Service, asked: ChatRequest, answer: Answer) -> dict[str, Any]:
    assert answer.end
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    calls: list[dict[str, Any]] = []
    if asked.tools:
        reader = CallReader(service.base.tokenizer, asked.tools)
        text = (reader.read(answer.text) + reader.end()).strip()
        if calls := reader.calls:
            message |= {"content": text or None, "tool_calls": calls}
    told = asked.speaking.logprobs is not None
    return {
        "index": answer.index,
        "message": message,
        "logprobs": Tokens(service.base.tokenizer).chat(answer.tokens) if told else None,
        "finish_reason": finish_of(answer.end, calls=bool(calls)),
    }


class Streaming:
    """One request's answers as events: a role, pieces, how it ended, perhaps usage, and that this was all."""

    def __init__(self, service: Service, asked: ChatRequest, answering: Answering, top: Head) -> None:
        self._asked, self._answering, self._top = asked, answering, top
        self._tokens = Tokens(service.base.tokenizer)
        self._readers = [CallReader(service.base.tokenizer, asked.tools) for _ in answering.answers]
        self._calls = [0] * len(answering.answers)

    async def events(self) -> AsyncIterator[str]:
        try:
            for answer in self._answering.answers:
                yield self._event(answer, {"role": "assistant", "content": "", "refusal": None})
            async for answer, said in self._answering.said():
                if isinstance(said, End) and said.finish == "error":
                    yield event(ApiError(500, failed(said), code="failed").body)
                    return
                for told in self._told(answer, said):
                    yield told
            if self._asked.speaking.usage:
                usage = usage_of(self._answering.answers)
                yield event(self._top.part("chat.completion.chunk", [], usage=usage))
            yield DONE
        finally:
            self._answering.cancel()

    def _told(self, answer: Answer, said: Said) -> list[str]:
        if isinstance(said, Piece):
            text = self._readers[answer.index].read(said.text) if self._asked.tools else said.text
            found = self._new_calls(answer)
            if text or said.tokens:
                logprobs = (
                    self._tokens.chat(said.tokens) if self._asked.speaking.logprobs is not None else None
                )
                found.insert(0, self._event(answer, {"content": text}, logprobs=logprobs))
            return found
        rest = self._readers[answer.index].end() if self._asked.tools else ""
        found = [self._event(answer, {"content": rest})] if rest.strip() else []
        found += self._new_calls(answer)
        finish = finish_of(said, calls=self._calls[answer.index] > 0)
        return [*found, self._event(answer, {}, finish=finish)]

    def _new_calls(self, answer: Answer) -> list[str]:
        calls = self._readers[answer.index].calls
        told = self._calls[answer.index]
        self._calls[answer.index] = len(calls)
        return [
            self._event(answer, {"tool_calls": [{"index": i} | call]})
            for i, call in enumerate(calls[told:], told)
        ]

    def _event(
        self, answer: Answer, delta: dict[str, Any], *, finish: str | None = None, logprobs: Any = None
    ) -> str:
        choice = {"index": answer.index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        more = {"usage": None} if self._asked.speaking.usage else {}
        return event(self._top.part("chat.completion.chunk", [choice], **more))
