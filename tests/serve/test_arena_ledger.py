"""The arena's ledger is read once, until somebody has written what would be read otherwise."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from helpers.votes import vote_on
from helpers.workspaces import artifact, good_night, held_out, ledger_path, start_night, two_generations
from nomoat.data.split import asked_keys
from nomoat.evaluate.battle import Battle, Contestant, Draw, Question
from nomoat.ledger.feedback import withdraw_voter
from nomoat.ledger.judgements import Judgements
from nomoat.ledger.store import Ledger
from nomoat.serve.web.arena import Arena, Votes
from nomoat.serve.web.arena_ledger import ArenaLedger

ONE, OTHER = (Contestant(f"gen-000{n}", f"quantize-{n}/night-Q8_0.gguf") for n in (1, 2))
SIDES = {
    "left_model": ONE.model,
    "right_model": OTHER.model,
    "left_name": ONE.name,
    "right_name": OTHER.name,
}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    two_generations(tmp_path, lambda number: [held_out(n) for n in range(4 * number)])
    return tmp_path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with every reading of all votes."""
    found: list[str] = []
    plain = Judgements.votes

    def counted(self: Judgements) -> Any:
        found.append(self.place)
        return plain(self)

    monkeypatch.setattr(Judgements, "votes", counted)
    return found


def add_vote(workspace: Path, number: int) -> None:
    with Ledger.open(ledger_path(workspace)) as ledger:
        ledger.judgements.add_votes([vote_on(f"Typed {number}", "yes", "no", **SIDES)])


def erase_all(workspace: Path) -> None:
    with Ledger.open(ledger_path(workspace)) as ledger:
        withdraw_voter(ledger, "ada", erase=True)


def add_generation(workspace: Path) -> None:
    with Ledger.open(ledger_path(workspace)) as ledger:
        night = good_night(workspace, ledger)
        ledger.add_samples(night, [held_out(9)])


def learn_what_is_asked(workspace: Path, *texts: str) -> None:
    """A night has made gen-0001 again, of votes on these prompts."""
    with Ledger.open(ledger_path(workspace)) as ledger:
        night = start_night(ledger)
        asked = [key for text in texts for key in asked_keys(Question.typed(text).conversation)]
        taught = artifact(workspace, "votes", "e", {}, asked=asked)
        files = artifact(workspace, "quantize", "f", {"votes": taught.id}, params={"name": "night"})
        for made in (taught, files):
            ledger.add_artifact(made)
        ledger.add_generation(
            night,
            base="base:x",
            gguf_artifact=files.id,
            served_file=f".nomoat/artifacts/{ONE.model}",
        )


def test_nothing_is_read_again_while_nothing_has_changed(workspace: Path, reads: list[str]) -> None:
    ledger = ArenaLedger(ledger_path(workspace))
    add_vote(workspace, 1)
    first = ledger.seen()
    assert (len(first.votes), len(first.evidence), len(first.nights.pool)) == (1, 1, 8)
    assert len(reads) == 1
    question = first.nights.pool[0]
    assert ledger.keep_draw(question, ONE, OTHER) is not None  # every battle writes this much
    assert ledger.seen() is first
    assert len(reads) == 1


def test_what_another_process_writes_is_seen(workspace: Path, reads: list[str]) -> None:
    ledger = ArenaLedger(ledger_path(workspace))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as elsewhere:

        def after(act: Callable[..., None], *more: Any) -> tuple[int, int, int, int]:
            elsewhere.submit(act, workspace, *more).result(60)
            found = ledger.seen()
            assert ledger.seen() is found
            return len(found.votes), len(found.evidence), len(found.nights.names), len(found.nights.pool)

        assert after(add_vote, 1) == (1, 1, 2, 8)
        assert after(add_vote, 2) == (2, 2, 2, 8)
        assert after(add_generation) == (2, 2, 3, 1)
        assert after(learn_what_is_asked, "Typed 1") == (2, 1, 4, 1)
        assert after(erase_all) == (0, 0, 4, 1)
        assert after(add_vote, 3) == (1, 1, 4, 1)
    assert len(reads) == 6


def test_rows_that_come_or_go_on_the_disk_are_looked_for_again(workspace: Path, reads: list[str]) -> None:
    ledger = ArenaLedger(ledger_path(workspace))
    ledger.seen()
    (workspace / ".nomoat" / "artifacts" / "data-1").mkdir(parents=True)
    ledger.seen()
    assert len(reads) == 2


class _Catalogue:
    """Two generations and their base."""

    def names(self) -> list[Any]:
        return [SimpleNamespace(name=name) for name in ("champion", OTHER.name, ONE.name, "base")]

    def resolve(self, name: str) -> str | None:
        return ONE.name if name == "champion" else name

    def find(self, resolved: str) -> Any:
        model = {one.name: one.model for one in (ONE, OTHER)}.get(resolved, "base.gguf")
        return SimpleNamespace(name=resolved, model=model, adapter=None)


def arena_of(workspace: Path) -> Arena:
    desk = cast(Any, SimpleNamespace(pool=SimpleNamespace(catalogue=_Catalogue())))
    arena = Arena(desk, Votes(ledger_path(workspace), lambda _: "owner", self_share=0, probe_share=0))
    arena._chance = random.Random(0)  # type: ignore[assignment]
    return arena


def test_pairs_are_drawn_without_reading_votes_again_and_after_a_vote_by_it(
    workspace: Path, reads: list[str]
) -> None:
    arena = arena_of(workspace)
    pairs = {frozenset(one.name for one in arena._pair([])) for _ in range(30)}
    assert pairs == {frozenset({ONE.name, other}) for other in (OTHER.name, "base")}, "both are as unknown"
    assert len(reads) == 1
    add_vote(workspace, 1)
    assert {frozenset(one.name for one in arena._pair([])) for _ in range(30)} == {
        frozenset({ONE.name, "base"})
    }
    assert len(reads) == 2


@pytest.mark.parametrize("taught", [0, 7, 8])
def test_a_battle_is_drawn_where_its_vote_will_count(
    workspace: Path, taught: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight prompts to draw from gen-0001 has learned from some."""
    learn_what_is_asked(workspace, *(f"Held out {n}" for n in range(taught)))
    arena = arena_of(workspace)

    async def answered(question: Question, draw: Draw, asked: object = None) -> Battle:
        return Battle(question, draw, "yes", "no", 0.0)

    monkeypatch.setattr(arena, "_answered", answered)

    async def drawn() -> list[Battle]:
        seen = await arena.seen()
        return [await arena._battle(seen) for _ in range(30)]

    battles = asyncio.run(drawn())
    asked = {battle.question.conversation.messages[0].content for battle in battles}
    pairs = {frozenset({battle.draw.left.name, battle.draw.right.name}) for battle in battles}
    assert len(asked) >= 7 if taught != 7 else asked == {"Held out 7"}
    assert pairs == (
        {frozenset({OTHER.name, "base"})}
        if taught == 8
        else {frozenset({ONE.name, OTHER.name}), frozenset({ONE.name, "base"})}
    )
    # what was not drawn from all of the night's prompts is no draw for them
    assert {battle.draw_id is None for battle in battles} == {taught == 7}
    cast_votes = [battle.vote("left", "owner", 1.0) for battle in battles]
    with Ledger.open(ledger_path(workspace)) as ledger:
        ledger.judgements.add_votes(cast_votes)
    seen = asyncio.run(arena.seen())
    assert len(seen.evidence) == len(seen.votes) > 0
