"""Errors as clients of an OpenAI server know them."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from mlx_plastic.errors import BadPack, BaseMismatch, Busy, MemoryFault, PackNotFound, PlasticError

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}
RETRY_S = 2  # what a client is told to wait for when there is no room


class ApiError(Exception):
    """An answer that is no success. Never holds what a person said."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_s: int = RETRY_S,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_s = retry_s

    @property
    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        headers = {"Retry-After": str(self.retry_s)} if self.status in (429, 503) else None
        return JSONResponse(self.body, self.status, headers)


def bad(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code=code)


def as_api_error(error: PlasticError) -> ApiError:
    """Ours, in their words: what a request asked for wrongly, or what this machine cannot do now."""
    message = f"{error.message} ({error.hint})" if error.hint else error.message
    if isinstance(error, PackNotFound):
        return ApiError(404, message, param="model", code="model_not_found")
    if isinstance(error, BaseMismatch):
        return bad(message, "model", "base_mismatch")
    if isinstance(error, BadPack):
        return bad(message, "model", "bad_pack")
    if isinstance(error, Busy):
        return ApiError(429, message, code="queue_full")
    if isinstance(error, MemoryFault):
        return ApiError(503, message, code="memory_unavailable")
    return bad(message)
