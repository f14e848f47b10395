"""The web app where keys are demanded: one login, a cookie that scripts cannot read, and what the key allows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from helpers.serving import Running, serving
from nomoat.engine.echo import EchoEngine
from nomoat.serve.web.login import COOKIE, Sessions

HTML = {"Accept": "text/html,*/*"}


@pytest.fixture
def known() -> dict[str, frozenset[str]]:
    return {"c": frozenset({"chat"}), "v": frozenset({"vote"}), "a": frozenset({"admin"})}


@pytest.fixture
def locked(tmp_path: Path, known: dict[str, frozenset[str]]) -> Iterator[Running]:
    with serving(
        {"echo": EchoEngine}, scopes_of=lambda key: known.get(key, frozenset()), chats_folder=tmp_path
    ) as found:
        yield found


def log_in(client: httpx.Client, key: str, place: str = "/login") -> httpx.Response:
    return client.post(place, data={"key": key})


def test_a_browser_is_asked_once(locked: Running, known: dict[str, frozenset[str]]) -> None:
    with locked.client(headers=HTML) as client:
        sent_on = client.get("/app/")
        assert (sent_on.status_code, sent_on.headers["Location"]) == (303, "/login?next=%2Fapp%2F")
        asked = client.get(sent_on.headers["Location"])
        assert asked.status_code == 200
        assert "form-action 'self'" in asked.headers["Content-Security-Policy"]
        wrong = log_in(client, "<x>")
        assert wrong.status_code == 401
        assert "This key is not known here" in wrong.text and COOKIE not in wrong.headers.get(
            "Set-Cookie", ""
        )

        right = log_in(client, "c", sent_on.headers["Location"])
        assert (right.status_code, right.headers["Location"]) == (303, "/app/")
        cookie = right.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/;" in cookie
        assert client.get("/app/").status_code == 200
        assert client.get("/metrics").status_code == 403  # a session may no more than its key

        known.pop("c")
        assert client.get("/app/").status_code == 303  # revoked


def test_logging_out_ends_the_session_and_not_only_the_cookie(locked: Running) -> None:
    with locked.client(headers=HTML) as client:
        log_in(client, "a")
        name = client.cookies[COOKIE]
        assert client.get("/metrics").status_code == 200
        assert client.post("/logout").status_code == 204
        assert COOKIE not in client.cookies
        client.cookies.set(COOKIE, name)
        assert client.get("/app/").status_code == 303


def test_what_a_session_does_not_open(locked: Running) -> None:
    with locked.client() as client:
        assert client.get("/app/").status_code == 401  # no browser: OpenAI's error, as ever
        log_in(client, "v")
        assert client.get("/app/").json()["error"]["code"] == "missing_scope"
        log_in(client, "c")
        for place in ("https://evil.com/", "//evil.com", "/\\evil.com", "/a//b"):
            assert log_in(client, "c", f"/login?next={place}").headers["Location"] == "/"
        elsewhere = {"Origin": "https://evil.com"}
        assert client.post("/logout", headers=elsewhere).status_code == 403
        assert client.post("/login", data={"key": "c"}, headers=elsewhere).status_code == 403
        both = client.get("/v1/models", headers={"Authorization": "Bearer x"})
        assert both.status_code == 401  # a key that is given counts, not the cookie


def test_a_session_ends_by_itself() -> None:
    seconds = [0.0]
    sessions = Sessions(now=lambda: seconds[0])
    name = sessions.begin("k")
    assert sessions.key(name) == "k"
    seconds[0] = 31 * 24 * 3600.0
    assert sessions.key(name) is None


def test_without_keys_there_is_no_login(tmp_path: Path) -> None:
    with serving({"echo": EchoEngine}, chats_folder=tmp_path) as running, running.client() as client:
        assert client.get("/login").status_code == 404
        assert client.get("/app/").status_code == 200
