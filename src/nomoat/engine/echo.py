"""An engine without a model: it answers with what was said to it. For tests, and to try a client out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import final

from nomoat.chat.conversation import Conversation
from nomoat.engine.base import Completion, FinishReason, Sampling
from nomoat.engine.request import Ending, Likely, Piece, Request, Written
from nomoat.errors import EngineError

_WIDTH = 16


@final
class EchoEngine:
    """Answers with the newest user message. Its tokens are the bytes of UTF-8, and it is sure of each.

    Args:
        n_ctx: bytes of a message and its echo together.
        n_parallel: how many answers a server lets it write at once.
        before_piece: called before each piece; a test holds answers up with it.
    """

    def __init__(
        self, *, n_ctx: int = 4096, n_parallel: int = 4, before_piece: Callable[[], None] = lambda: None
    ) -> None:
        self._n_ctx = n_ctx
        self._n_parallel = n_parallel
        self._before_piece = before_piece

    @property
    def n_ctx(self) -> int:
        return self._n_ctx

    @property
    def n_parallel(self) -> int:
        return self._n_parallel

    def close(self) -> None:
        """Nothing is held."""

    def render(self, conversation: Conversation) -> str:
        return next((m.content for m in reversed(conversation.messages) if m.role == "user"), "")

    def encode(self, conversation: Conversation) -> list[int]:
        return self.tokenize(self.render(conversation))

    def tokenize(self, text: str, *, begins: bool = False) -> list[int]:
        return list(text.encode())

    @property
    def call_form(self) -> None:
        return None

    def answer(self, request: Request, take: Callable[[Piece], bool]) -> Ending | None:
        """The prompt's text word by word; see `ServingEngine.answer`. The grammar is not heeded."""
        text, reason = self._cut(bytes(request.prompt).decode(errors="replace"), request.sampling)
        for word in _words(text):
            self._before_piece()
            tokens = () if request.top_logprobs is None else tuple(_certain(byte) for byte in word.encode())
            if not take(Piece(word, tokens)):
                return None
        return Ending(reason, len(request.prompt), 0, len(text.encode()))

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        found = []
        for conversation in conversations:
            prompt = self.render(conversation)
            text, reason = self._cut(prompt, sampling)
            found.append(Completion(text, tuple(text.encode()), reason, len(prompt.encode())))
        return found

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[str]:
        yield from _words(self._cut(self.render(conversation), sampling)[0])

    def score(self, conversation: Conversation, answers: Sequence[str]) -> list[float]:
        prompt = self.render(conversation)
        return [0.0 if prompt.startswith(answer) else -math.inf for answer in answers]

    def detokenize(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode(errors="replace")

    def weigh(self, tokens: Sequence[int], top: int) -> list[Written]:
        certain = [_certain(token) for token in tokens]
        return [Written(replace(certain[0].chosen, logprob=None), ()), *certain[1:]]

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Vectors that are equal for equal texts and mean nothing else."""
        return [_unit(hashlib.sha256(text.encode()).digest()[:_WIDTH]) for text in texts]

    def _cut(self, text: str, sampling: Sampling) -> tuple[str, FinishReason]:
        raw = text.encode()
        if len(raw) >= self._n_ctx:
            raise EngineError(f"the prompt has {len(raw)} tokens and the context {self._n_ctx}")
        room = min(sampling.max_new_tokens, self._n_ctx - len(raw))
        kept = raw[:room].decode(errors="ignore")
        ends = [at for at in (kept.find(stop) for stop in sampling.stop) if at >= 0]
        if ends:
            return kept[: min(ends)], "stop"
        return kept, "stop" if len(raw) <= room else "length"


def _words(text: str) -> Iterator[str]:
    for i, word in enumerate(text.split(" ")):
        yield word if i == 0 else f" {word}"


def _certain(byte: int) -> Written:
    likely = Likely(byte, bytes([byte]).decode(errors="replace"), bytes([byte]), 0.0)
    return Written(likely, (likely,))


def _unit(raw: bytes) -> list[float]:
    centred = [byte - 127.5 for byte in raw]
    length = math.hypot(*centred)
    return [value / length for value in centred]
