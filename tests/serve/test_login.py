"""The web app where keys are demanded: one login, a cookie that scripts cannot read, and what the key allows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from helpers.serving import Running, make_keys, serving
from helpers.workspaces import ledger_path
from nomoat.engine.echo import EchoEngine
from nomoat.ledger.keys import revoke_key
from nomoat.ledger.store import Ledger
from nomoat.serve.web.login import COOKIE

HTML = {"Accept": "text/html,*/*"}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.db") as opened:
        yield opened


@pytest.fixture
def keys(ledger: Ledger) -> dict[str, str]:
    return make_keys(ledger, c="chat", v="vote", a="admin")


@pytest.fixture
def locked(tmp_path: Path, ledger: Ledger) -> Iterator[Running]:
    with serving({"echo": EchoEngine}, keys=ledger, chats=ledger_path(tmp_path)) as found:
        yield found


def log_in(client: httpx.Client, key: str, place: str = "/login") -> httpx.Response:
    return client.post(place, data={"key": key})


def test_a_browser_is_asked_once(locked: Running, ledger: Ledger, keys: dict[str, str]) -> None:
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

        right = log_in(client, keys["c"], sent_on.headers["Location"])
        assert (right.status_code, right.headers["Location"]) == (303, "/app/")
        cookie = right.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/;" in cookie
        assert client.get("/app/").status_code == 200
        assert client.get("/metrics").status_code == 403  # a session may no more than its key

        revoke_key(ledger, "c")
        assert client.get("/app/").status_code == 303


def test_logging_out_ends_the_session_and_not_only_the_cookie(locked: Running, keys: dict[str, str]) -> None:
    with locked.client(headers=HTML) as client:
        log_in(client, keys["a"])
        name = client.cookies[COOKIE]
        assert client.get("/metrics").status_code == 200
        assert client.post("/logout").status_code == 204
        assert COOKIE not in client.cookies
        client.cookies.set(COOKIE, name)
        assert client.get("/app/").status_code == 303


def test_a_login_of_countless_fields_is_not_taken_apart(locked: Running, keys: dict[str, str]) -> None:
    with locked.client() as client:
        padding = "&a=1" * 250_000
        assert client.post("/login", content=f"key={keys['c']}{padding}").status_code == 303
        assert client.post("/login", content=f"a=1{padding}&key={keys['c']}").status_code == 401


def test_what_a_session_does_not_open(locked: Running, keys: dict[str, str]) -> None:
    with locked.client() as client:
        assert client.get("/app/").status_code == 401  # no browser: OpenAI's error, as ever
        log_in(client, keys["v"])
        assert client.get("/app/").json()["error"]["code"] == "missing_scope"
        log_in(client, keys["c"])
        for place in ("https://evil.com/", "//evil.com", "//", "/\\evil.com", "/a//b"):
            assert log_in(client, keys["c"], f"/login?next={place}").headers["Location"] == "/"
        elsewhere = {"Origin": "https://evil.com"}
        assert client.post("/logout", headers=elsewhere).status_code == 403
        assert client.post("/login", data={"key": keys["c"]}, headers=elsewhere).status_code == 403
        both = client.get("/v1/models", headers={"Authorization": "Bearer x"})
        assert both.status_code == 401  # a key that is given counts, not the cookie


def test_a_session_outlives_the_server(tmp_path: Path, keys: dict[str, str]) -> None:
    with httpx.Client(headers=HTML, timeout=120) as client:
        for is_first in (True, False):
            with (
                Ledger.open(tmp_path / "ledger.db") as ledger,
                serving({"echo": EchoEngine}, keys=ledger, chats=ledger_path(tmp_path)) as running,
            ):
                if is_first:
                    client.post(f"{running.url}/login", data={"key": keys["a"]})
                token = client.cookies[COOKIE]
                assert client.get(f"{running.url}/app/").status_code == 200
                assert client.get(f"{running.url}/metrics").status_code == 200
    for file in tmp_path.glob("ledger.db*"):
        assert token.encode() not in file.read_bytes()
        assert keys["a"].removeprefix("nomoat-").encode() not in file.read_bytes()


def test_without_keys_there_is_no_login(tmp_path: Path) -> None:
    with serving({"echo": EchoEngine}, chats=ledger_path(tmp_path)) as running, running.client() as client:
        assert client.get("/login").status_code == 404
        assert client.get("/app/").status_code == 200
