"""What every engine can do: answer conversations, whole or as a stream, weigh given answers, embed texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from nomoat.chat.conversation import Conversation

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. With `temperature` 0 it is the likeliest one, and the other three have no
    say; otherwise logits are divided by `temperature`, then cut to the `top_k` likeliest (0: all) and to the
    likeliest that together have probability `top_p`. There are no penalties.

    Attributes:
        max_new_tokens: tokens of an answer at most; fewer where the context ends.
        seed: the i-th conversation of a call draws with seed + i.
        stop: texts at which the answer ends, besides the model's own stop tokens; they are not part of it.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.max_new_tokens > 0, self.max_new_tokens
        assert self.temperature >= 0 and 0 < self.top_p <= 1 and self.top_k >= 0, self


GREEDY = Sampling()


@dataclass(frozen=True)
class Completion:
    """One answer.

    Attributes:
        text: without the stop token or stop text.
        tokens: as generated, the stop token included.
        finish_reason: 'stop', or 'length' where `max_new_tokens` or the context ended it.
        prompt_tokens: how many tokens the rendered conversation had.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int


class Engine(Protocol):
    """A loaded model that answers. Calls raise EngineError for a conversation that leaves no room in the
    context and for what this kind of engine cannot do, and DataError for a conversation that the chat
    template refuses."""

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        """An answer to each conversation, in order."""

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[str]:
        """The answer's text in pieces, as they come. Closing the iterator stops the generation."""

    def score(self, conversation: Conversation, answers: Sequence[str]) -> list[float]:
        """The natural logarithm of the probability that each text begins the answer; no stop token is
        counted."""

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector of length 1 for each text: the mean of the last layer over its tokens."""

    def render(self, conversation: Conversation) -> str:
        """The text that the model is given, up to where its answer begins."""

    def close(self) -> None:
        """Free the model. The engine cannot be used afterwards."""
