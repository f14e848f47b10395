"""Answers while they are written: from the engine's thread into the event loop, words told from calls."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import final

from nomoat.chat.tools import Call, CallForm
from nomoat.engine.request import Ending, Piece, Request, Written
from nomoat.serve.errors import ApiError
from nomoat.serve.metrics import Metrics
from nomoat.serve.pool import Loaded, Pool
from nomoat.serve.prepare import Prepared


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

    async def choices(
        self, loaded: Loaded, prepared: Prepared, count: int, arrived: float
    ) -> AsyncGenerator[tuple[int, Words | Done]]:
        """`count` answers to one prompt, as they come, each with its index. Leaving the iterator ends them."""
        events: asyncio.Queue[tuple[int, Words | Done | BaseException]] = asyncio.Queue()

        async def write(index: int) -> None:
            try:
                async with aclosing(self._write(loaded, with_seed(prepared, index), arrived)) as answer:
                    async for event in answer:
                        events.put_nowait((index, event))
            except Exception as error:
                events.put_nowait((index, error))

        tasks = [asyncio.create_task(write(index)) for index in range(count)]
        try:
            left = count
            while left:
                index, event = await events.get()
                if isinstance(event, BaseException):
                    raise event
                left -= isinstance(event, Done)
                yield index, event
        finally:
            for task in tasks:
                task.cancel()

    async def _write(
        self, loaded: Loaded, prepared: Prepared, arrived: float
    ) -> AsyncGenerator[Words | Done]:
        """One answer. A slot is one of those that the model's engine writes at once; who comes first is first."""
        self._wait(1)
        try:
            await loaded.slots.acquire()
        finally:
            self._wait(-1)
        slot = Slot(self.pool, loaded)
        reader = Reader(prepared.form, prepared.names)
        started, first = time.monotonic(), None
        outcome = "failed"
        self._metrics.running.inc()
        self._metrics.answers_begun.inc()
        try:
            async for event in slot.pieces(prepared.request):
                now = time.monotonic()
                if isinstance(event, Ending):
                    outcome = event.finish_reason
                    self._count(event, now - started, now - (first or now))
                    for last in reader.finish(event):
                        yield last
                    return
                if first is None and (event.text or event.tokens):
                    first = now
                    self._metrics.first_token_s.observe(now - arrived)
                words = reader.take(event)
                if words.text or words.tokens:
                    yield words
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

    def _count(self, ending: Ending, seconds: float, after_first_s: float) -> None:
        self._metrics.prompt_tokens.inc(ending.prompt_tokens)
        self._metrics.completion_tokens.inc(ending.completion_tokens)
        if ending.completion_tokens > 1 and after_first_s > 0:
            self._metrics.rate.observe((ending.completion_tokens - 1) / after_first_s)
        self._answer_s += 0.1 * (seconds - self._answer_s)


@final
class Slot:
    """A place in an engine. It is free again only when the engine's thread has left, not when we have."""

    def __init__(self, pool: Pool, loaded: Loaded) -> None:
        self._pool = pool
        self._loaded = loaded
        self._cancelled = threading.Event()
        self._thread: asyncio.Future[None] | None = None

    async def pieces(self, request: Request) -> AsyncGenerator[Piece | Ending]:
        """The engine's answer. Raises what the engine raises."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Piece | Ending | BaseException | None] = asyncio.Queue()

        def tell(event: Piece | Ending | BaseException | None) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        def take(piece: Piece) -> bool:
            tell(piece)
            return not self._cancelled.is_set()

        def write() -> None:
            try:
                tell(self._loaded.engine.answer(request, take))
            except BaseException as error:
                tell(error)

        self._pool.hold(self._loaded)  # not to be closed under a thread that nobody waits for
        self._thread = loop.run_in_executor(self._loaded.threads, write)
        while True:
            event = await events.get()
            if isinstance(event, BaseException):
                raise event
            if event is None:
                return
            yield event
            if isinstance(event, Ending):
                return

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


def _overlap(text: str, marker: str) -> int:
    """How many letters at the text's end begin the marker."""
    return max((n for n in range(1, len(marker)) if text.endswith(marker[:n])), default=0)


def with_seed(prepared: Prepared, index: int) -> Prepared:
    """The same for the `index`-th choice: it draws with seed + index."""
    sampling = replace(prepared.request.sampling, seed=prepared.request.sampling.seed + index)
    return replace(prepared, request=replace(prepared.request, sampling=sampling))
