"""Everything at once for a while: clients that hang up, read slowly, send nonsense or too much, and models that take
turns in memory. `NOMOAT_SOAK_S` is how long, in seconds."""

from __future__ import annotations

import os
import random
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from helpers.serving import Running, serving, wait_until
from nomoat.engine.llamaserver import LlamaServerEngine

SOAK_S = float(os.environ.get("NOMOAT_SOAK_S", "30"))
CLIENTS = 8
MODELS = ("gen-0001", "gen-0002", "champion")
MOST_BYTES = 20_000
PATH = "/v1/chat/completions"
# What allocators keep back for the next request; a leak of a model or of each answer is more, and grows with time.
MOST_GROWTH_BYTES = 24 * 2**20


def chat(rng: random.Random, **more: Any) -> dict[str, Any]:
    said = {"messages": [{"role": "user", "content": "word " * rng.randint(1, 40)}]}
    return {"model": rng.choice(MODELS), "max_tokens": rng.randint(1, 60), **said, **more}


class Client:
    """One of many. Notes which answers it got, and every one that is not among those it may get."""

    def __init__(self, running: Running, seed: int, until: float) -> None:
        self.seen: Counter[int] = Counter()
        self.sent = self.left = 0
        self.wrong: list[str] = []
        self._running = running
        self._rng = random.Random(seed)
        self._until = until
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        kinds: list[Callable[[httpx.Client], None]] = [
            self._whole, self._stream, self._slow, self._leaves_a_stream, self._hangs_up, self._oversized,
            self._malformed, self._refused,
        ]  # fmt: skip
        with self._running.client() as client:
            while time.monotonic() < self._until:
                self.sent += 1
                try:
                    self._rng.choice(kinds)(client)
                except Exception as error:
                    self.wrong.append(repr(error))

    def _note(self, answer: httpx.Response, *expected: int) -> None:
        self.seen[answer.status_code] += 1
        if answer.status_code not in expected:
            self.wrong.append(f"{answer.status_code}, not {expected}: {answer.read().decode()[:300]}")

    def _whole(self, client: httpx.Client) -> None:
        answer = client.post(PATH, json=chat(self._rng, n=self._rng.randint(1, 2)))
        self._note(answer, 200, 429)

    def _stream(self, client: httpx.Client, *, pause_s: float = 0.0) -> None:
        with client.stream("POST", PATH, json=chat(self._rng, stream=True)) as answer:
            self._note(answer, 200, 429)
            last = ""
            for line in answer.iter_lines():
                last = line or last
                time.sleep(pause_s)
            if answer.status_code == 200 and last != "data: [DONE]":
                self.wrong.append(f"a stream ended with {last[:300]}")

    def _slow(self, client: httpx.Client) -> None:
        self._stream(client, pause_s=0.02)

    def _leaves_a_stream(self, client: httpx.Client) -> None:
        with client.stream("POST", PATH, json=chat(self._rng, stream=True, max_tokens=200)) as answer:
            self._note(answer, 200, 429)
            next(answer.iter_lines())

    def _hangs_up(self, client: httpx.Client) -> None:
        """While it waits for the whole answer, or before all of the request is sent."""
        self.left += 1
        request = client.build_request("POST", PATH, json=chat(self._rng, max_tokens=200))
        body = request.read()
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        address = "127.0.0.1", int(self._running.url.rpartition(":")[2])
        with socket.create_connection(address) as connection:
            connection.sendall(f"POST {PATH} HTTP/1.1\r\n{head}\r\n".encode())
            connection.sendall(body if self._rng.random() < 0.7 else body[:20])
            time.sleep(self._rng.random() / 10)

    def _oversized(self, client: httpx.Client) -> None:
        said = [{"role": "user", "content": "x" * MOST_BYTES}]
        self._note(client.post(PATH, json=chat(self._rng, messages=said)), 413)

    def _malformed(self, client: httpx.Client) -> None:
        body = self._rng.choice([b"", b"{", b"[]", b"\xff", b'{"model": 1}', b"[" * 5000])
        self._note(client.post(PATH, content=body, headers={"Content-Type": "application/json"}), 400)

    def _refused(self, client: httpx.Client) -> None:
        long = [{"role": "user", "content": "word " * 1000}]
        body, status = self._rng.choice(
            [
                (chat(self._rng, model="gen-0009"), 404),
                (chat(self._rng, temprature=1), 400),
                (chat(self._rng, temperature=3), 400),
                (chat(self._rng, messages=long), 400),  # longer than its context
            ]
        )
        self._note(client.post(PATH, json=body), status, 429)


@pytest.mark.slow
def test_a_long_mixed_load_leaves_the_server_as_it_was(tiny: Path) -> None:
    def open_engine() -> LlamaServerEngine:
        return LlamaServerEngine(tiny / "model.gguf", tokenizer_dir=tiny, n_parallel=2, n_threads=1)

    with serving(
        {"gen-0001": open_engine, "gen-0002": open_engine},
        aliases={"champion": "gen-0002"},
        size_of=lambda model: 60,
        budget_bytes=100,  # one at a time
        most_waiting=4,
        most_bytes=MOST_BYTES,
    ) as running:
        end = time.monotonic() + SOAK_S
        clients = [Client(running, seed, end) for seed in range(CLIENTS)]
        resident: list[float] = []
        while time.monotonic() < end:
            time.sleep(SOAK_S / 60)
            resident.append(running.metric("process_resident_memory_bytes"))
        for client in clients:
            client.thread.join(60)
            assert not client.thread.is_alive()
        assert [said for client in clients for said in client.wrong] == []

        wait_until(lambda: running.metric("nomoat_running_answers") == 0)
        seen = sum((client.seen for client in clients), Counter[int]())
        assert {200, 400, 404, 413} <= seen.keys()
        _adds_up(
            running, seen, sent=sum(client.sent for client in clients), left=sum(c.left for c in clients)
        )
        assert running.metric('nomoat_model_loads_total{model="gen-0001"}') > 1

        quarter = len(resident) // 4
        before, after = (
            statistics.median(part) for part in (resident[quarter : -2 * quarter], resident[-quarter:])
        )
        assert after - before < MOST_GROWTH_BYTES, resident
        with running.client() as again:
            body = chat(random.Random(0), temperature=0)
            first, second = (again.post(PATH, json=body) for _ in range(2))
            assert first.status_code == second.status_code == 200
            assert first.json()["choices"] == second.json()["choices"]


def _adds_up(running: Running, seen: Counter[int], *, sent: int, left: int) -> None:
    """/metrics in itself, and with what the clients have counted."""
    samples: dict[str, Counter[str]] = {
        "nomoat_requests_total": Counter(),
        "nomoat_answers_ended_total": Counter(),
    }
    for line in running.metrics.page().decode().splitlines():
        name, _, labels = line.partition("{")
        if name in samples:
            value = float(line.rpartition(" ")[2])
            samples[name][labels.split('"')[-2]] += int(value)
    requests, ended = samples.values()
    assert running.metric("nomoat_requests_begun_total") == sum(requests.values()) == sent
    assert running.metric("nomoat_answers_begun_total") == sum(ended.values())
    assert running.metric("nomoat_waiting_requests") == 0
    assert ended["cancelled"] > 0 and ended["failed"] == 0
    # one that hung up before its body was there has sent half a JSON: 400; before its answer: 499, or any other
    assert sum(requests[str(status)] - count for status, count in seen.items()) + requests["499"] == left
    assert requests["404"] == seen[404] and requests["413"] == seen[413]
