"""A loaded model as the chat sees it."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TYPE_CHECKING, Protocol, final

if TYPE_CHECKING:
    from nomoat.chat.conversation import Conversation
    from nomoat.engine.base import Sampling
    from nomoat.engine.llamacpp import LlamaCppEngine
    from nomoat.engine.torchserver import TorchEngine
    from nomoat.serve.models import ServedModel


class Talker(Protocol):
    """Something that answers conversations of up to `n_ctx` tokens."""

    name: str
    n_ctx: int

    def prompt_tokens(self, conversation: Conversation) -> int:
        """Tokens of the conversation as the model reads it before it answers."""

    def text_tokens(self, text: str) -> int:
        """Tokens of an answer."""

    def stream(self, conversation: Conversation, sampling: Sampling) -> Generator[str, None, None]:
        """The answer in pieces; closing it stops the model."""

    def close(self) -> None:
        """Free the model."""


@final
class GgufTalker:
    """A GGUF file in this process."""

    def __init__(self, name: str, engine: LlamaCppEngine) -> None:
        self.name = name
        self.n_ctx = engine.n_ctx
        self._engine = engine

    @staticmethod
    def open(served: ServedModel, most_context: int) -> GgufTalker:
        """Load a file. Its context is the model's own, or `most_context` tokens where that is fewer.

        Raises EngineError where it cannot be loaded."""
        from nomoat.engine.llamacpp import LlamaCppEngine

        return GgufTalker(
            served.name,
            LlamaCppEngine(
                served.gguf,
                tokenizer_dir=served.tokenizer_dir,
                n_ctx=min(most_context, served.context_length),
                n_threads=cores(),
            ),
        )

    def prompt_tokens(self, conversation: Conversation) -> int:
        return len(self._engine.template.encode(conversation, add_generation_prompt=True))

    def text_tokens(self, text: str) -> int:
        return len(self._engine.template.encode_texts([text])[0])

    def stream(self, conversation: Conversation, sampling: Sampling) -> Generator[str, None, None]:
        yield from self._engine.stream(conversation, sampling)

    def close(self) -> None:
        self._engine.close()


@final
class WeightsTalker:
    """A generation's own weights, in PyTorch in this process."""

    def __init__(self, name: str, engine: TorchEngine) -> None:
        self.name = name
        self.n_ctx = engine.n_ctx
        self._engine = engine

    @staticmethod
    def open(served: ServedModel, most_context: int) -> WeightsTalker:
        """Load the weights; the context is as in `GgufTalker.open`.

        Raises ArtifactError where there are none, ModelError where they cannot be loaded."""
        from nomoat.engine.torchserver import TorchEngine
        from nomoat.model.load import set_threads
        from nomoat.serve.models import weights_of

        set_threads(cores())
        n_ctx = min(most_context, served.context_length)
        return WeightsTalker(served.name, TorchEngine(weights_of(served), n_ctx=n_ctx, n_parallel=1))

    def prompt_tokens(self, conversation: Conversation) -> int:
        return len(self._engine.encode(conversation))

    def text_tokens(self, text: str) -> int:
        return len(self._engine.tokenize(text))

    def stream(self, conversation: Conversation, sampling: Sampling) -> Generator[str, None, None]:
        yield from self._engine.stream(conversation, sampling)

    def close(self) -> None:
        self._engine.close()


def cores() -> int:
    """Cores this process may use; macOS and Windows only tell how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
