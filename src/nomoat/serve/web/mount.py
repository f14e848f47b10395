"""Puts the web app's pages on the server, and lets through to Gradio only what they need."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nomoat.serve.errors import ApiError
from nomoat.serve.limits import Ration
from nomoat.serve.models import Catalogue
from nomoat.serve.web import arena_look
from nomoat.serve.web.arena import Arena
from nomoat.serve.web.chats import Chats
from nomoat.serve.web.look import CSS, HEAD, POLICY, theme
from nomoat.serve.web.thumbs import Thumbs
from nomoat.serve.web.writing import Writer

PATH, ARENA, GENERATIONS = "/app", "/arena", "/generations"
_PAGES = (PATH, ARENA, GENERATIONS)
# Gradio also has endpoints for uploads, files, proxies, recordings and its own editor: none is reachable.
_OPEN: Sequence[tuple[str, str]] = (
    ("GET", r"/?"),
    ("GET", r"/(config|theme\.css|gradio_api/(theme\.css|startup-events|queue/data))"),
    ("GET", r"/(assets|static)/[\w./-]+"),
    ("POST", r"/gradio_api/(queue/join|cancel|reset)/?"),
)


def mount_arena(app: FastAPI, arena: Arena, ration: Ration, ledger_path: Path) -> None:
    """Serve the arena's page and the generations'. The arena is to be closed before the pool is."""
    from nomoat.serve.web.arena_page import arena_page
    from nomoat.serve.web.generations import generations_page

    css = CSS + arena_look.CSS
    _mount(app, arena_page(arena, ration), ARENA, css=css, head=HEAD + arena_look.HEAD)
    _mount(app, generations_page(ledger_path), GENERATIONS, css=css)


def _mount(app: FastAPI, page: Any, path: str, *, css: str = CSS, head: str = HEAD) -> None:
    import gradio as gr

    gr.mount_gradio_app(
        app,
        page,
        path,
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        show_error=False,
        max_file_size=0,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css=css,
        head=head,
    )


def mount_web_app(
    app: FastAPI,
    catalogue: Catalogue,
    writer: Writer,
    chats: Chats,
    thumbs: Thumbs | None,
    *,
    demands_key: bool,
) -> None:
    """Serve the chat page, with thumbs where there is a place for them, and with a way to log out where keys are
    demanded. The writer is to be closed before the pool is."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from nomoat.serve.web.page import chat_page

    page = chat_page(catalogue, writer, chats, thumbs, demands_key=demands_key)
    _mount(app, page, PATH)
    app.add_middleware(Fence)

    @app.get("/", include_in_schema=False)
    async def front() -> Response:
        return RedirectResponse(f"{PATH}/")

    @app.get("/favicon.ico", include_in_schema=False)
    async def no_icon() -> Response:
        return Response(status_code=204)

    @app.get("/chats/{chat_id}", include_in_schema=False)
    async def export(chat_id: str) -> Response:
        """A conversation as a row that `nomoat run --data` reads."""
        chat = await asyncio.to_thread(chats.get, chat_id)
        if chat is None:
            raise ApiError(404, "There is no such conversation.")
        row = json.dumps({"messages": chat.messages()}, ensure_ascii=True)
        headers = {"Content-Disposition": f'attachment; filename="chat-{chat.id}.jsonl"'}
        return Response(f"{row}\n", headers=headers, media_type="application/jsonl")


@final
class Fence:
    """ASGI middleware: of what lies under a page's path, the paths in `_OPEN` and no others."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        page = next((page for page in _PAGES if f"{path}/".startswith(f"{page}/")), None)
        if scope["type"] not in ("http", "websocket") or page is None:
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket" or not _is_open(scope["method"], path.removeprefix(page)):
            await ApiError(404, "There is nothing at this address.").response()(scope, receive, send)
            return

        async def fenced(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["Referrer-Policy"] = "no-referrer"
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        await self._app(scope, receive, fenced)


def _is_open(method: str, path: str) -> bool:
    method = "GET" if method == "HEAD" else method
    return ".." not in path and any(
        method == known and re.fullmatch(pattern, path) for known, pattern in _OPEN
    )
