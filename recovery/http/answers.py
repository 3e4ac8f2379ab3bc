"""Errors as the one JSON shape of the whole API: ``error``, ``message``, ``facts``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from recovery.errors import (
    ConfigError,
    ControlPlaneUnavailable,
    InvalidEvent,
    NotKept,
    NotPending,
    RecoveryError,
    UnknownRecovery,
)

if TYPE_CHECKING:
    from fastapi import FastAPI
    from pydantic import BaseModel
    from starlette.types import Send

RETRY_SECONDS = 2

STATUS: tuple[tuple[type[RecoveryError], int], ...] = (
    (ControlPlaneUnavailable, 503),
    (UnknownRecovery, 404),
    (NotPending, 409),
    (NotKept, 409),
    (InvalidEvent, 422),
    (ConfigError, 500),
)

_CODES = {
    400: "bad_request",
    401: "no_token",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    429: "too_many_requests",
}


def body(code: str, message: str, facts: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"error": code, "message": message, "facts": facts or {}}


def rendered(answer: BaseModel) -> Response:
    """An answer of ours as it is; FastAPI would check and copy it first, each time."""
    return Response(answer.model_dump_json(), media_type="application/json")


async def refuse(
    send: Send, status: int, message: str, *, code: str | None = None, **headers: str
) -> None:
    """Answer before anything of ours has looked at the request."""
    content = json.dumps(body(code or _CODES.get(status, "error"), message)).encode()
    fixed = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
    ]
    named = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": fixed + named})
    await send({"type": "http.response.body", "body": content})


def install(app: FastAPI) -> None:
    """Have every error answered in our shape; what nobody expected says nothing of itself."""

    @app.exception_handler(RecoveryError)
    async def ours(_: Request, error: RecoveryError) -> JSONResponse:
        status = next((code for kind, code in STATUS if isinstance(error, kind)), 500)
        headers = {"retry-after": str(RETRY_SECONDS)} if error.transient else None
        return JSONResponse(body(error.code, error.message, error.facts), status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        """The first problem. The value stays out: a stray one may be a secret."""
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])[:120]
        text = f"{place}: {problem['msg']}"
        return JSONResponse(body("invalid_request", text, {"field": place}), 422)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        code = _CODES.get(error.status_code, "error")
        return JSONResponse(body(code, str(error.detail)), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> JSONResponse:
        text = "something went wrong here; the log says what"
        return JSONResponse(body("internal_error", text), 500)
