"""Who is let in: names, pages, sizes, keys; and that nothing of the machine is to be had."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from helpers.serving import Running, make_keys, serving
from nomoat.engine.echo import EchoEngine
from nomoat.ledger.store import Ledger

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def open_server() -> Iterator[Running]:
    with serving({"echo": EchoEngine}, most_bytes=2000, hosts=frozenset({"localhost", "mybox"})) as found:
        yield found


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    with Ledger.open(tmp_path_factory.mktemp("guard") / "ledger.db") as opened:
        yield opened


@pytest.fixture(scope="module")
def keys(ledger: Ledger) -> dict[str, str]:
    return make_keys(ledger, c="chat", v="vote", a="admin")


@pytest.fixture(scope="module")
def locked_server(ledger: Ledger) -> Iterator[Running]:
    with serving({"echo": EchoEngine}, keys=ledger) as found:
        yield found


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:1", 200),
        ("192.168.1.7", 200),
        ("[::1]:8000", 200),
        ("mybox:8000", 200),
        ("evil.com", 403),
        ("localhost.evil.com", 403),
        ("127.0.0.1.evil.com:8000", 403),
        ("[evil]", 403),
    ],
)
def test_a_name_that_is_not_ours_is_not_answered(open_server: Running, host: str, status: int) -> None:
    with open_server.client(headers={"Host": host}) as client:
        found = client.get("/health")
    assert found.status_code == status
    if status != 200:
        assert found.json()["error"]["code"] == "host_not_allowed"


def test_pages_of_others_are_kept_out(open_server: Running) -> None:
    with open_server.client() as client:
        own = open_server.url.partition("://")[2]
        for origin, status in ((f"http://{own}", 200), ("https://evil.com", 403), ("null", 403)):
            found = client.post("/v1/chat/completions", json=CHAT, headers={"Origin": origin})
            assert found.status_code == status, origin
            assert "access-control-allow-origin" not in found.headers
        asked = client.options(
            "/v1/chat/completions",
            headers={"Origin": "https://evil.com", "Access-Control-Request-Method": "POST"},
        )
        assert asked.status_code == 403
        plain = client.post(
            "/v1/chat/completions", content=json.dumps(CHAT), headers={"Content-Type": "text/plain"}
        )
        assert plain.status_code == 400  # what a page may send without asking is not read as JSON


def test_what_is_too_large_is_not_read(open_server: Running) -> None:
    large = CHAT | {"messages": [{"role": "user", "content": "x" * 3000}]}
    with open_server.client() as client:
        said = client.post("/v1/chat/completions", json=large)

        def pieces() -> Iterator[bytes]:
            for _ in range(40):
                yield b" " * 100

        unsaid = client.post(
            "/v1/chat/completions", content=pieces(), headers={"Content-Type": "application/json"}
        )
        assert [said.status_code, unsaid.status_code] == [413, 413]
        assert said.json()["error"]["code"] == "request_too_large"
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b"[" * 1900,
        b'{"model": "echo", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "\\ud800", "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "echo", "temperature": NaN, "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "echo", "temperature": 1e999, "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "echo", "\\ud800": 1, "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "echo", "stop": "\\udfff", "messages": [{"role": "user", "content": "x"}]}',
    ],
)
def test_what_is_no_request_is_the_clients_mistake(open_server: Running, body: bytes) -> None:
    with open_server.client() as client:
        for path in ("chat/completions", "completions", "embeddings", "responses"):
            found = client.post(f"/v1/{path}", content=body, headers={"Content-Type": "application/json"})
            assert 400 <= found.status_code < 500, (path, found.text)
            assert found.json()["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/static/x", "/..%2f..%2fetc/passwd", "/v1/../../etc/passwd", "/v1/models/..%2f..%2fetc"],
)
def test_no_file_is_to_be_had(open_server: Running, path: str) -> None:
    port = int(open_server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:  # httpx would tidy the path up
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := connection.recv(4096):
            answer += part
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b'"error"' in answer
    assert b"root:" not in answer


def test_a_key_opens_what_it_may(locked_server: Running, keys: dict[str, str]) -> None:
    def status(name: str | None, method: str, path: str) -> int:
        headers = {} if name is None else {"Authorization": f"Bearer {keys.get(name, name)}"}
        json_body = CHAT if method == "POST" else None
        return httpx.request(method, locked_server.url + path, headers=headers, json=json_body).status_code

    for key, chat, metrics in (
        (None, 401, 401),
        ("x", 401, 401),
        ("v", 403, 403),
        ("c", 200, 403),
        ("a", 200, 200),
    ):
        assert status(key, "POST", "/v1/chat/completions") == chat, key
        assert status(key, "GET", "/v1/models") == chat, key
        assert status(key, "GET", "/metrics") == metrics, key
        assert status(key, "GET", "/openapi.json") == chat, key
        assert status(key, "GET", "/health") == 200
    refused = httpx.get(f"{locked_server.url}/v1/models", headers={"Authorization": "Basic abc"})
    assert refused.json()["error"]["code"] == "missing_api_key"
    assert refused.headers["WWW-Authenticate"] == "Bearer"


def test_a_path_without_a_slash_is_no_fault_of_ours(locked_server: Running, keys: dict[str, str]) -> None:
    host, _, port = locked_server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n"
            % keys["c"].encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 404 ")


def test_a_ledger_that_cannot_be_asked_for_a_key_is_told_as_any_fault(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db") as ledger, serving({"echo": EchoEngine}, keys=ledger) as running:
        key = make_keys(ledger, c="chat")["c"]
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as other:
            other.execute("DROP TABLE keys")
        answer = httpx.get(f"{running.url}/v1/models", headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code >= 500
        assert answer.json()["error"]["type"] == "server_error"
        assert httpx.get(f"{running.url}/health").status_code == 200
