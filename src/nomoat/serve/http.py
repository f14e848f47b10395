"""What the endpoints share: events as server-sent ones, and clients that hang up."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, final

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nomoat.serve.errors import told
from nomoat.serve.metrics import HUNG_UP

_LOG = logging.getLogger("nomoat.serve")

ServerEvent = tuple[str | None, Mapping[str, Any] | str]
"""An event of a stream: its name, if it has one, and its data."""


def new_id(prefix: str) -> str:
    """An id in OpenAI's manner."""
    return f"{prefix}{secrets.token_hex(12)}"


def json_response(body: Mapping[str, Any]) -> Response:
    return Response(_json(body), media_type="application/json")


async def until_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The response; where the client hangs up before it is ready, the work is cancelled."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        return Response(status_code=HUNG_UP)
    finally:
        leaving.cancel()
        working.cancel()


async def event_stream(batches: AsyncGenerator[list[ServerEvent]]) -> Response:
    """Events as a stream, those of a batch in one write. The first batch is waited for, so that what is refused gets
    its status; an error after it is an event itself."""
    try:
        first = await anext(batches)
    except BaseException:
        await batches.aclose()
        raise

    async def lines() -> AsyncGenerator[bytes]:
        async with aclosing(batches):
            yield _lines(first)
            try:
                async for events in batches:
                    yield _lines(events)
            except Exception as error:
                log_fault(error)
                yield _lines([("error" if first[0][0] else None, told(error).body())])

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)


def log_fault(error: Exception) -> None:
    """What is no client's fault is written down with its traceback."""
    if told(error).status >= 500:
        _LOG.error("a request failed", exc_info=error)


@final
class Unbroken:
    """ASGI middleware: where the server itself fails, the client is told so and the connection lives on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if begun or scope["type"] != "http":
                raise
            log_fault(error)
            await told(error).response()(scope, receive, send)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _lines(events: list[ServerEvent]) -> bytes:
    lines = []
    for name, data in events:
        head = b"" if name is None else f"event: {name}\n".encode()
        lines += [head, b"data: ", data.encode() if isinstance(data, str) else _json(data), b"\n\n"]
    return b"".join(lines)


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # half a character that a client sent, which only ASCII can quote
        return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
