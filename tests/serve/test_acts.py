"""Two clicks at once on the chat page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from helpers.serving import Names
from nomoat.ledger.rows import Thumb
from nomoat.serve.web.acts import Acts
from nomoat.serve.web.chats import Answer, Chat, Chats, Turn
from nomoat.serve.web.parts import Parts
from nomoat.serve.web.writing import Column, Writing

NEW, EARLIER = Answer("m", "New.", "stop"), Answer("m", "Earlier.", "stop")
PARTS = Parts(**{field.name: field.name for field in fields(Parts)})
ASKED: Any = SimpleNamespace(headers={})


class Slow:
    """Keeps thumbs as slowly as a busy ledger."""

    def __init__(self) -> None:
        self.kept: list[tuple[Thumb | None, str]] = []

    def rate(self, chat: Chat, place: int, answer: Answer, thumb: Thumb | None, key: str) -> None:
        time.sleep(0.05)
        self.kept.append((thumb, answer.text))


class Busy:
    """A writer that is asked to write one answer at most, as the real one is."""

    def __init__(self) -> None:
        self.begun: list[Chat] = []

    def running(self, chat_id: str) -> Any:
        return self.begun[0] if self.begun else None

    async def start(self, chat: Chat) -> Any:
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
    chats, thumbs = Chats(tmp_path), Slow()
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
    chats, writer = Chats(tmp_path), Busy()
    chat = replace(Chat.new("Why?", "m"), turns=(Turn("Why?", NEW),))
    chats.save(chat)
    acts = Acts(Names(["m"]), writer, chats, None, PARTS)  # type: ignore[arg-type]

    async def send(text: str) -> None:
        async for _ in acts.send(chat.id, text, "m", False, "", 0.7, 0.95, 16, None):
            pass

    at_once(lambda: send("One?"), lambda: send("Two?"))
    assert len(writer.begun) == 1


def test_an_answer_stays_where_no_word_of_the_new_one_came(tmp_path: Path) -> None:
    asked_anew = replace(Chat.new("Why?", "m"), turns=(Turn("Why?", earlier=EARLIER),))
    assert Writing(asked_anew, [Column("m", "")]).at_the_end().turns == (Turn("Why?", EARLIER),)
    written = Column("m", "", ["New."], ended="stop")
    (turn,) = Writing(asked_anew, [written]).at_the_end().turns
    assert turn.choice == (replace(NEW, system=""), EARLIER)

    chats, writer = Chats(tmp_path), Busy()
    chats.save(asked_anew)  # as a server leaves it that is killed then
    acts = Acts(Names(["m"]), writer, chats, None, PARTS)  # type: ignore[arg-type]

    async def retry() -> None:
        async for _ in acts.retry(asked_anew.id, "m", False, "", 0.7, 0.95, 16, None):
            pass

    at_once(retry)
    assert writer.begun[0].turns == (Turn("Why?", earlier=EARLIER),)
