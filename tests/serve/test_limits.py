"""What one key may take of the server, and that the others lose nothing by it."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest

from helpers.serving import make_keys, serving, wait_until
from nomoat.engine.echo import EchoEngine
from nomoat.ledger.keys import Holder
from nomoat.ledger.store import Ledger
from nomoat.serve.errors import ApiError
from nomoat.serve.limits import Limits, Ration

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}


def ask(url: str, key: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{url}/v1/chat/completions", json=CHAT, headers=headers, timeout=30)


def test_a_key_waits_for_its_own_requests_alone(tmp_path: Path) -> None:
    opened = threading.Event()
    with (
        Ledger.open(tmp_path / "ledger.db") as ledger,
        serving(
            {"echo": lambda: EchoEngine(n_parallel=4, before_piece=lambda: opened.wait(20))},
            keys=ledger,
            limits=Limits(most_at_once=1),
        ) as running,
    ):
        greedy, modest = make_keys(ledger, greedy="chat", modest="chat").values()
        answers: list[httpx.Response] = []
        threads = []
        for count, key in enumerate((greedy, modest), 1):
            threads.append(threading.Thread(target=lambda key=key: answers.append(ask(running.url, key))))
            threads[-1].start()
            wait_until(lambda count=count: running.metric("nomoat_running_answers") == count)
        refused = ask(running.url, greedy)
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "1"
        assert refused.json()["error"] == {
            "message": "This key has 1 requests running already, the most it may have; try again later",
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        }
        models = httpx.get(f"{running.url}/v1/models", headers={"Authorization": f"Bearer {greedy}"})
        assert models.status_code == 200  # asks no model for anything
        opened.set()
        for thread in threads:
            thread.join(20)
        assert [answer.status_code for answer in answers] == [200, 200]
        assert ask(running.url, greedy).status_code == 200


def test_a_key_has_so_many_requests_a_minute() -> None:
    seconds = [0.0]
    ration = Ration(Limits(most_per_minute=2), now=lambda: seconds[0])

    def begin(key: str, at: float) -> None:
        seconds[0] = at
        with ration.request(Holder(ord(key), key, frozenset({"chat"}))):
            pass

    begin("a", 0)
    begin("a", 20)
    with pytest.raises(ApiError, match="made 2 requests within a minute") as refused:
        begin("a", 25.5)
    assert refused.value.response().headers["Retry-After"] == "35"
    begin("b", 25.5)
    begin("a", 60)
    with pytest.raises(ApiError):
        begin("a", 79)
    begin("a", 80)
