"""Pages where the server demands keys: the browser is asked for one once, and has a session from then on, which the
ledger keeps."""

from __future__ import annotations

import html
import re
from typing import final
from urllib.parse import parse_qs, quote

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nomoat.ledger.keys import holder_of
from nomoat.ledger.sessions import begin_session, end_session, session_holder
from nomoat.ledger.store import Ledger
from nomoat.serve.guard import key_of, let_in

LOGIN, LOGOUT = "/login", "/logout"
COOKIE = "nomoat-session"
_LASTS_S = 30 * 24 * 3600
_FORM_BYTES = 1000
_PLACE = re.compile(r"/(?:[\w-]+/?)?")  # a page of ours and no other server's
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
class Sessioned:
    """ASGI middleware before the guard: a session's request is let in as its holder's, and a browser without one
    gets the login page. The guard then treats it like any other client's. A key that comes with a request counts, and
    no session."""

    def __init__(self, app: ASGIApp, keys: Ledger) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        token = request.cookies.get(COOKIE)
        if token and not key_of(request.headers):
            let_in(scope, await run_in_threadpool(session_holder, self._keys, token))
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


def mount_login(app: FastAPI, keys: Ledger) -> None:
    """Serve the login page, and end sessions. What the key may do is the guard's matter."""

    async def end(request: Request) -> None:
        if token := request.cookies.get(COOKIE):
            await run_in_threadpool(end_session, keys, token)

    @app.get(LOGIN, include_in_schema=False)
    async def ask(request: Request) -> Response:
        return _page(request, "")

    @app.post(LOGIN, include_in_schema=False)
    async def log_in(request: Request) -> Response:
        # Nobody has shown a key yet, so what is longer than a form of ours is not taken apart.
        form = parse_qs((await request.body())[:_FORM_BYTES].decode("latin-1"))
        key = form.get("key", [""])[0].strip()
        holder = await run_in_threadpool(holder_of, keys, key)
        if holder is None:
            return _page(request, "This key is not known here, or was revoked.", status=401)
        await end(request)
        token = await run_in_threadpool(begin_session, keys, holder.key_id, lasts_s=_LASTS_S)
        response = RedirectResponse(_next(request), 303, _HEADERS)
        response.set_cookie(
            COOKIE,
            token,
            max_age=_LASTS_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    @app.post(LOGOUT, include_in_schema=False)
    async def log_out(request: Request) -> Response:
        await end(request)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response


def _page(request: Request, said: str, *, status: int = 200) -> Response:
    action = f"{LOGIN}?next={quote(_next(request), safe='')}"
    return HTMLResponse(_PAGE.format(action=html.escape(action), said=html.escape(said)), status, _HEADERS)


def _next(request: Request) -> str:
    asked = request.query_params.get("next", "/")
    return asked if _PLACE.fullmatch(asked) else "/"
