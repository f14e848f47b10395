"""Pages where the server demands keys: the browser is asked for one once, and has a session from then on."""

from __future__ import annotations

import html
import re
import secrets
import time
from collections.abc import Callable
from typing import final
from urllib.parse import parse_qs, quote

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOGIN, LOGOUT = "/login", "/logout"
COOKIE = "nomoat-session"
_LASTS_S = 30 * 24 * 3600
_PLACE = re.compile(r"/[\w-]*/?")  # a page of ours and no other server's
# same-origin: without a referrer the form's origin would be "null", which the guard takes for somebody else's.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>nomoat</title><link rel="icon" href="data:,"><style>
:root {{ color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }}
form {{ max-width: 24rem; margin: 20vh auto 0; padding: 0 1rem; display: grid; gap: .75rem; }}
input, button {{ font: inherit; padding: .5rem; }}
</style></head><body><form method="post" action="{action}">
<label for="key">This server demands a key.</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button><p role="alert">{said}</p></form></body></html>
"""


@final
class Sessions:
    """Which browser came with which key, until the server ends. What a key allows is asked of it every time, so a
    revoked key's sessions open nothing."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._open: dict[str, tuple[str, float]] = {}

    def begin(self, key: str) -> str:
        """A session's name, which only its browser is told."""
        now = self._now()
        self._open = {name: (key, ends) for name, (key, ends) in self._open.items() if ends > now}
        name = secrets.token_urlsafe(32)
        self._open[name] = key, now + _LASTS_S
        return name

    def key(self, name: str) -> str | None:
        """The key it began with; None for a session that has ended or never was."""
        key, ends = self._open.get(name, ("", 0.0))
        return key if ends > self._now() else None

    def end(self, name: str) -> None:
        self._open.pop(name, None)


@final
class Sessioned:
    """ASGI middleware before the guard: a session's request gets its key, and a browser without one the login page.
    The guard then treats it like any other client's."""

    def __init__(self, app: ASGIApp, sessions: Sessions) -> None:
        self._app = app
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        key = self._sessions.key(request.cookies.get(COOKIE, ""))
        if key is not None and "authorization" not in request.headers:
            scope = {**scope, "headers": [*scope["headers"], (b"authorization", f"Bearer {key}".encode())]}
        is_visit = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        is_sent_on = False

        async def seen(message: Message) -> None:
            nonlocal is_sent_on
            if message["type"] == "http.response.start" and message["status"] == 401 and is_visit:
                is_sent_on = True
                place = f"{LOGIN}?next={quote(request.url.path, safe='')}"
                await RedirectResponse(place, 303, _HEADERS)(scope, receive, send)
            elif not is_sent_on:
                await send(message)

        await self._app(scope, receive, seen)


def mount_login(app: FastAPI, sessions: Sessions, scopes_of: Callable[[str], frozenset[str]]) -> None:
    """Serve the login page, and end sessions. What the key may do is the guard's matter."""

    @app.get(LOGIN, include_in_schema=False)
    async def ask(request: Request) -> Response:
        return _page(request, "")

    @app.post(LOGIN, include_in_schema=False)
    async def log_in(request: Request) -> Response:
        form = parse_qs((await request.body()).decode("latin-1"))
        key = form.get("key", [""])[0].strip()
        if not key.isascii() or not await run_in_threadpool(scopes_of, key):
            return _page(request, "This key is not known here, or was revoked.", status=401)
        sessions.end(request.cookies.get(COOKIE, ""))
        response = RedirectResponse(_next(request), 303, _HEADERS)
        response.set_cookie(
            COOKIE,
            sessions.begin(key),
            max_age=_LASTS_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    @app.post(LOGOUT, include_in_schema=False)
    async def log_out(request: Request) -> Response:
        sessions.end(request.cookies.get(COOKIE, ""))
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response


def _page(request: Request, said: str, *, status: int = 200) -> Response:
    action = f"{LOGIN}?next={quote(_next(request), safe='')}"
    return HTMLResponse(_PAGE.format(action=html.escape(action), said=html.escape(said)), status, _HEADERS)


def _next(request: Request) -> str:
    asked = request.query_params.get("next", "/")
    return asked if _PLACE.fullmatch(asked) else "/"
