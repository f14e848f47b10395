"""Clicks on the arena's page: more than a key may have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import fields
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nomoat.engine.base import Sampling
from nomoat.evaluate.battle import Battle, Contestant, Draw, Question
from nomoat.ledger.keys import Holder
from nomoat.serve.errors import ApiError
from nomoat.serve.limits import Limits, Ration
from nomoat.serve.web.arena import Shown
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
