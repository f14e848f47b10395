"""Whole answers and streams of text, out of the pieces that a serving engine gives."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from nomoat.chat.conversation import Conversation
from nomoat.engine.base import Completion, Sampling
from nomoat.engine.request import Piece, Request, ServingEngine, whole_answer


def complete_all(
    engine: ServingEngine, conversations: Sequence[Conversation], sampling: Sampling
) -> list[Completion]:
    """An answer to each conversation, in order; the i-th draws with seed + i. `Completion.tokens` holds the
    tokens that have text. Raises as `ServingEngine.answer`."""

    def complete(index: int) -> Completion:
        prompt = tuple(engine.encode(conversations[index]))
        seeded = replace(sampling, seed=sampling.seed + index)
        pieces, ending = whole_answer(engine, Request(prompt, seeded, top_logprobs=0))
        tokens = tuple(written.chosen.token for piece in pieces for written in piece.tokens)
        text = "".join(piece.text for piece in pieces)
        return Completion(text, tokens, ending.finish_reason, ending.prompt_tokens)

    with ThreadPoolExecutor(engine.n_parallel) as threads:
        return list(threads.map(complete, range(len(conversations))))


def stream_text(engine: ServingEngine, conversation: Conversation, sampling: Sampling) -> Iterator[str]:
    """The answer's text in whole characters, as they come. Closing the iterator stops the generation. Raises as
    `ServingEngine.answer`."""
    pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
    is_closed = threading.Event()

    def take(piece: Piece) -> bool:
        pieces.put(piece.text)
        return not is_closed.is_set()

    def write() -> None:
        try:
            engine.answer(Request(tuple(engine.encode(conversation)), sampling), take)
            pieces.put(None)
        except BaseException as error:
            pieces.put(error)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            if piece:
                yield piece
    finally:
        is_closed.set()
        thread.join()
