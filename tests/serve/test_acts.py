"""Clicks on the chat page: two at once, and more than a key may have."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.serving import Names
from nomoat.engine.echo import EchoEngine
from nomoat.ledger.keys import Holder
from nomoat.ledger.rows import Thumb
from nomoat.serve.errors import ApiError
from nomoat.serve.limits import Limits, Ration
from nomoat.serve.metrics import Metrics
from nomoat.serve.pool import Pool
from nomoat.serve.turns import Desk
from nomoat.serve.web.acts import Acts
from nomoat.serve.web.chats import Answer, Chat, Chats, Turn
from nomoat.serve.web.parts import Parts, nothing
from nomoat.serve.web.view import talk
from nomoat.serve.web.writing import Column, Writer, Writing

NEW, EARLIER = Answer("m", "New.", "stop"), Answer("m", "Earlier.", "stop")
PARTS = Parts(**{field.name: field.name for field in fields(Parts)})
ASKED: Any = SimpleNamespace(state=SimpleNamespace())


class Slow:
    """Keeps thumbs as slowly as a busy ledger."""

    def __init__(self) -> None:
        self.kept: list[tuple[Thumb | None, str]] = []

    def rate(self, chat: Chat, place: int, answer: Answer, thumb: Thumb | None, holder: Any) -> None:
        time.sleep(0.05)
        self.kept.append((thumb, answer.text))


class Busy:
    """A writer that is asked to write one answer at most, as the real one is."""

    def __init__(self) -> None:
        self.begun: list[Chat] = []

    def running(self, chat_id: str) -> Any:
        return self.begun[0] if self.begun else None

    async def start(self, chat: Chat, holder: Any) -> Any:
        assert not self.begun
        self.begun.append(chat)
        await asyncio.sleep(0.05)
        done = asyncio.create_task(asyncio.sleep(0))
        await done
        return SimpleNamespace(
            task=done, is_done=True, error=None, so_far=lambda: chat, at_the_end=lambda: chat
        )


def at_once(*acts: Callable[[], Any]) -> None:
    async def all_of_them() -> None:
        await asyncio.gather(*(act() for act in acts))

    asyncio.run(all_of_them())


def test_of_two_preferences_at_once_the_first_counts(tmp_path: Path) -> None:
    chats, thumbs = Chats(tmp_path / "ledger.db"), Slow()
    chat = replace(Chat.new("Why?", "m"), turns=(Turn("Why?", NEW, earlier=EARLIER),))
    chats.save(chat)
    acts = Acts(Names(["m"]), Busy(), chats, thumbs, PARTS)  # type: ignore[arg-type]
    at_once(
        lambda: acts.prefer_newer(chat.id, ASKED),
        lambda: acts.prefer_earlier(chat.id, ASKED),
        lambda: acts.prefer_neither(chat.id),
    )
    assert thumbs.kept == [("up", "New."), ("down", "Earlier.")]
    kept = chats.get(chat.id)
    assert kept is not None
    assert kept.turns == (Turn("Why?", replace(NEW, thumb="up")),)


def test_of_two_messages_sent_at_once_one_is_answered(tmp_path: Path) -> None:
    chats, writer = Chats(tmp_path / "ledger.db"), Busy()
    chat = replace(Chat.new("Why?", "m"), turns=(Turn("Why?", NEW),))
    chats.save(chat)
    acts = Acts(Names(["m"]), writer, chats, None, PARTS)  # type: ignore[arg-type]

    async def send(text: str) -> None:
        async for _ in acts.send(chat.id, text, ASKED, "m", False, "", 0.7, 0.95, 16, None):
            pass

    at_once(lambda: send("One?"), lambda: send("Two?"))
    assert len(writer.begun) == 1


def test_an_answer_stays_where_no_word_of_the_new_one_came(tmp_path: Path) -> None:
    asked_anew = replace(Chat.new("Why?", "m"), turns=(Turn("Why?", earlier=EARLIER),))
    assert Writing(asked_anew, [Column("m", "")]).at_the_end().turns == (Turn("Why?", EARLIER),)
    written = Column("m", "", ["New."], ended="stop")
    (turn,) = Writing(asked_anew, [written]).at_the_end().turns
    assert turn.choice == (replace(NEW, system=""), EARLIER)

    chats, writer = Chats(tmp_path / "ledger.db"), Busy()
    chats.save(asked_anew)  # as a server leaves it that is killed then
    acts = Acts(Names(["m"]), writer, chats, None, PARTS)  # type: ignore[arg-type]

    async def retry() -> None:
        async for _ in acts.retry(asked_anew.id, ASKED, "m", False, "", 0.7, 0.95, 16, None):
            pass

    at_once(retry)
    assert writer.begun[0].turns == (Turn("Why?", earlier=EARLIER),)


def test_what_a_key_may_not_have_now_is_not_begun_and_not_lost(tmp_path: Path) -> None:
    chats, ration = Chats(tmp_path / "ledger.db"), Ration(Limits(most_at_once=1))
    opened = threading.Event()
    pool = Pool(
        Names(["m"]),
        lambda model: EchoEngine(before_piece=lambda: opened.wait(20)),
        lambda model: 1,
        budget_bytes=1,
        idle_s=600,
        metrics=Metrics(),
    )
    writer = Writer(Desk(pool, Metrics(), most_waiting=9), chats, ration)
    acts = Acts(Names(["m"]), writer, chats, None, PARTS)  # type: ignore[arg-type]
    she, he = (Holder(number, name, frozenset({"chat"})) for number, name in enumerate(("she", "he")))
    hers, his = (SimpleNamespace(state=SimpleNamespace(holder=holder)) for holder in (she, he))
    chosen = ("m", False, "", 0.7, 0.95, 16, None)
    chat = replace(Chat.new("Why?", "m"), turns=(Turn("Why?", NEW),))
    chats.save(chat)

    async def all_of(act: AsyncGenerator[dict[Any, Any]]) -> list[dict[Any, Any]]:
        return [changes async for changes in act]

    async def at_the_limit() -> None:
        begun = [acts.send("", "first", person, *chosen) for person in (hers, his)]
        assert [(await anext(one))["box"] for one in begun] == ["", ""]
        with pytest.warns(UserWarning, match="has 1 requests running already"):
            assert await all_of(acts.send("", "second", hers, *chosen)) == [nothing()]
            assert await all_of(acts.retry(chat.id, hers, *chosen)) == [nothing()]
            edit: Any = SimpleNamespace(index=0, value="How?")
            (changes,) = await all_of(acts.edit(chat.id, "a draft", edit, hers, *chosen))
        assert changes["box"] == "a draft\n\nHow?"
        assert changes["talk"]["value"] == talk(chat)
        with pytest.raises(ApiError), ration.request(she):  # the same count as the API's
            pass
        opened.set()
        for one in begun:
            assert all("box" not in changes for changes in await all_of(one))
        assert await all_of(acts.send("", " ", hers, *chosen)) == [nothing()]
        assert (await all_of(acts.send("", "second", hers, *chosen)))[0]["box"] == ""
        await writer.close()
        with ration.request(she):
            await pool.close()

    asyncio.run(at_the_limit())
    assert chats.get(chat.id) == replace(chat, changed_at=chats.find()[-1].changed_at)
    assert sorted(one.title for one in chats.find()) == ["Why?", "first", "first", "second"]
