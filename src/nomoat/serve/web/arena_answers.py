"""What the arena's models answer: one after the other, or both at once and shown in step."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import final

from nomoat.chat.conversation import Conversation
from nomoat.engine.base import Sampling
from nomoat.serve.pool import Loaded
from nomoat.serve.prepare import Asked, Prepared, Settings, prepare_chat
from nomoat.serve.turns import Desk, Words

LETTERS_A_SECOND = 50.0
"""Nobody reads faster (see `evaluate.head_to_head`), so that nobody waits for what they could have read."""
_TICK_S = 0.06


@dataclass
class Half:
    """One side of a battle: what a model is asked, and its answer as far as it is written."""

    model: str
    asked: Conversation
    sampling: Sampling
    answer: str = ""
    is_whole: bool = False


@final
class Answers:
    """All methods are for the event loop's thread, and raise ApiError where a model cannot answer."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def level(self, left: Half, right: Half) -> None:
        """Give both the same cap: what either has room for."""
        rooms = [await self._room(half) for half in (left, right)]
        for half in (left, right):
            cap = min(half.sampling.max_new_tokens, *rooms)
            half.sampling = replace(half.sampling, max_new_tokens=cap)

    async def write(self, half: Half) -> None:
        """Write a side to its end."""
        async with self._desk.model(half.model) as loaded:
            prepared = await _prepared(loaded, half.asked, half.sampling)
            async with aclosing(self._desk.choices(loaded, prepared, 1, time.monotonic())) as choices:
                async for events in choices:
                    half.answer += "".join(event.text for _, event in events if isinstance(event, Words))
        half.is_whole = True

    async def write_both(self, left: Half, right: Half) -> AsyncGenerator[tuple[str, str]]:
        """Write both at once, and give as much of each as may be shown, until that is all. They grow alike, at a pace
        that nobody reads faster than and never ahead of the slower one, so that it does not tell who is who."""
        tasks = [asyncio.create_task(self.write(half)) for half in (left, right)]
        letters, before = 0.0, time.monotonic()
        try:
            while not (left.is_whole and right.is_whole and letters == _longest(left, right)):
                await asyncio.sleep(_TICK_S)
                for task in tasks:
                    if task.done():
                        task.result()
                shown, now = int(letters), time.monotonic()
                letters = in_step(left, right, letters + LETTERS_A_SECOND * (now - before))
                before = now
                if int(letters) > shown:
                    yield left.answer[: int(letters)], right.answer[: int(letters)]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _room(self, half: Half) -> int:
        """Tokens that an answer may have at most."""
        async with self._desk.model(half.model) as loaded:
            sampling = replace(half.sampling, max_new_tokens=loaded.engine.n_ctx)
            return (await _prepared(loaded, half.asked, sampling)).request.sampling.max_new_tokens


def in_step(left: Half, right: Half, letters: float) -> float:
    """How many of the `letters` of each side may be shown: no more than a side has that is still written."""
    growing = [len(half.answer) for half in (left, right) if not half.is_whole]
    return float(min([letters, *growing, _longest(left, right)]))


def _longest(left: Half, right: Half) -> int:
    return max(len(left.answer), len(right.answer))


async def _prepared(loaded: Loaded, asked: Conversation, sampling: Sampling) -> Prepared:
    known = asked.to_dict()
    settings = Settings(
        max_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=0.0,
        seed=sampling.seed,
    )
    chat = Asked(known["messages"], known.get("tools", ()))
    return await asyncio.to_thread(prepare_chat, loaded.engine, chat, settings)
