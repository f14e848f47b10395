"""Answers while they are written: from the engine's thread into the event loop, words told from calls."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import final

from nomoat.chat.tools import Call, CallForm
from nomoat.engine.request import Ending, Piece, Request, Written
from nomoat.serve.errors import ApiError
from nomoat.serve.metrics import Metrics
from nomoat.serve.pool import Loaded, Pool
from nomoat.serve.prepare import Prepared

# Pieces that come within one of these go together, so that a wake-up and a write are paid for once: to an eye, 30 times
# a second is at once. The first piece and the end wait for nothing.
_FRAME_S = 1 / 30


@dataclass(frozen=True)
class Words:
    """Text that the reader may see, with its tokens where log-probabilities were asked for."""

    text: str
    tokens: tuple[Written, ...] = ()


@dataclass(frozen=True)
class Done:
    """The end of one answer: 'stop', 'length' or 'tool_calls'."""

    finish_reason: str
    calls: tuple[Call, ...]
    ending: Ending


Event = tuple[int, Words | Done]
"""Something of one of the answers to a prompt, which has this index."""


@final
class Desk:
    """Where requests wait for their turn. Past `most_waiting` of them, the next is sent away with a 429."""

    def __init__(self, pool: Pool, metrics: Metrics, *, most_waiting: int) -> None:
        self.pool = pool
        self._metrics = metrics
        self._most_waiting = most_waiting
        self._waiting = 0
        self._answer_s = 1.0  # how long an answer takes, from those seen

    @asynccontextmanager
    async def model(self, name: str) -> AsyncGenerator[Loaded]:
        """The model, loaded, for as long as one request needs it.

        Raises:
            ApiError: too many wait already, or as `Pool.lease`.
        """
        self._refuse_crowd()
        self._wait(1)
        try:
            loaded = await self.pool.lease(name)
        finally:
            self._wait(-1)
        try:
            yield loaded
        finally:
            self.pool.release(loaded)

    def choices(
        self, loaded: Loaded, prepared: Prepared, count: int, arrived: float
    ) -> AsyncGenerator[list[Event]]:
        """`count` answers to one prompt, as they come; each time all that there is to tell. Leaving the iterator ends
        them."""
        answers = [self._write(loaded, with_seed(prepared, index), index, arrived) for index in range(count)]
        return answers[0] if count == 1 else _together(answers)

    async def _write(
        self, loaded: Loaded, prepared: Prepared, index: int, arrived: float
    ) -> AsyncGenerator[list[Event]]:
        """One answer. A slot is one of those that the model's engine writes at once; who comes first is first."""
        self._wait(1)
        try:
            await loaded.slots.acquire()
        finally:
            self._wait(-1)
        slot = Slot(self.pool, loaded)
        reader = Reader(prepared.form, prepared.names)
        started, is_begun = time.monotonic(), False
        outcome = "failed"
        self._metrics.running.inc()
        self._metrics.answers_begun.inc()
        try:
            async for pieces, ending in slot.pieces(prepared.request):
                if slot.first_at is not None and not is_begun:
                    is_begun = True
                    self._metrics.first_token_s.observe(slot.first_at - arrived)
                told: list[Words | Done] = _joined([reader.take(piece) for piece in pieces])
                if ending is not None:
                    outcome = ending.finish_reason
                    self._count(ending, started, slot)
                    told += reader.finish(ending)
                if told:
                    yield [(index, one) for one in told]
        except (GeneratorExit, asyncio.CancelledError):
            outcome = "cancelled"
            raise
        finally:
            self._metrics.running.dec()
            self._metrics.answers_ended.labels(outcome).inc()
            slot.leave()

    def _refuse_crowd(self) -> None:
        if self._waiting >= self._most_waiting:
            raise ApiError(
                429,
                f"{self._waiting} requests are waiting for this server already; try again later",
                kind="rate_limit_error",
                code="queue_full",
                retry_after_s=max(1.0, self._answer_s * self._waiting / 4),
            )

    def _wait(self, change: int) -> None:
        self._waiting += change
        self._metrics.waiting.set(self._waiting)

    def _count(self, ending: Ending, started: float, slot: Slot) -> None:
        self._metrics.prompt_tokens.inc(ending.prompt_tokens)
        self._metrics.completion_tokens.inc(ending.completion_tokens)
        after_first_s = slot.last_at - (slot.first_at or slot.last_at)
        if ending.completion_tokens > 1 and after_first_s > 0:
            self._metrics.rate.observe((ending.completion_tokens - 1) / after_first_s)
        self._answer_s += 0.1 * (slot.last_at - started - self._answer_s)


async def _together(answers: Sequence[AsyncGenerator[list[Event]]]) -> AsyncGenerator[list[Event]]:
    """What several answers tell, as it comes. The first that fails ends all."""
    told: asyncio.Queue[list[Event] | Exception | None] = asyncio.Queue()

    async def read(answer: AsyncGenerator[list[Event]]) -> None:
        try:
            async with aclosing(answer):
                async for events in answer:
                    told.put_nowait(events)
            told.put_nowait(None)
        except Exception as error:
            told.put_nowait(error)

    tasks = [asyncio.create_task(read(answer)) for answer in answers]
    try:
        left = len(tasks)
        while left:
            events = await told.get()
            if isinstance(events, Exception):
                raise events
            if events is None:
                left -= 1
            else:
                yield events
    finally:
        for task in tasks:
            task.cancel()


@final
class Slot:
    """A place in an engine. It is free again only when the engine's thread has left, not when we have.

    Attributes:
        first_at: when the first text came, by `time.monotonic`; None before.
        last_at: when the engine had ended.
    """

    def __init__(self, pool: Pool, loaded: Loaded) -> None:
        self._pool = pool
        self._loaded = loaded
        self._cancelled = threading.Event()
        self._thread: asyncio.Future[Ending | BaseException | None] | None = None
        self.first_at: float | None = None
        self.last_at = 0.0

    async def pieces(self, request: Request) -> AsyncGenerator[tuple[list[Piece], Ending | None]]:
        """The engine's answer: each time the pieces that have come, and after the last its ending. Raises what the
        engine raises."""
        loop = asyncio.get_running_loop()
        come: deque[Piece] = deque()
        news = asyncio.Event()
        is_told, looked_at = False, loop.time() - _FRAME_S

        def take(piece: Piece) -> bool:
            nonlocal is_told
            if piece.text or piece.tokens:
                self.first_at = self.first_at or time.monotonic()
                come.append(piece)
                if not is_told:
                    is_told = True
                    loop.call_soon_threadsafe(look_in_time)
            return not self._cancelled.is_set()

        def look_in_time() -> None:
            wait_s = looked_at + _FRAME_S - loop.time()
            if wait_s > 0:
                loop.call_later(wait_s, news.set)
            else:
                news.set()

        def write() -> Ending | BaseException | None:
            try:
                return self._loaded.engine.answer(request, take)
            except BaseException as error:
                return error
            finally:
                self.last_at = time.monotonic()

        self._pool.hold(self._loaded)  # not to be closed under a thread that nobody waits for
        self._thread = loop.run_in_executor(self._loaded.threads, write)
        self._thread.add_done_callback(lambda _: news.set())
        is_over = False
        while not is_over:
            await news.wait()
            news.clear()
            is_told, looked_at = False, loop.time()
            is_over = self._thread.done()  # asked before the rest is taken, so that nothing can come after it
            end = self._thread.result() if is_over else None
            pieces = [come.popleft() for _ in range(len(come))]
            yield pieces, end if isinstance(end, Ending) else None
            if isinstance(end, BaseException):
                raise end

    def leave(self) -> None:
        """Nobody reads on."""
        self._cancelled.set()
        if self._thread is None:
            self._loaded.slots.release()
        else:
            self._thread.add_done_callback(lambda _: self._free())

    def _free(self) -> None:
        self._pool.release(self._loaded)
        self._loaded.slots.release()


@final
class Reader:
    """Tells words from calls in a growing answer. Words that may turn out to announce a call are held back.

    Args:
        form: how this model writes calls; None where it may not call.
        names: the tools it may call.
    """

    def __init__(self, form: CallForm | None, names: Collection[str]) -> None:
        self._form = form
        self._names = names
        self._text = ""
        self._given = 0

    def take(self, piece: Piece) -> Words:
        """What of the answer is certain to be words."""
        if self._form is None:
            return Words(piece.text, piece.tokens)
        self._text += piece.text
        marker = self._form.marker
        if not marker:  # the whole answer may be a call where it begins like one
            certain = 0 if self._text.lstrip()[:1] in ("", "{") else len(self._text)
        else:
            found = self._text.find(marker)
            end = found if found >= 0 else len(self._text) - _overlap(self._text, marker)
            certain = len(self._text[:end].rstrip())  # white space before a call belongs to it
        given, self._given = self._given, max(self._given, certain)
        return Words(self._text[given : self._given], piece.tokens)

    def finish(self, ending: Ending) -> list[Words | Done]:
        """What was held back, and the end."""
        if self._form is None:
            return [Done(ending.finish_reason, (), ending)]
        said, calls = self._form.parse(self._text, self._names)
        rest = said[self._given :]
        if not calls:
            return [*([Words(rest)] if rest else []), Done(ending.finish_reason, (), ending)]
        return [*([Words(rest)] if rest else []), Done("tool_calls", tuple(calls), ending)]


def _joined(words: Sequence[Words]) -> list[Words | Done]:
    """What came together, as one: to write and to read an event costs more than to make a token of a small model."""
    text = "".join(word.text for word in words)
    tokens = tuple(token for word in words for token in word.tokens)
    return [Words(text, tokens)] if text or tokens else []


def _overlap(text: str, marker: str) -> int:
    """How many letters at the text's end begin the marker."""
    return max((n for n in range(1, len(marker)) if text.endswith(marker[:n])), default=0)


def with_seed(prepared: Prepared, index: int) -> Prepared:
    """The same for the `index`-th choice: it draws with seed + index."""
    sampling = replace(prepared.request.sampling, seed=prepared.request.sampling.seed + index)
    return replace(prepared, request=replace(prepared.request, sampling=sampling))
