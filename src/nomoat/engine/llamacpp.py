"""llama.cpp in this process: no server, no port, no thread of ours."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import final

import numpy as np

from nomoat.chat.conversation import Conversation
from nomoat.chat.template import ChatTemplate
from nomoat.engine.base import Completion, FinishReason, Sampling
from nomoat.engine.choose import Answer, choose, special_ids
from nomoat.engine.cmodel import CModel, Context, Row
from nomoat.engine.weigh import score_answers, weigh_tokens
from nomoat.errors import EngineError
from nomoat.model.load import load_tokenizer

_DEFAULT_CONTEXT = 8192
_PROMPT_PART = 512  # prompt tokens computed at once; a stream can be closed between two parts


@dataclass
class _Turn:
    """An answer being written in one of the context's sequences. `live`: its text is wanted as it grows, for
    the reader or for the stop texts; decoding it once at the end costs less."""

    prompt: list[int]
    answer: Answer
    rng: np.random.Generator
    room: int
    live: bool
    sequence: int = 0
    computed: int = 0
    tokens: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def pending(self) -> list[int]:
        """Tokens the model has not seen yet."""
        n_prompt = len(self.prompt)
        if self.computed < n_prompt:
            return self.prompt[self.computed :]
        return self.tokens[self.computed - n_prompt :]


@final
class LlamaCppEngine:
    """A GGUF file that answers, one call at a time.

    Prompts are rendered by the chat template of `tokenizer_dir` and given to llama.cpp as token ids, so the
    served bytes are the trained ones; an answer ends at the template's own stop tokens.

    Args:
        gguf: the file.
        tokenizer_dir: the transformers folder that the file was made from.
        n_ctx: context of each conversation in tokens, at most what the model was made for; None for that, but
            no more than 8192: memory is taken for all of it at once.
        n_threads: threads of the forward pass. They wait for one another by spinning, so more than there are
            idle cores makes it many times slower.
        n_parallel: conversations computed together. More than one is faster on large models, but changes the
            rounding, and so one greedy answer in some dozens; with one, answers are repeated bit by bit.
        exact: compute attention in float32, as training does, and not with the float16 cache that llama.cpp's
            own programs have: twice its memory, and greedy answers nearer to those of the trained model.
        chat_template: a jinja file in place of the tokenizer's own template.
        adapter: the GGUF file of a LoRA adapter that it computes with.

    Raises:
        EngineError: a file is missing, not GGUF, cut short, or llama.cpp cannot load it; `n_ctx` is not
            within the model's context; or there is not memory enough.
    """

    def __init__(
        self,
        gguf: Path,
        *,
        tokenizer_dir: Path,
        n_ctx: int | None = None,
        n_threads: int = 1,
        n_parallel: int = 1,
        exact: bool = False,
        chat_template: Path | None = None,
        adapter: Path | None = None,
    ) -> None:
        self._context: Context | None = None
        self._model = CModel(gguf)
        try:
            self._adapter = None if adapter is None else self._model.load_adapter(adapter)
            largest = self._model.context_length
            if n_ctx is not None and not 0 < n_ctx <= largest:
                raise EngineError(
                    f"{gguf}: n_ctx: got {n_ctx}; this model's context has 1 to {largest} tokens"
                )
            self.n_ctx = n_ctx or min(largest, _DEFAULT_CONTEXT)
            self.template = ChatTemplate.of(load_tokenizer(tokenizer_dir), chat_template)
            self._special_ids = special_ids(self.template.tokenizer)
            self._stop_ids = frozenset(self.template.stop_token_ids)
            self._n_parallel = n_parallel
            self._n_threads = n_threads
            self._remembered: list[int] = []  # what sequence 0 holds, for the next stream
            self._call = 0  # a new call takes the context away from a stream that is still open
            self._context = Context(
                self._model,
                n_ctx=self.n_ctx,
                n_batch=max(_PROMPT_PART, n_parallel),
                n_outputs=n_parallel,
                n_threads=n_threads,
                n_sequences=n_parallel,
                exact=exact,
                adapter=self._adapter,
            )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LlamaCppEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the model. The engine cannot be used afterwards."""
        if self._context is not None:
            self._context.close()
            self._context = None
        self._model.close()

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        """An answer to each conversation, in order.

        Nothing is kept between conversations, so with `n_parallel` 1 an answer depends on its conversation,
        its place in the call (for the seed) and `sampling` alone.

        Raises:
            EngineError: a conversation leaves no room in the context for an answer.
        """
        return self.complete([self._encode(conversation) for conversation in conversations], sampling)

    def complete(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[Completion]:
        """As `generate`, for prompts that are token ids already."""
        live = bool(sampling.stop)
        turns = [self._turn(prompt, sampling, i, live=live) for i, prompt in enumerate(prompts)]
        self._remembered = []
        self._call += 1
        waiting = deque(turns)
        free = deque(range(self._n_parallel))
        active: list[_Turn] = []
        while waiting or active:
            while waiting and free:
                turn = waiting.popleft()
                turn.sequence = free.popleft()
                self._open_context().forget(turn.sequence, from_position=0)
                active.append(turn)
            self._step(active, sampling)
            free.extend(turn.sequence for turn in active if turn.finish_reason is not None)
            active = [turn for turn in active if turn.finish_reason is None]
        return [_completion(turn) for turn in turns]

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[str]:
        """The answer's text in whole characters, as they come. Closing the iterator stops the generation.
        The tokens that this conversation shares with the one streamed before are not computed again.

        Raises:
            EngineError: the conversation leaves no room in the context for an answer.
        """
        return self._pieces(self._turn(self._encode(conversation), sampling, 0, live=True), sampling)

    def _pieces(self, turn: _Turn, sampling: Sampling) -> Iterator[str]:
        turn.computed = self._reuse(turn.prompt)
        self._call += 1
        call = self._call
        while turn.finish_reason is None:
            if self._call != call:
                raise EngineError("a later call to this engine has ended this stream")
            self._step([turn], sampling)
            self._remembered = (turn.prompt + turn.tokens)[: turn.computed]
            yield from filter(None, turn.pieces)
            turn.pieces.clear()

    def _reuse(self, prompt: list[int]) -> int:
        """How many tokens of the prompt sequence 0 holds already; all else in it is forgotten."""
        shared = 0
        for held, wanted in zip(self._remembered, prompt[:-1], strict=False):  # the last yields the logits
            if held != wanted:
                break
            shared += 1
        context = self._open_context()
        if not context.forget(0, from_position=shared):
            context.forget(0, from_position=0)
            shared = 0
        self._remembered = prompt[:shared]
        return shared

    def _step(self, turns: Sequence[_Turn], sampling: Sampling) -> None:
        """Compute what is pending, up to a batch, and choose the next token where nothing more is."""
        context = self._open_context()
        rows: list[Row] = []
        ready: list[tuple[_Turn, int]] = []
        budget = max(_PROMPT_PART, self._n_parallel)
        for turn in turns:
            pending = turn.pending()
            part = pending[: budget - len(rows)]
            for i, token in enumerate(part):
                rows.append(Row(token, turn.computed + i, turn.sequence, i + 1 == len(pending)))
            turn.computed += len(part)
            if part and len(part) == len(pending):
                ready.append((turn, len(rows) - 1))
        context.decode(rows)
        for turn, row in ready:
            self._accept(turn, choose(context.logits(row), sampling, turn.rng))

    def _accept(self, turn: _Turn, token: int) -> None:
        turn.tokens.append(token)
        if token in self._stop_ids:
            turn.finish_reason = "stop"
        else:
            turn.answer.add(token)
            if turn.live:
                turn.pieces.append(turn.answer.take())
            if turn.answer.stopped:
                turn.finish_reason = "stop"
            elif len(turn.tokens) == turn.room:
                turn.finish_reason = "length"
        if turn.finish_reason is not None:
            turn.pieces.append(turn.answer.finish())

    def score(self, conversation: Conversation, answers: Sequence[str]) -> list[float]:
        """The natural logarithm of the probability that each text begins the answer, in float32 attention.

        Raises:
            EngineError: conversation and answer have more tokens than the model's context holds.
        """

        def weigh(tokens: Sequence[int]) -> list[float | None]:
            weighed = weigh_tokens(self._model, tokens, 0, n_threads=self._n_threads, adapter=self._adapter)
            return [w.logprob for w in weighed]

        return score_answers(self.template.encode_texts, weigh, self.render(conversation), answers)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Not here: llama.cpp needs another context for it, which `LlamaServerEngine` opens.

        Raises:
            EngineError: always.
        """
        raise EngineError("this engine makes no embeddings", hint="open the file with LlamaServerEngine")

    def render(self, conversation: Conversation) -> str:
        """The text that the model is given, up to where its answer begins."""
        return self.template.render(conversation, add_generation_prompt=True)

    def _encode(self, conversation: Conversation) -> list[int]:
        return self.template.encode(conversation, add_generation_prompt=True)

    def _turn(self, prompt: list[int], sampling: Sampling, index: int, *, live: bool) -> _Turn:
        if len(prompt) >= self.n_ctx:
            raise EngineError(
                f"the conversation has {len(prompt)} tokens and the context {self.n_ctx}; "
                "an answer needs one more at least",
                hint="shorten the conversation, or open the engine with a larger n_ctx",
            )
        return _Turn(
            prompt=prompt,
            answer=Answer(self.template.tokenizer, self._special_ids, prompt[-1], sampling.stop),
            rng=np.random.default_rng(sampling.seed + index),
            room=min(sampling.max_new_tokens, self.n_ctx - len(prompt)),
            live=live,
        )

    def _open_context(self) -> Context:
        if self._context is None:
            raise EngineError("this engine has been closed")
        return self._context


def _completion(turn: _Turn) -> Completion:
    assert turn.finish_reason is not None
    return Completion("".join(turn.pieces), tuple(turn.tokens), turn.finish_reason, len(turn.prompt))
