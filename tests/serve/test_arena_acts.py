"""Clicks on the arena's page: more than a key may have."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nomoat.engine.base import Sampling
from nomoat.evaluate.battle import Battle, Contestant, Draw, Question
from nomoat.ledger.keys import Holder
from nomoat.ledger.rows import Vote
from nomoat.serve.errors import ApiError
from nomoat.serve.limits import UNLIMITED, Limits, Ration
from nomoat.serve.web.arena import Arena, Shown, Votes
from nomoat.serve.web.arena_page import Acts, Parts
from nomoat.serve.web.parts import nothing

PARTS = Parts(**{field.name: field.name for field in fields(Parts)} | {"ballot": ("ballot",)})
SHE, HE = (Holder(number, name, frozenset({"vote"})) for number, name in enumerate(("she", "he")))
HERS, HIS = (cast(Any, SimpleNamespace(state=SimpleNamespace(holder=holder))) for holder in (SHE, HE))

ONE, OTHER = Contestant("a", "x/a.gguf"), Contestant("b", "x/b.gguf")
BATTLE = Battle(Question.typed("Hi"), Draw(ONE, OTHER, Sampling(), Sampling()), "Yes.", "No.", 0.0)
SHOWN = Shown("shown", "she", BATTLE)


class Slow:
    """An arena whose models write until they are let off."""

    def __init__(self, shown: Shown) -> None:
        self.shown: Shown | None = shown
        self.may_end = asyncio.Event()

    def voter_of(self, holder: Holder) -> str:
        return holder.name

    def find(self, shown_id: str, voter: str) -> Shown | None:
        return self.shown if shown_id else None

    def skip(self, shown_id: str, voter: str) -> None:
        if shown_id:
            self.shown = None

    async def draw(self, voter: str) -> Shown:
        return SHOWN

    async def ask(self, text: str, voter: str) -> AsyncGenerator[Battle]:
        await self.may_end.wait()
        yield BATTLE

    async def go_on(self, shown_id: str, text: str, voter: str) -> AsyncGenerator[Battle]:
        yield BATTLE


async def all_of(act: AsyncGenerator[dict[Any, Any]]) -> list[dict[Any, Any]]:
    return [changes async for changes in act]


def test_a_voter_at_the_limit_keeps_their_battle_and_what_they_typed() -> None:
    async def at_the_limit() -> None:
        arena, ration = Slow(SHOWN), Ration(Limits(most_at_once=1))
        acts = Acts(arena, ration, PARTS)  # type: ignore[arg-type]
        with ration.request(SHE):  # of the API
            with pytest.warns(UserWarning, match="has 1 requests running already"):
                assert await all_of(acts.ask("shown", "Why?", HERS)) == [nothing()]
                assert await all_of(acts.go_on("shown", "And?", HERS)) == [nothing()]
            assert arena.shown is SHOWN
            assert len(await all_of(acts.go_on("shown", "And?", HIS))) == 2
            with pytest.warns(UserWarning):  # the click that was refused ended the draw that they waited for
                *_, drawn = await all_of(acts.ask("", "Why?", HERS))
            assert drawn["shown_id"] == SHOWN.id and "value" not in drawn["box"]

        asking = acts.ask("shown", "Why?", HERS)
        assert (await anext(asking))["question"] == "Why?"
        with pytest.raises(ApiError), ration.request(SHE):
            pass
        arena.may_end.set()
        await all_of(asking)
        assert len(await all_of(acts.next("", HERS))) == 2  # answered ahead: nobody's
        with ration.request(SHE):
            pass

    asyncio.run(at_the_limit())


def test_an_error_in_the_middle_of_a_battle_tells_no_name() -> None:
    class Failing(Slow):
        async def go_on(self, shown_id: str, text: str, voter: str) -> AsyncGenerator[Battle]:
            yield BATTLE
            raise ApiError(503, "The model 'gen-0007' takes about 3 GiB", code="model_too_large")

    acts = Acts(Failing(SHOWN), Ration(UNLIMITED), PARTS)  # type: ignore[arg-type]
    *_, last = asyncio.run(all_of(acts.go_on("shown", "And?", HERS)))
    assert last["shown_id"] == SHOWN.id, "it may be voted on as it was"
    assert last["told"] == "Not answered: a model cannot be opened now; the log says why"


def test_who_leaves_while_their_vote_is_kept_cannot_cast_another(tmp_path: Path) -> None:
    async def leaving() -> None:
        arena = Arena(cast(Any, SimpleNamespace(pool=None)), Votes(tmp_path / "ledger.db", lambda _: "she"))
        kept, goes_on = list[Vote](), threading.Event()

        def keep(_: Battle, vote: Vote) -> bool:
            goes_on.wait(10)
            kept.append(vote)
            return False

        arena._ledger.keep = keep  # type: ignore[method-assign]
        arena._shown["shown"] = SHOWN
        voting = asyncio.create_task(arena.vote("shown", "she", "left"))
        await asyncio.sleep(0.05)
        voting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await voting
        assert await arena.vote("shown", "she", "right") is None
        goes_on.set()
        await asyncio.to_thread(lambda: None)
        while not kept:
            await asyncio.sleep(0.01)
        assert [vote.verdict for vote in kept] == ["left"]

    asyncio.run(leaving())


def test_a_battle_that_was_left_long_ago_is_no_vote_to_come(tmp_path: Path) -> None:
    arena = Arena(cast(Any, SimpleNamespace(pool=None)), Votes(tmp_path / "ledger.db", lambda _: "she"))
    now = time.monotonic()
    for number, shown_at_s in enumerate((now - 5000, now)):
        battle = replace(BATTLE, shown_at_s=shown_at_s)
        arena._shown[str(number)] = Shown(str(number), "she", battle)
    assert [battle.shown_at_s for battle in arena._unvoted()] == [now]
