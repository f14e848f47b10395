"""The generations' page over a ledger of three nights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from helpers.serving import serving
from helpers.workspaces import good_night, ledger_path, start_night
from nomoat.engine.echo import EchoEngine
from nomoat.evaluate.history import courses
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.ledger.peers import PeerScore, add_peer_scores
from nomoat.ledger.rows import Score
from nomoat.ledger.store import Ledger
from nomoat.serve.web.arena import Votes


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """gen-0001, the champion; a night that failed and cost all the same; gen-0002, a little better."""
    path = ledger_path(tmp_path)
    with Ledger.open(path) as opened:
        good_night(tmp_path, opened, "a")
        opened.judgements.crown(1, by="gate", said="")
        failed = start_night(opened)
        opened.finish_night(failed, status="failed", seconds=100.0, energy_joules=1000.0, dollars=0.0004)
        night = start_night(opened)
        opened.add_generation(night, base="base:x", served_file=".nomoat/artifacts/q/night.gguf")
        for who, value in (("base", 0.13), ("tuned", 0.7)):
            opened.add_scores(
                night,
                [
                    Score(
                        subject=who,  # type: ignore[arg-type]
                        suite="heldout",
                        metric="pass rate",
                        value=value,
                        low=value - 0.1,
                        high=value + 0.1,
                        n=60,
                    )
                ],
            )
        opened.finish_night(night, status="done", seconds=500.0, energy_joules=2000.0, dollars=0.002)
    return path


@pytest.fixture
def beside_peers(ledger: Path) -> Path:
    """Two outside models were measured, one of them twice, and a third on another suite."""
    big = PeerScore(name="big", endpoint="x big", suite="heldout", passed=50, n=60, dollars=0.02)
    with Ledger.open(ledger) as opened:
        add_peer_scores(opened, [replace(big, passed=1), replace(big, name="small <b>", passed=30)])
        add_peer_scores(opened, [big, replace(big, name="elsewhere", suite="other")])
    return ledger


def test_outside_models_are_lines_beside_the_generations(browser: Any, beside_peers: Path) -> None:
    with Ledger.open(beside_peers) as opened:
        rate, loss = courses(opened, ArtifactStore(beside_peers.parent.parent), confidence=0.95)
    assert [(peer.name, peer.value.value, peer.dollars) for peer in rate.peers] == [
        ("big", 50 / 60, 0.04),
        ("small <b>", 0.5, 0.02),
    ]
    assert loss.peers == ()
    votes = Votes(beside_peers, lambda holder: "owner")
    with serving({"base": EchoEngine}, chats=beside_peers, votes=votes) as running:
        page = browser.new_page()
        page.goto(f"{running.url}/generations/")
        page.wait_for_selector("#generations svg")
        shown = page.locator("#generations")
        expect(shown).to_contain_text("83.3% (72.0% to 90.7%)")
        expect(shown.locator("td", has_text="small <b>")).to_have_count(1)
        for line in (
            "base",
            "big",
            "small <b>",
        ):  # in both pictures of the pass rate: by the day, and by cost
            expect(shown.locator("svg text").get_by_text(line, exact=True)).to_have_count(
                4 if line == "base" else 2
            )
        expect(shown.locator("b")).to_have_count(0)
        page.close()


def test_cost_is_that_of_all_nights_until_then(ledger: Path) -> None:
    with Ledger.open(ledger) as opened:
        rate, loss = courses(opened, ArtifactStore(ledger.parent.parent), confidence=0.95)
    assert [point.spent.dollars for point in rate.points] == pytest.approx([0.0011, 0.0035])
    assert [point.spent.seconds for point in rate.points] == [390.0, 990.0]
    assert [point.value.value for point in rate.points if point.value] == [0.6333, 0.7]
    assert [point.is_champion for point in rate.points] == [True, False]
    assert rate.base is not None and rate.base.value == 0.13
    assert (loss.measure, loss.higher_is_better) == ("loss, held-out rows", False)
    assert loss.points[1].value is None


def test_every_generation_has_its_point_and_its_row(browser: Any, ledger: Path) -> None:
    with serving({"base": EchoEngine}, chats=ledger, votes=Votes(ledger, lambda holder: "owner")) as running:
        context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{running.url}/generations/")
        page.wait_for_selector("#generations svg")
        shown = page.locator("#generations")
        expect(shown.locator("svg[role=img]")).to_have_count(4)
        for text in (
            "gen-0001 ★ champion",
            "63.3% (50.7% to 74.4%)",
            "0.0035",
            "70.0%",
            "base",
            "dollars until",
        ):
            expect(shown).to_contain_text(text)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert {url for url in asked if not url.startswith((running.url, "data:"))} == set()
        page.click("#pages a:has-text('Arena')")
        page.wait_for_selector("#told", state="attached")
        context.close()
