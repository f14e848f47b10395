"""Answers that the web app is writing. Each goes on, and is kept, when the page that asked for it is closed."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field, replace
from typing import final

from nomoat.ledger.keys import Holder
from nomoat.serve.errors import told
from nomoat.serve.http import log_fault
from nomoat.serve.limits import Ration
from nomoat.serve.prepare import Asked, Settings, prepare_chat
from nomoat.serve.turns import Desk, Done
from nomoat.serve.web.chats import STOPPED, Answer, Chat, Chats

BASE = "base"


@dataclass
class Column:
    """One model's answer as far as it is written."""

    model: str
    system: str
    parts: list[str] = field(default_factory=list)
    first_at: float | None = None
    seconds: float = 0.0
    tokens: int = 0
    ended: str = STOPPED
    error: str | None = None

    def answer(self) -> Answer | None:
        """None where no word of it came."""
        text = "".join(self.parts)
        if not text and self.ended == STOPPED:
            return None
        return Answer(self.model, text, self.ended, self.tokens, self.seconds, system=self.system)


@dataclass
class Writing:
    """What is being written in a conversation whose last turn has no answer yet."""

    chat: Chat
    columns: list[Column]
    task: asyncio.Task[None] | None = None

    @property
    def is_done(self) -> bool:
        return self.task is not None and self.task.done()

    @property
    def error(self) -> str | None:
        return next((column.error for column in self.columns if column.error), None)

    def so_far(self) -> Chat:
        """The conversation with what there is of the answers."""
        *before, last = self.chat.turns
        answers = [column.answer() for column in self.columns]
        turn = replace(last, answer=answers[0], base=answers[1] if len(answers) > 1 else None)
        return replace(self.chat, turns=(*before, turn))

    def at_the_end(self) -> Chat:
        """The conversation as it is kept: where no word of a new answer came, the one before stays."""
        chat = self.so_far()
        *before, last = chat.turns
        if last.answer is None and last.earlier is not None:
            chat = replace(chat, turns=(*before, replace(last, answer=last.earlier, earlier=None)))
        return chat


@final
class Writer:
    """Writes answers through the same desk as the API does. All methods are for the event loop's thread."""

    def __init__(self, desk: Desk, chats: Chats, ration: Ration) -> None:
        self._desk = desk
        self._chats = chats
        self._ration = ration
        self._running: dict[str, Writing] = {}

    def running(self, chat_id: str) -> Writing | None:
        """What is being written in this conversation."""
        return self._running.get(chat_id)

    async def start(self, chat: Chat, holder: Holder | None) -> Writing:
        """Keep the conversation and answer its last turn. That is one request of the holder's key, beside the base too,
        until all is written.

        Raises:
            ApiError: 429, the key has all that it may have now. Nothing was kept.
            LedgerError: it cannot be kept.
        """
        assert chat.id not in self._running, chat.id
        counted = ExitStack()
        counted.enter_context(self._ration.request(holder))
        models = [chat.model, *([BASE] if chat.beside_base and chat.model != BASE else [])]
        writing = Writing(chat, [Column(model, chat.manner.system) for model in models])
        self._running[chat.id] = writing
        try:
            await asyncio.to_thread(self._chats.save, chat)
        except BaseException:
            del self._running[chat.id]
            counted.close()
            raise
        writing.task = asyncio.create_task(self._write(writing))
        writing.task.add_done_callback(lambda _: counted.close())
        return writing

    async def stop(self, chat_id: str) -> None:
        """End what is being written; what is there of it is kept."""
        writing = self._running.get(chat_id)
        if writing is not None and writing.task is not None:
            writing.task.cancel()
            await asyncio.wait({writing.task})

    async def close(self) -> None:
        """End everything."""
        for chat_id in list(self._running):
            await self.stop(chat_id)

    async def _write(self, writing: Writing) -> None:
        asked = writing.chat.messages()
        try:
            await asyncio.gather(*(self._fill(column, asked, writing.chat) for column in writing.columns))
        except asyncio.CancelledError:
            pass  # stopped by the reader: what came is kept
        finally:
            try:
                await asyncio.to_thread(self._chats.save, writing.at_the_end())
            except Exception as error:
                log_fault(error)
                writing.columns[0].error = told(error).message
            del self._running[writing.chat.id]

    async def _fill(self, column: Column, asked: list[dict[str, str]], chat: Chat) -> None:
        try:
            async with aclosing(self._pieces(column, asked, chat)) as pieces:
                async for text in pieces:
                    column.first_at = column.first_at or time.monotonic()
                    column.parts.append(text)
        except Exception as error:
            log_fault(error)
            column.error = told(error).message

    async def _pieces(self, column: Column, asked: list[dict[str, str]], chat: Chat) -> AsyncGenerator[str]:
        arrived = time.monotonic()
        manner = chat.manner
        settings = Settings(
            max_tokens=manner.max_tokens,
            temperature=manner.temperature,
            top_p=manner.top_p,
            top_k=0,
            min_p=0.0,
            seed=secrets.randbits(31) if manner.seed is None else manner.seed,
        )
        async with self._desk.model(column.model) as loaded:
            column.model = loaded.name  # an alias may lead elsewhere tomorrow
            prepared = await asyncio.to_thread(prepare_chat, loaded.engine, Asked(asked), settings)
            async with aclosing(self._desk.choices(loaded, prepared, 1, arrived)) as choices:
                async for events in choices:
                    for _, event in events:
                        if not isinstance(event, Done):
                            yield event.text
                            continue
                        column.ended = event.finish_reason
                        column.tokens = event.ending.completion_tokens
                        column.seconds = time.monotonic() - (column.first_at or arrived)
