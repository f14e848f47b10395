"""A real browser on a real server over echo engines."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import playwright.sync_api as playwright_api
import pytest

from helpers.serving import Running, serving
from helpers.workspaces import ledger_path
from nomoat.engine.echo import EchoEngine
from nomoat.engine.request import Ending, Piece, Request
from nomoat.serve.web.arena import Votes

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Gate:
    """Lets `slow` write a word at a time while it is closed: after the third it waits."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.words = 0

    def __call__(self) -> None:
        self.words += 1
        if self.words > 3:
            assert self.open.wait(20)


class Worded(EchoEngine):
    """Echoes with a word of its own in front, and the seed."""

    def __init__(self, word: str) -> None:
        super().__init__(n_ctx=4096)
        self._word = word

    def answer(self, request: Request, take: Callable[[Piece], bool]) -> Ending | None:
        prompt = f"{self._word} {request.sampling.seed} ".encode() + bytes(request.prompt)
        return super().answer(replace(request, prompt=tuple(prompt)), take)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return ledger_path(tmp_path)


@pytest.fixture
def running(gate: Gate, ledger: Path) -> Iterator[Running]:
    """Models: champion (gen-0002), gen-0001, base, dice, which says its seed, and slow, which the gate holds."""
    openers = {name: lambda: EchoEngine(n_ctx=2**22) for name in ("gen-0002", "gen-0001", "base")}
    openers["slow"] = lambda: EchoEngine(n_ctx=2**22, before_piece=gate)
    openers["dice"] = lambda: Worded("Dice")
    with serving(
        openers,
        aliases={"champion": "gen-0002"},
        chats=ledger,
        most_bytes=2**24,
        votes=Votes(ledger, lambda holder: "owner"),
    ) as found:
        yield found
        gate.open.set()


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright_api.Browser]:
    """Of a module and not of all: while it is open its event loop runs, and no other test may run one beside it."""
    path = shutil.which("chromium")
    if path is None:
        why = "chromium is not installed (Debian: apt-get install chromium)"
        if os.environ.get("NOMOAT_NEEDS_BROWSER"):
            pytest.fail(why)
        pytest.skip(why)
    with playwright_api.sync_playwright() as api:
        found = api.chromium.launch(executable_path=path, args=_FLAGS)
        yield found
        found.close()
