"""The server's endpoints, put together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

import nomoat
from nomoat.errors import NomoatError, nearest
from nomoat.serve import schemas
from nomoat.serve.chat import chat_completions
from nomoat.serve.completions import completions
from nomoat.serve.embeddings import embeddings
from nomoat.serve.errors import ApiError, told
from nomoat.serve.guard import Guard, Rules
from nomoat.serve.http import Unbroken, json_response
from nomoat.serve.limits import Ration
from nomoat.serve.metrics import Counted, Metrics
from nomoat.serve.pool import Pool
from nomoat.serve.responses import responses
from nomoat.serve.turns import Desk
from nomoat.serve.web.arena import Arena, Votes
from nomoat.serve.web.chats import Chats
from nomoat.serve.web.login import Sessioned, mount_login
from nomoat.serve.web.mount import mount_arena, mount_web_app
from nomoat.serve.web.thumbs import Thumbs
from nomoat.serve.web.writing import Writer

_SWEEP_S = 5.0
_KINDS: dict[str, type[schemas.Request]] = {
    "/v1/chat/completions": schemas.ChatRequest,
    "/v1/completions": schemas.CompletionRequest,
    "/v1/embeddings": schemas.EmbeddingRequest,
    "/v1/responses": schemas.ResponsesRequest,
}


def create_app(
    pool: Pool,
    metrics: Metrics,
    rules: Rules,
    *,
    most_waiting: int,
    chats: Path | None = None,
    votes: Votes | None = None,
) -> FastAPI:
    """The API over the models of a pool, which it closes when it shuts down; with a ledger for conversations, the web
    app as well, and with a place for votes, its arena."""
    desk = Desk(pool, metrics, most_waiting=most_waiting)
    ration = Ration(
        rules.limits
    )  # one for all: what a key asks for on a page counts like what it asks of the API
    writer: Writer | None = None
    arena = Arena(desk, votes) if votes else None

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(pool))
        try:
            yield
        finally:
            sweeping.cancel()
            if arena is not None:
                await arena.close()
            if writer is not None:
                await writer.close()
            await pool.close()

    app = FastAPI(title="nomoat", version=nomoat.__version__, lifespan=living, docs_url=None, redoc_url=None)
    _add_errors(app)
    if chats is not None:
        thumbs = Thumbs(pool.catalogue, votes) if votes else None
        demands_key = rules.keys is not None
        kept = Chats(chats)
        writer = Writer(desk, kept, ration)
        mount_web_app(app, pool.catalogue, writer, kept, thumbs, demands_key=demands_key)
        if votes is not None and arena is not None:
            mount_arena(app, arena, ration, votes.ledger_path)

    app.add_middleware(Guard, rules=rules, ration=ration)
    if chats is not None and rules.keys is not None:
        mount_login(app, rules.keys)
        app.add_middleware(Sessioned, keys=rules.keys)
    app.add_middleware(Unbroken)  # around the guard too: a ledger that cannot be asked for a key is our fault
    app.add_middleware(Counted, metrics=metrics)  # the outermost: what the guard refuses counts too

    @app.post("/v1/chat/completions", response_class=Response)
    async def chat(body: schemas.ChatRequest, request: Request) -> Response:
        return await chat_completions(desk, body, request)

    @app.post("/v1/completions", response_class=Response)
    async def complete(body: schemas.CompletionRequest, request: Request) -> Response:
        return await completions(desk, body, request)

    @app.post("/v1/embeddings", response_class=Response)
    async def embed(body: schemas.EmbeddingRequest, request: Request) -> Response:
        return await embeddings(desk, body, request)

    @app.post("/v1/responses", response_class=Response)
    async def respond(body: schemas.ResponsesRequest, request: Request) -> Response:
        return await responses(desk, body, request)

    @app.get("/v1/models", response_class=Response)
    async def models() -> Response:
        names = await asyncio.to_thread(pool.catalogue.names)
        return json_response({"object": "list", "data": [_model(one.name, one.created_at) for one in names]})

    @app.get("/v1/models/{name}", response_class=Response)
    async def model(name: str) -> Response:
        for one in await asyncio.to_thread(pool.catalogue.names):
            if one.name == name:
                return json_response(_model(one.name, one.created_at))
        raise ApiError(404, f"The model '{name}' does not exist", param="model", code="model_not_found")

    @app.get("/health", response_class=Response)
    async def health() -> Response:
        return json_response({"status": "ok", "version": nomoat.__version__, "loaded": pool.names()})

    @app.get("/metrics", response_class=Response)
    async def metrics_page() -> Response:
        return Response(metrics.page(), media_type="text/plain; version=0.0.4")

    return app


async def _sweep(pool: Pool) -> None:
    while True:
        await asyncio.sleep(_SWEEP_S)
        await pool.close_idle()


def _model(name: str, created_at: str | None) -> dict[str, Any]:
    created = int(datetime.fromisoformat(created_at).timestamp()) if created_at else int(time.time())
    return {"id": name, "object": "model", "created": created, "owned_by": "nomoat"}


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(NomoatError)
    async def ours(request: Request, error: NomoatError) -> Response:
        return told(error).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return _invalid(request.url.path, error.errors()).response()

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        said = {404: "There is nothing at this address.", 405: "This address takes another method."}
        return ApiError(error.status_code, said.get(error.status_code, str(error.detail))).response()

    @app.exception_handler(RecursionError)
    async def deep(request: Request, error: RecursionError) -> Response:
        return ApiError(400, "The request's JSON is nested too deeply.").response()


def _invalid(path: str, problems: Any) -> ApiError:
    """The first problem, by the key's name: `temperature: got 7; expected ...`."""
    problem = problems[0]
    place = [part for part in problem["loc"] if part != "body"]
    param = (
        "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".") or None
    )
    if problem["type"] == "json_invalid":
        return ApiError(400, f"The request is not JSON: {problem['ctx']['error']}")
    if problem["type"] == "extra_forbidden" and path in _KINDS:
        known = sorted(_KINDS[path].model_fields)
        return ApiError(
            400,
            f"{param}: this server knows no such key.{nearest(str(place[-1]), known)}",
            param=param,
            code="unknown_parameter",
        )
    return ApiError(400, f"{param or 'request'}: {problem['msg']}", param=param)
