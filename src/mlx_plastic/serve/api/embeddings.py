"""/v1/embeddings, by the sentence embedder that memory uses."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlx_plastic.memory.embed import INSTALL
from mlx_plastic.serve.api.errors import ApiError, bad
from mlx_plastic.serve.api.fields import Fields, text_of
from mlx_plastic.serve.api.service import Service, in_thread

MOST_TEXTS = 256
MOST_CHARACTERS = 100_000  # of one text; the embedder reads its first 256 tokens


async def embed(request: Request, service: Service, body: Mapping[str, Any]) -> Response:
    f = Fields(body)
    given = f.take("input")
    if _is_tokens(given):
        raise bad(
            "input holds tokens, of a tokenizer that is not this model's: send text "
            "(langchain: OpenAIEmbeddings(check_embedding_ctx_length=False))",
            "input",
        )
    texts = [text_of(t, "input", MOST_CHARACTERS) for t in (given if isinstance(given, list) else [given])]
    if not 0 < len(texts) <= MOST_TEXTS or not all(texts):
        raise bad(f"input must be a text, or a list of 1 to {MOST_TEXTS}, none of them empty", "input")
    model = f.text("model", service.names.embedder, most=512)
    form = f.choice("encoding_format", "float", ("float", "base64"))
    dimensions = f.whole("dimensions", 0, 1, 10**5)
    f.ignore("user")
    f.end()
    embedder = service.embedder
    if embedder is None:
        raise ApiError(503, f"no sentence embedder is installed: {INSTALL}", code="no_embedder")
    if model != service.names.embedder:
        raise ApiError(
            404,
            f"no embeddings of {model[:128]!r} here; the model is {service.names.embedder!r}",
            param="model",
            code="model_not_found",
        )
    vectors = await in_thread(embedder.pooled, texts)
    if dimensions not in (0, vectors.shape[1]):
        raise bad(f"this model has {vectors.shape[1]} dimensions", "dimensions")
    data = [
        {"object": "embedding", "index": i, "embedding": _coded(row, form)} for i, row in enumerate(vectors)
    ]
    tokens = await in_thread(_tokens, embedder, texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "data": data, "model": model, "usage": usage})


def _is_tokens(given: Any) -> bool:
    first = given[0] if isinstance(given, list) and given else None
    return type(first) is int or (isinstance(first, list) and bool(first) and type(first[0]) is int)


def _coded(row: Any, form: str) -> Any:
    little = row.astype("<f4")
    return base64.b64encode(little.tobytes()).decode("ascii") if form == "base64" else little.tolist()


def _tokens(embedder: Any, texts: list[str]) -> int:
    return sum(len(e.ids) for e in embedder._tokenizer.encode_batch(texts))
