"""Under load: queues, clients that hang up, models that come and go, a server that stops. No real model."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable

import httpx
import pytest

from helpers.serving import Names, Running, serving, wait_until
from nomoat.engine.echo import EchoEngine
from nomoat.engine.request import Ending, Piece, Request


class Gate:
    """Holds an engine before each word until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.passed = 0

    def __call__(self) -> None:
        assert self.open.wait(120)
        self.passed += 1

    def engine(self, **more: int) -> Callable[[], EchoEngine]:
        return lambda: EchoEngine(before_piece=self, **more)


def chat(text: str = "one two three", model: str = "echo", **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def waiting_for_a_slot(running: Running) -> int:
    """Requests that are past everything else: the metric counts those that still look for their model, too."""
    return len(running.pool._loaded["echo"].slots._waiters or ())


def test_a_full_queue_sends_the_next_away_and_keeps_the_others() -> None:
    gate = Gate()
    with serving({"echo": gate.engine(n_parallel=1)}, most_waiting=2) as running, running.client() as client:
        answers: list[httpx.Response] = []

        def ask() -> None:
            answers.append(client.post("/v1/chat/completions", json=chat()))

        threads = [in_thread(ask)]
        wait_until(lambda: running.metric("nomoat_running_answers") == 1)
        for count in (1, 2):
            threads.append(in_thread(ask))
            wait_until(lambda count=count: waiting_for_a_slot(running) == count)
        assert running.metric("nomoat_waiting_requests") == 2
        refused = client.post("/v1/chat/completions", json=chat())
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["Retry-After"]) >= 1
        gate.open.set()
        for thread in threads:
            thread.join(120)
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert client.post("/v1/chat/completions", json=chat()).status_code == 200
        assert running.metric("nomoat_waiting_requests") == 0
        assert running.metric('nomoat_requests_total{path="/v1/chat/completions",status="429"}') == 1
        assert running.metric('nomoat_requests_total{path="/v1/chat/completions",status="200"}') == 4


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_ends_its_answer(stream: bool) -> None:
    gate = Gate()
    text = "word " * 200
    with serving({"echo": gate.engine(n_parallel=1)}) as running:
        body = json.dumps(chat(text, stream=stream)).encode()
        port = int(running.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            head = (
                "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            )
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            wait_until(lambda: running.metric("nomoat_running_answers") == 1)
        wait_until(lambda: running.metric("nomoat_running_answers") == 0)
        gate.open.set()
        with running.client() as client:  # its only slot is free again
            assert client.post("/v1/chat/completions", json=chat("hi")).status_code == 200
        assert gate.passed < 20
        assert running.metric('nomoat_answers_ended_total{outcome="cancelled"}') == 1


def test_a_client_that_hangs_up_while_it_waits_leaves_the_queue() -> None:
    gate = Gate()
    with serving({"echo": gate.engine(n_parallel=1)}) as running, running.client() as client:
        thread = in_thread(lambda: client.post("/v1/chat/completions", json=chat()))
        wait_until(lambda: running.metric("nomoat_running_answers") == 1)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{running.url}/v1/chat/completions", json=chat(), timeout=0.3)
        wait_until(lambda: running.metric("nomoat_waiting_requests") == 0)
        gate.open.set()
        thread.join(120)


def test_a_slow_reader_holds_nobody_up() -> None:
    with (
        serving({"echo": lambda: EchoEngine(n_parallel=1, n_ctx=2**20)}) as running,
        running.client() as client,
        client.stream("POST", "/v1/chat/completions", json=chat("word " * 2000, stream=True)) as slow,
    ):
        lines = slow.iter_lines()
        next(lines)
        assert client.post("/v1/chat/completions", json=chat("hi")).status_code == 200
        assert "".join(map(content, lines)).split() == ["word"] * 2000


def content(line: str) -> str:
    """What a line of a stream says."""
    if not line.startswith("data: {"):
        return ""
    (choice,) = json.loads(line[6:])["choices"]
    return choice["delta"].get("content", "")


def test_words_that_come_fast_share_an_event_and_none_waits_for_a_slow_one() -> None:
    stall, first = threading.Event(), iter([None, None])

    def before_piece() -> None:
        if next(first, stall) is stall:  # from the third word on
            assert stall.wait(120)

    engine = EchoEngine(before_piece=before_piece, n_ctx=2**20)
    body = chat("word " * 3000, stream=True)
    with (
        serving({"echo": lambda: engine}) as running,
        running.client() as client,
        client.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        lines = answer.iter_lines()
        text = ""
        while text != "word word":
            text += content(next(lines))
        stall.set()
        rest = [said for said in map(content, lines) if said]
        assert (text + "".join(rest)).split() == ["word"] * 3000
        assert len(rest) < 1000


def test_one_bad_request_disturbs_no_other() -> None:
    class Faulty:
        """Breaks at a word."""

        def __init__(self) -> None:
            self._inner = EchoEngine()

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

        def answer(self, request: Request, take: Callable[[Piece], bool]) -> Ending | None:
            if bytes(request.prompt) == b"break":
                raise ZeroDivisionError("secret detail")
            return self._inner.answer(request, take)

    with serving({"echo": Faulty}) as running, running.client() as client:
        broken = client.post("/v1/chat/completions", json=chat("break"))
        assert broken.status_code == 500
        assert "secret" not in broken.text
        assert broken.json()["error"]["type"] == "server_error"
        assert client.post("/v1/chat/completions", json=chat("hi")).status_code == 200
        assert running.metric("nomoat_running_answers") == 0


def test_models_are_switched_without_dropping_an_answer() -> None:
    gate = Gate()
    names = Names(["gen-0001", "gen-0002"], {"champion": "gen-0001"})
    closed: list[str] = []

    class Closing:
        def __init__(self, name: str, inner: EchoEngine) -> None:
            self._name, self._inner = name, inner

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

        def close(self) -> None:
            closed.append(self._name)

    openers = {
        "gen-0001": lambda: Closing("gen-0001", EchoEngine(before_piece=gate)),
        "gen-0002": lambda: Closing("gen-0002", EchoEngine()),
    }
    with (
        serving(openers, names=names, size_of=lambda model: 60, budget_bytes=100) as running,
        running.client() as client,
    ):
        answers: dict[str, httpx.Response] = {}

        def ask(key: str) -> None:
            answers[key] = client.post("/v1/chat/completions", json=chat("a b c", "champion"))

        old = in_thread(lambda: ask("old"))
        wait_until(lambda: running.metric("nomoat_running_answers") == 1)
        names.aliases["champion"] = "gen-0002"  # a night has ended
        new = in_thread(lambda: ask("new"))
        time.sleep(0.2)
        assert closed == [] and "new" not in answers  # there is no room beside the one in use
        gate.open.set()
        old.join(20)
        new.join(20)
        assert [answers[key].status_code for key in ("old", "new")] == [200, 200]
        assert answers["old"].json()["choices"][0]["message"]["content"] == "a b c"
        assert closed == ["gen-0001"]
        assert client.get("/health").json()["loaded"] == ["gen-0002"]
    assert closed == ["gen-0001", "gen-0002"]


def test_an_idle_model_is_closed_and_a_large_one_refused() -> None:
    sizes = {"echo": 60, "huge": 1000}
    with (
        serving(
            {"echo": EchoEngine, "huge": EchoEngine},
            size_of=lambda model: sizes[model.name],
            budget_bytes=100,
            idle_s=0.0,
        ) as running,
        running.client() as client,
    ):
        refused = client.post("/v1/chat/completions", json=chat(model="huge"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_too_large")
        assert client.post("/v1/chat/completions", json=chat()).status_code == 200
        assert running.metric('nomoat_model_loads_total{model="echo"}') == 1
        wait_until(lambda: client.get("/health").json()["loaded"] == [], most_s=12)
        assert client.post("/v1/chat/completions", json=chat()).status_code == 200
        assert running.metric('nomoat_model_loads_total{model="echo"}') == 2


def test_shutting_down_finishes_running_answers() -> None:
    gate = Gate()
    with serving({"echo": gate.engine()}) as running, running.client() as client:
        answers: list[httpx.Response] = []
        thread = in_thread(lambda: answers.append(client.post("/v1/chat/completions", json=chat())))
        wait_until(lambda: running.metric("nomoat_running_answers") == 1)
        running.server.handle_exit(signal.SIGTERM, None)
        time.sleep(0.3)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{running.url}/health", timeout=5)
        gate.open.set()
        thread.join(120)
        assert answers[0].status_code == 200
        assert answers[0].json()["choices"][0]["message"]["content"] == "one two three"


def test_metrics_add_up() -> None:
    with serving({"echo": EchoEngine}) as running, running.client() as client:
        for _ in range(3):
            client.post("/v1/chat/completions", json=chat("one two"))
        client.post("/v1/chat/completions", json=chat("x", temperature=9))
        assert client.post("/v1/chat/completions", json=chat("one two", stream=True)).is_success
        page = client.get("/metrics").text
        assert running.metric("nomoat_prompt_tokens_total") == 4 * len("one two")
        assert running.metric("nomoat_completion_tokens_total") == 4 * len("one two")
        assert running.metric("nomoat_time_to_first_token_seconds_count") == 4
        assert running.metric("nomoat_answer_tokens_per_second_count") == 4
        assert running.metric('nomoat_model_bytes{model="echo"}') == 1
        assert 'nomoat_requests_total{path="/v1/chat/completions",status="400"} 1.0' in page
        assert running.metric("nomoat_requests_begun_total") == 6  # the one for /metrics too
        assert running.metric("nomoat_answers_begun_total") == 4
        assert running.metric('nomoat_answers_ended_total{outcome="stop"}') == 4
        assert "process_resident_memory_bytes" in page
