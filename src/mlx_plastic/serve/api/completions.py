"""/v1/completions: texts that go on, without a template."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlx_plastic.serve.api.answering import Answer, Answering
from mlx_plastic.serve.api.chat import DONE, failed, whole
from mlx_plastic.serve.api.errors import ApiError, bad
from mlx_plastic.serve.api.fields import Fields, text_of
from mlx_plastic.serve.api.requests import MOST_CHARACTERS, Speaking, read_model, read_speaking
from mlx_plastic.serve.api.service import Service
from mlx_plastic.serve.api.shapes import Head, Tokens, finish_of, head, usage_of
from mlx_plastic.serve.api.stream import event, sse
from mlx_plastic.serve.batch import End

MOST_PROMPTS = 32
MOST_TOP = 5
USUAL_TOKENS = 16  # OpenAI's default here


async def complete(request: Request, service: Service, body: Mapping[str, Any]) -> Response:
    f = Fields(body)
    prompts = _prompts(f.take("prompt"))
    top = f.take("logprobs")
    if top is not None and (isinstance(top, bool) or not isinstance(top, int) or not 0 <= top <= MOST_TOP):
        raise bad(f"logprobs must be a whole number from 0 to {MOST_TOP}", "logprobs")
    limit = f.whole("max_tokens", USUAL_TOKENS, 1, 10**6)
    model, packs = read_model(f)
    speaking = read_speaking(f, limit, service.defaults, logprobs=top)
    f.only("echo", False)
    f.only("suffix", "")
    f.only("best_of", 1)
    f.ignore("user")
    f.end()
    answering, choice = await service.complete(prompts, model, packs, speaking)
    named = head("text_completion", choice.name, "cmpl")
    if speaking.stream:
        return sse(_events(service, answering, named, speaking))
    answers = await whole(request, answering)
    choices = [_choice(service, a, a.text, a.end, a.tokens if top is not None else None, 0) for a in answers]
    return JSONResponse(named.part(named.kind, choices, usage=usage_of(answers)))


def _prompts(given: Any) -> list[str | list[int]]:
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list) and given and all(type(one) is int for one in given):
        given = [given]
    if not isinstance(given, list) or not 0 < len(given) <= MOST_PROMPTS:
        raise bad(f"prompt must be a text, or a list of at most {MOST_PROMPTS}", "prompt")
    found: list[str | list[int]] = []
    for one in given:
        if isinstance(one, list):
            if not all(type(token) is int and token >= 0 for token in one):
                raise bad("prompt must be texts or lists of token ids", "prompt")
            found.append(one)
        else:
            found.append(text_of(one, "prompt", MOST_CHARACTERS))
    return found


def _choice(
    service: Service, answer: Answer, text: str, end: End | None, tokens: Any, offset: int
) -> dict[str, Any]:
    told = Tokens(service.base.tokenizer).legacy(tokens, offset) if tokens is not None else None
    return {
        "index": answer.index,
        "text": text,
        "logprobs": told,
        "finish_reason": finish_of(end) if end else None,
    }


async def _events(
    service: Service, answering: Answering, named: Head, speaking: Speaking
) -> AsyncIterator[str]:
    offsets = [0] * len(answering.answers)
    try:
        async for answer, said in answering.said():
            if isinstance(said, End):
                if said.finish == "error":
                    yield event(ApiError(500, failed(said), code="failed").body)
                    return
                yield event(named.part(named.kind, [_choice(service, answer, "", said, None, 0)]))
                continue
            tokens = said.tokens if speaking.logprobs is not None else None
            choice = _choice(service, answer, said.text, None, tokens, offsets[answer.index])
            offsets[answer.index] += len(said.text)
            yield event(named.part(named.kind, [choice]))
        if speaking.usage:
            yield event(named.part(named.kind, [], usage=usage_of(answering.answers)))
        yield DONE
    finally:
        answering.cancel()
