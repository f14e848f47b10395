"""Errors as OpenAI's API tells them: a status, and `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import json
import math
from typing import Any

from starlette.responses import Response

from nomoat.errors import DataError, EngineError, NomoatError

INVALID, SERVER = "invalid_request_error", "server_error"


class ApiError(Exception):
    """A request that is refused. `param` is the key at fault, `code` a word for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """As HTTP. ASCII, because a message may quote half a character that a client sent."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(math.ceil(self.retry_after_s))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return Response(json.dumps(self.body()).encode(), self.status, headers, media_type="application/json")


def told(error: Exception, *, param: str | None = None) -> ApiError:
    """An error of ours as the client is told it: what the request is to blame for is a 400."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, DataError):
        return ApiError(400, str(error), param=param)
    if isinstance(error, EngineError):
        return ApiError(400, str(error), param=param, code="engine_refused")
    if isinstance(error, NomoatError):
        return ApiError(503, str(error), kind=SERVER, code="model_not_available")
    # Not quoted: what went wrong inside is for the log.
    return ApiError(500, "the server failed to answer this request; its log says why", kind=SERVER)


def too_long(prompt_tokens: int, n_ctx: int) -> ApiError:
    """A prompt that leaves no room for an answer."""
    return ApiError(
        400,
        f"This model's maximum context length is {n_ctx} tokens; the prompt has {prompt_tokens}, and an answer "
        "needs one more at least. Shorten the conversation.",
        param="messages",
        code="context_length_exceeded",
    )
