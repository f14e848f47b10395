"""What stands before every endpoint: who is asked for by which name, how large, from which page, with which key."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, final

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nomoat.ledger.keys import Holder, holder_of
from nomoat.ledger.store import Ledger
from nomoat.serve.errors import ApiError
from nomoat.serve.limits import UNLIMITED, Limits, Ration

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_OPEN_PATHS = frozenset({"/health", "/login", "/logout"})  # without a key
_LIMITED = "/v1/"
CHAT, VOTE, ADMIN = "chat", "vote", "admin"
_SCOPES = {"/metrics": ADMIN, "/arena": VOTE}
"""What a key needs for a path and what lies below it; elsewhere CHAT."""


@dataclass(frozen=True)
class Rules:
    """What is let through.

    Attributes:
        hosts: names by which this server may be asked for. Numbers always may: a page that has its own name
            point here (DNS rebinding) is found out by that name.
        most_bytes: of a request's body.
        keys: the ledger that knows the keys, and is asked every time: a revoked one opens nothing from then on. None
            where no key is demanded.
        limits: what each key may ask for.
    """

    hosts: frozenset[str]
    most_bytes: int
    keys: Ledger | None
    limits: Limits = UNLIMITED


@final
class Guard:
    """ASGI middleware. It answers what it refuses in OpenAI's form."""

    def __init__(self, app: ASGIApp, rules: Rules, ration: Ration) -> None:
        self._app = app
        self._rules = rules
        self._ration = ration

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        with ExitStack() as held:
            try:
                self._check_names(headers)
                await self._check_key(scope, headers)
                if scope["method"] == "POST" and scope["path"].startswith(_LIMITED):
                    held.enter_context(self._ration.request(holder_in(Request(scope))))
                body = await self._body(headers, receive)
            except ApiError as refused:
                await refused.response()(scope, receive, send)
                return
            await self._app(scope, _replayed(body, receive), send)

    def _check_names(self, headers: Headers) -> None:
        if headers.getlist("host") and not self._is_ours(headers["host"]):
            raise ApiError(
                403,
                f"This server does not answer to the name {headers['host'][:100]!r}. "
                "Start it with --allow-host NAME to let it.",
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != headers.get("host"):
            raise ApiError(
                403,
                "Pages of other servers may not use this one (CORS is closed).",
                code="origin_not_allowed",
            )

    def _is_ours(self, host: str) -> bool:
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        name = name.strip("[]").lower()
        if name in self._rules.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    async def _check_key(self, scope: Scope, headers: Headers) -> None:
        """Let in the holder of the key, or of the session that was found already."""
        path = scope["path"]
        if self._rules.keys is None or path in _OPEN_PATHS:
            return
        if key := key_of(headers):
            let_in(scope, await run_in_threadpool(holder_of, self._rules.keys, key))
        holder = holder_in(Request(scope))
        if holder is None and key:
            raise ApiError(401, "This key is not known here, or was revoked.", code="invalid_api_key")
        if holder is None:
            raise ApiError(
                401, "This server demands a key: Authorization: Bearer KEY.", code="missing_api_key"
            )
        wanted = _SCOPES.get("/" + path.strip("/").partition("/")[0], CHAT)
        if not allows(holder, wanted):
            raise ApiError(
                403, f"This key lacks the scope {wanted}.", kind="permission_error", code="missing_scope"
            )

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body, read here so that one too large is never kept."""
        said = headers.get("content-length", "")
        if said.isdecimal() and int(said) > self._rules.most_bytes:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return b"".join(parts)
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._rules.most_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return b"".join(parts)

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"The request is larger than {self._rules.most_bytes} bytes, the most that this server reads.",
            code="request_too_large",
        )


def let_in(scope: Scope, holder: Holder | None) -> None:
    """From here on this is a request of theirs."""
    scope.setdefault("state", {})["holder"] = holder


def holder_in(request: Any) -> Holder | None:
    """Whose request it is, Starlette's or Gradio's; None where no key is demanded."""
    found: Holder | None = getattr(request.state, "holder", None)
    return found


def allows(holder: Holder, wanted: str) -> bool:
    """Whether they may do what needs this scope."""
    return wanted in holder.scopes or ADMIN in holder.scopes


def key_of(headers: Mapping[str, str]) -> str:
    """The key that a request came with; '' for none."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` with the body that was read already."""
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
