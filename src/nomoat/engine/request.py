"""What a server asks of an engine, and what it gets: token ids in, pieces of text with their tokens out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from nomoat.chat.conversation import Conversation
from nomoat.chat.tools import CallForm
from nomoat.engine.base import Engine, FinishReason, Sampling
from nomoat.errors import EngineError


@dataclass(frozen=True)
class Request:
    """A prompt and how to answer it.

    Attributes:
        prompt: token ids, as `ServingEngine.tokenize` makes them of rendered text.
        min_p: leave out tokens less likely than this share of the likeliest one's probability.
        frequency_penalty: taken from a token's logit for each time it has come.
        presence_penalty: taken from a token's logit once it has come.
        logit_bias: (token, what is added to its logit).
        grammar: what the answer must look like, from `nomoat.engine.grammar`; None for anything.
        top_logprobs: tell each token's log-probability, and those of this many likeliest; None tells nothing.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    grammar: str | None = None
    top_logprobs: int | None = None


@dataclass(frozen=True)
class Likely:
    """A token that could come, with the natural logarithm of its probability before any sampling setting;
    None for the first token of a given text, before which nothing stands."""

    token: int
    text: str
    raw: bytes
    logprob: float | None


@dataclass(frozen=True)
class Written:
    """A token that has come, and the likeliest ones at its place."""

    chosen: Likely
    top: tuple[Likely, ...]


@dataclass(frozen=True)
class Piece:
    """The next text of an answer, in whole characters; `tokens` where log-probabilities were asked for."""

    text: str
    tokens: tuple[Written, ...] = ()


@dataclass(frozen=True)
class Ending:
    """How an answer ended, and what it took. `cached_tokens` of the prompt were remembered from before."""

    finish_reason: FinishReason
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class ServingEngine(Engine, Protocol):
    """An engine that answers `n_parallel` requests at once, each with a context of `n_ctx` tokens."""

    @property
    def n_ctx(self) -> int:
        """Tokens of a prompt and its answer together, at most."""

    @property
    def n_parallel(self) -> int:
        """How many threads may be inside `answer` at once without one waiting for another."""

    @property
    def call_form(self) -> CallForm | None:
        """How the model was taught to call tools; None where it was not."""

    def tokenize(self, text: str, *, begins: bool = False) -> list[int]:
        """Token ids of text; nothing is added but, where the text `begins`, the token that the model has seen
        before every plain text."""

    def encode(self, conversation: Conversation) -> list[int]:
        """Token ids of what `render` gives."""

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""

    def weigh(self, tokens: Sequence[int], top: int) -> list[Written]:
        """How likely each token of a given text was, and the `top` likeliest at its place.

        Raises:
            EngineError: the text has no tokens, or more than the context holds.
        """

    def answer(self, request: Request, take: Callable[[Piece], bool]) -> Ending | None:
        """Write an answer in the calling thread, giving each piece to `take`, which says whether to go on.
        None where it said no.

        Raises:
            EngineError: the prompt leaves no room in the context, or a token is not in the vocabulary.
        """


class Adaptable(ServingEngine, Protocol):
    """A serving engine with LoRA adapters on its weights."""

    def adapted(self, adapter: str) -> ServingEngine:
        """The same weights with that adapter, for requests beside those without it; closing it closes nothing."""


def check_room(request: Request, n_ctx: int) -> None:
    """Raises EngineError where the prompt leaves no room for an answer."""
    if len(request.prompt) >= n_ctx:
        raise EngineError(
            f"the prompt has {len(request.prompt)} tokens and the context {n_ctx}; "
            "an answer needs one more at least",
            hint="shorten the conversation",
        )


def whole_answer(engine: ServingEngine, request: Request) -> tuple[list[Piece], Ending]:
    """All pieces of an answer, and how it ended. Raises as `ServingEngine.answer`."""
    pieces: list[Piece] = []

    def take(piece: Piece) -> bool:
        pieces.append(piece)
        return True

    ending = engine.answer(request, take)
    assert ending is not None  # nobody said stop
    return pieces, ending
