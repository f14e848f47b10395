"""A server in a thread, on a real socket, over engines that a test gives."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from nomoat.engine.request import ServingEngine
from nomoat.ledger.keys import add_key
from nomoat.ledger.store import Ledger
from nomoat.serve.app import create_app
from nomoat.serve.guard import LOOPBACK_NAMES, Rules
from nomoat.serve.limits import UNLIMITED, Limits
from nomoat.serve.metrics import Metrics
from nomoat.serve.models import Catalogue, ModelName, ServedModel
from nomoat.serve.pool import Pool
from nomoat.serve.web.arena import Votes

Opener = Callable[[], ServingEngine]

HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell me of Lily."}]
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Kyiv", "Graz"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Now.", "parameters": PARAMETERS},
}
"""A chat, and a tool with its parameters, that clients ask with."""


class Names:
    """A catalogue of names that a test may change; `aliases` lead to them."""

    def __init__(self, names: list[str], aliases: dict[str, str] | None = None) -> None:
        self.known = names
        self.aliases = aliases or {}

    def names(self) -> list[ModelName]:
        return [ModelName(name) for name in [*self.aliases, *self.known]]

    def resolve(self, name: str) -> str | None:
        name = self.aliases.get(name, name)
        return name if name in self.known else None

    def weights_of(self, resolved: str) -> str:
        return resolved

    def find(self, resolved: str) -> ServedModel:
        return ServedModel(resolved, Path(resolved), Path(resolved), 256)


@dataclass
class Running:
    """A server that answers at `url`; `server` is uvicorn's."""

    url: str
    server: uvicorn.Server
    pool: Pool
    metrics: Metrics
    thread: threading.Thread

    def client(self, **more: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, **more)

    def metric(self, name: str) -> float:
        """A sample of /metrics, labels included in the name as Prometheus writes them."""
        lines = [line for line in self.metrics.page().decode().splitlines() if line.startswith(name + " ")]
        assert len(lines) == 1, (name, lines)
        return float(lines[0].rpartition(" ")[2])


@contextmanager
def serving(
    openers: dict[str, Opener],
    *,
    aliases: dict[str, str] | None = None,
    names: Catalogue | None = None,
    size_of: Callable[[ServedModel], int] = lambda model: 1,
    budget_bytes: int = 100,
    idle_s: float = 600,
    most_waiting: int = 32,
    most_bytes: int = 2**20,
    keys: Ledger | None = None,
    limits: Limits = UNLIMITED,
    hosts: frozenset[str] = LOOPBACK_NAMES,
    chats: Path | None = None,
    votes: Votes | None = None,
) -> Iterator[Running]:
    """Serve these models on a free port of 127.0.0.1 while inside."""
    metrics = Metrics()
    pool = Pool(
        names or Names(list(openers), aliases),
        lambda model: openers[model.name](),
        size_of,
        budget_bytes=budget_bytes,
        idle_s=idle_s,
        metrics=metrics,
    )
    rules = Rules(hosts, most_bytes, keys, limits)
    app = create_app(pool, metrics, rules, most_waiting=most_waiting, chats=chats, votes=votes)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=60))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Running(f"http://127.0.0.1:{port}", server, pool, metrics, thread)
    finally:
        server.should_exit = True
        thread.join(120)
        assert not thread.is_alive()


def make_keys(ledger: Ledger, **scopes: str) -> dict[str, str]:
    """A key of each name with these scopes, by name."""
    return {name: add_key(ledger, name, words.split()) for name, words in scopes.items()}


def wait_until(is_so: Callable[[], bool], *, most_s: float = 60) -> None:
    """Wait for something that another thread brings about."""
    end = time.monotonic() + most_s
    while not is_so():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)
