"""/v1/responses, for text: the newer form of the same question."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlx_plastic.serve.api.answering import Answer, Answering
from mlx_plastic.serve.api.chat import failed, whole
from mlx_plastic.serve.api.errors import bad
from mlx_plastic.serve.api.fields import Fields
from mlx_plastic.serve.api.requests import (
    MOST_CHARACTERS,
    MOST_MESSAGES,
    ChatRequest,
    Defaults,
    read_consent,
    read_messages,
    read_model,
    read_speaking,
)
from mlx_plastic.serve.api.service import Service
from mlx_plastic.serve.api.shapes import usage_of
from mlx_plastic.serve.api.stream import event, sse
from mlx_plastic.serve.batch import End


async def respond(request: Request, service: Service, body: Mapping[str, Any]) -> Response:
    asked = _read(Fields(body), request.headers, service.defaults)
    answering, choice = await service.chat(asked)
    shape = Shape(choice.name, body)
    if asked.speaking.stream:
        return sse(_events(answering, shape))
    answers = await whole(request, answering)
    return JSONResponse(shape.response(answers[0]))


def _read(f: Fields, headers: Mapping[str, str], defaults: Defaults) -> ChatRequest:
    messages = _messages(f)
    limit = f.whole("max_output_tokens", defaults.max_tokens, 1, 10**6)
    form = Fields(Fields(f.object("text"), "text").object("format"), "text.format")
    form.choice("type", "text", ("text",))
    asked = ChatRequest(
        *read_model(f),
        messages,
        read_speaking(f, limit, defaults, logprobs=None),
        read_consent(f, headers, defaults),
    )
    if asked.speaking.answers > 1 or asked.speaking.usage:
        raise bad("n and stream_options belong to chat completions", "n")
    f.only("background", False)
    f.only("truncation", "disabled")
    f.only("service_tier", "auto", "default")
    f.only("tool_choice", "auto", "none")
    if f.listed("tools", most=0) or f.listed("include", most=0):
        raise AssertionError  # both can only be empty
    f.flag("parallel_tool_calls", True)
    f.ignore("user", "safety_identifier", "prompt_cache_key")
    f.end()
    return asked


def _messages(f: Fields) -> list[dict[str, Any]]:
    given = f.take("input")
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    elif given is not None and not isinstance(given, list):
        raise bad("input must be a text or a list of messages", "input")
    given = [_plain(item) for item in (given or [])[: MOST_MESSAGES + 1]]
    if instructions := f.text("instructions", most=MOST_CHARACTERS):
        given.insert(0, {"role": "system", "content": instructions})
    return read_messages(given)


def _plain(item: Any) -> Any:
    """An item of the newer form as a message: without its kind, its id and whether it was whole."""
    if isinstance(item, dict) and item.get("type") in (None, "message"):
        return {key: value for key, value in item.items() if key not in ("type", "id", "status")}
    return item


class Shape:
    """A response as a whole, and the events of one that grows."""

    def __init__(self, model: str, body: Mapping[str, Any]) -> None:
        self.model = model
        self.id = f"resp_{secrets.token_hex(16)}"
        self.message = f"msg_{secrets.token_hex(16)}"
        self.created = int(time.time())
        metadata = body.get("metadata")
        self.metadata = metadata if isinstance(metadata, dict) else {}
        self.said = {k: body.get(k) for k in ("instructions", "temperature", "top_p", "max_output_tokens")}
        self.number = -1

    def response(self, answer: Answer | None) -> dict[str, Any]:
        end = answer.end if answer else None
        cut = end is not None and end.finish != "stop"
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": "in_progress" if end is None else "incomplete" if cut else "completed",
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "model": self.model,
            "output": [self.item(answer.text, done=True)] if answer and end else [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "metadata": self.metadata,
            "usage": _usage(answer) if end else None,
            **self.said,
        }

    def item(self, text: str, *, done: bool) -> dict[str, Any]:
        return {
            "id": self.message,
            "type": "message",
            "role": "assistant",
            "status": "completed" if done else "in_progress",
            "content": [self.part(text)] if done else [],
        }

    def part(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def event(self, kind: str, **more: Any) -> str:
        self.number += 1
        return event({"type": kind, "sequence_number": self.number} | more, kind)


def _usage(answer: Answer | None) -> dict[str, Any]:
    usage = usage_of([answer] if answer else [])
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": usage["prompt_tokens_details"],
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }


async def _events(answering: Answering, shape: Shape) -> AsyncIterator[str]:
    answer = answering.answers[0]
    where = {"item_id": shape.message, "output_index": 0, "content_index": 0}
    try:
        yield shape.event("response.created", response=shape.response(None))
        yield shape.event("response.in_progress", response=shape.response(None))
        yield shape.event("response.output_item.added", output_index=0, item=shape.item("", done=False))
        yield shape.event("response.content_part.added", **where, part=shape.part(""))
        async for _, said in answering.said():
            if not isinstance(said, End):
                if said.text:
                    yield shape.event("response.output_text.delta", **where, delta=said.text, logprobs=[])
            elif said.finish == "error":
                yield shape.event("error", code="failed", message=failed(said), param=None)
                return
        text = answer.text
        yield shape.event("response.output_text.done", **where, text=text, logprobs=[])
        yield shape.event("response.content_part.done", **where, part=shape.part(text))
        yield shape.event("response.output_item.done", output_index=0, item=shape.item(text, done=True))
        whole_ = shape.response(answer)
        yield shape.event(f"response.{whole_['status']}", response=whole_)
    finally:
        answering.cancel()
