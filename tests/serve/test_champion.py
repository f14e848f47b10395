"""A server that runs while the champion changes: the real catalogue, verbs and HTTP, with engines that only echo."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from helpers.commands import nomoat
from helpers.generations import workspace_with_generation
from helpers.serving import Running, serving, wait_until
from helpers.workspaces import ledger_path
from nomoat.cli.catalogue import WorkspaceModels
from nomoat.engine.echo import EchoEngine
from nomoat.engine.request import Ending, Piece, Request, ServingEngine
from nomoat.ledger.store import Ledger

WORDS = "one two three four"


class Named:
    """An echo that says who it is, and goes on when it may."""

    def __init__(self, name: str) -> None:
        self.begun, self.goes_on = threading.Event(), threading.Event()
        self.goes_on.set()
        self._name, self._echo = name, EchoEngine(before_piece=self._hold)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._echo, name)

    def answer(self, request: Request, take: Callable[[Piece], bool]) -> Ending | None:
        take(Piece(f"{self._name}: "))
        return self._echo.answer(request, take)

    def _hold(self) -> None:
        self.begun.set()
        assert self.goes_on.wait(60)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two generations, of the same files, the first of them the champion."""
    place = workspace_with_generation(tmp_path)
    with Ledger.open(ledger_path(place)) as ledger:
        first = ledger.generation("latest")
        ledger.add_generation(
            first.night_id,
            base="base:x",
            merged_artifact=first.merged_artifact,
            gguf_artifact=first.gguf_artifact,
            served_file=first.served_file,
        )
    monkeypatch.chdir(place)
    assert nomoat("promote", "gen-0001", "--anyway").exit_code == 0
    return place


def asked(stream: bool) -> dict[str, object]:
    return {"model": "champion", "messages": [{"role": "user", "content": WORDS}], "stream": stream}


def answer(running: Running) -> str:
    with running.client() as client:
        found = client.post("/v1/chat/completions", json=asked(stream=False)).json()
    text: str = found["choices"][0]["message"]["content"]
    return text


def pieces(response: httpx.Response) -> Iterator[str]:
    for line in response.iter_lines():
        if line.startswith("data: {"):
            for choice in json.loads(line.removeprefix("data: "))["choices"]:
                yield choice["delta"].get("content") or ""


@pytest.mark.parametrize("room_for", [1, 2])
def test_the_new_champion_answers_at_once_and_the_old_one_ends_what_it_is_saying(
    workspace: Path, room_for: int
) -> None:
    """Where memory has room for one model only, the new one waits for that end."""
    engines = {name: Named(name) for name in ("gen-0001", "gen-0002")}
    first, second = (f"{name}: {WORDS}" for name in engines)
    openers = {name: lambda name=name: cast(ServingEngine, engines[name]) for name in engines}  # type: ignore[misc]
    with (
        serving(openers, names=WorkspaceModels(workspace), budget_bytes=room_for) as running,
        ThreadPoolExecutor() as pool,
        running.client() as client,
    ):
        assert answer(running) == first
        old = engines["gen-0001"]
        old.begun.clear()
        old.goes_on.clear()
        with client.stream("POST", "/v1/chat/completions", json=asked(stream=True)) as response:
            assert old.begun.wait(30)
            assert nomoat("promote", "gen-0002", "--anyway").exit_code == 0
            wait_until(lambda: running.pool.catalogue.resolve("champion") == "gen-0002", most_s=5)
            new = pool.submit(answer, running)
            if room_for == 2:
                assert new.result(30) == second
            old.goes_on.set()
            assert "".join(pieces(response)) == first, "nothing of it is lost"
        assert new.result(30) == second
        assert nomoat("rollback").exit_code == 0
        wait_until(lambda: running.pool.catalogue.resolve("champion") == "gen-0001", most_s=5)
        assert answer(running) == first
