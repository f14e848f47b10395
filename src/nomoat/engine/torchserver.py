"""PyTorch in this process: a transformers folder that answers many at once, with its own weights as they are."""
# R rows that grow · T tokens · V vocabulary

from __future__ import annotations

import functools
import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, final

import numpy as np
import torch

from nomoat.chat.conversation import Conversation
from nomoat.data.pack import Packed, Tokens, pack
from nomoat.engine.answers import complete_all, stream_text
from nomoat.engine.base import Completion, FinishReason, Sampling
from nomoat.engine.choose import Answer, choose, special_ids
from nomoat.engine.guidance import Follower, Vocabulary
from nomoat.engine.prompts import ByPrompts, Prompts, token_bytes
from nomoat.engine.request import Ending, Likely, Piece, Request, Written, check_room
from nomoat.engine.rollouts import read_prompts, step_of
from nomoat.engine.weigh import score_answers, weigh_token
from nomoat.errors import EngineError
from nomoat.model.cache import Cache, Writing
from nomoat.model.fused.decode import FOLDED_BYTES, Step
from nomoat.model.load import (
    Machine,
    cached_numbers,
    choose_machine,
    count_parameters,
    count_vocabulary,
    load_model,
    read_shape,
)

_ASK_S = 0.2  # how often a reader who waits for a token is asked whether he still does


def footprint_bytes(model_dir: Path, *, n_tokens: int) -> int:
    """About what a folder takes in memory with a cache of so many tokens.

    Raises:
        ModelError: it is no model folder.
    """
    machine, shape = choose_machine(), read_shape(model_dir)
    weights, output = count_parameters(model_dir), shape.vocabulary * shape.width
    blocks = weights - count_vocabulary(model_dir, shape.vocabulary)
    size = cached_size = machine.dtype.itemsize
    copies = blocks * size if blocks * size <= FOLDED_BYTES else 0  # in `nomoat.model.fused.decode`
    if machine.device == "cpu":
        cached_size = torch.float32.itemsize
        if max(blocks, output) * cached_size <= FOLDED_BYTES:  # all of it in C
            copies = (blocks + output) * cached_size
    return weights * size + copies + n_tokens * cached_numbers(model_dir) * cached_size


def card_bytes() -> int | None:
    """Memory of the GPU that it computes on; None where that is the processor."""
    if choose_machine().device != "cuda":
        return None
    return int(torch.cuda.get_device_properties(0).total_memory)


@dataclass(frozen=True)
class _Event:
    """A token that has come, with what was asked of its likelihood, and how the answer ended if it did."""

    token: int
    written: Written | None
    reason: FinishReason | None


@dataclass(eq=False)
class _Row:
    """An answer that grows in a row of the cache. `form` is what it is held to; `is_over`: it has ended, or nobody
    reads it any more."""

    request: Request
    prompt: Tokens
    room: int
    rng: np.random.Generator
    form: Follower | None
    tokens: list[int] = field(default_factory=list)
    events: queue.SimpleQueue[_Event | BaseException] = field(default_factory=queue.SimpleQueue)
    is_over: bool = False

    @property
    def cached(self) -> int:
        """Tokens that the cache holds: all but the last one that has come."""
        return len(self.prompt) + len(self.tokens) - 1


@final
class TorchEngine(ByPrompts):
    """A transformers folder that answers `n_parallel` requests at once, on a GPU where there is one.

    Prompts are rendered by the folder's chat template and given as token ids, so the served bytes are the trained
    ones. Each answer has a row of one cache, which is made once, and each step computes a token for all rows; whoever
    comes takes a free row between two steps. A prompt is read at once, and the others wait for it. An answer draws
    with random numbers of its own, so those beside it change it only where rounding decides. `min_p` has its say
    before `top_k` and `top_p`; penalties count what has been answered.

    Args:
        model_dir: config, weights as safetensors, and tokenizer.
        n_ctx: context of each request in tokens, at most what the model was made for; None for that.
        n_parallel: requests computed together.
        machine: device and number format; None chooses what suits this machine.

    Raises:
        ModelError: the folder does not open.
        BudgetError: it does not fit into the memory.
        EngineError: `n_ctx` is not within the model's context.
    """

    def __init__(
        self,
        model_dir: Path,
        *,
        n_ctx: int | None = None,
        n_parallel: int = 4,
        machine: Machine | None = None,
    ) -> None:
        largest = read_shape(model_dir).context
        if n_ctx is not None and not 0 < n_ctx <= largest:
            raise EngineError(
                f"{model_dir}: n_ctx: got {n_ctx}; this model's context has 1 to {largest} tokens"
            )
        self._prompts = Prompts(model_dir)
        template = self._prompts.template
        self._special_ids = special_ids(template.tokenizer)
        self._stop_ids = frozenset(template.stop_token_ids)
        self._bytes_of = token_bytes(template.tokenizer)
        self.n_ctx = n_ctx or largest
        self.n_parallel = n_parallel
        self._model: Any = load_model(model_dir, machine or choose_machine()).eval()
        self._n_vocab = int(self._model.config.get_text_config().vocab_size)
        self._computing = threading.Lock()
        self._changed = threading.Condition()
        self._waiting: deque[_Row] = deque()
        self._is_closed = False
        with torch.no_grad():
            step = step_of(self._model)  # here, where who opens the engine is told that it does not work
        cache = Cache(n_parallel, self.n_ctx)
        self._worker = threading.Thread(
            target=self._work, args=(step, cache), name="nomoat-torch", daemon=True
        )
        self._worker.start()

    def __enter__(self) -> TorchEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the model. Answers that are being written end with an EngineError."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._worker.join()
        with self._computing:
            self._model = None

    # ---- answers

    def answer(self, request: Request, take: Callable[[Piece], bool]) -> Ending | None:
        """Write an answer in the calling thread; see `ServingEngine.answer`."""
        check_room(request, self.n_ctx)
        self._check_tokens([*request.prompt, *(token for token, _ in request.logit_bias)])
        room = min(request.sampling.max_new_tokens, self.n_ctx - len(request.prompt))
        row = _Row(
            request,
            np.array(request.prompt, dtype=np.uint32),
            room,
            np.random.default_rng(request.sampling.seed),
            None if request.grammar is None else self._vocabulary.follow(request.grammar),
        )
        self._enter(row)
        try:
            return self._told(row, take)
        finally:
            row.is_over = True

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        """See `complete_all`."""
        return complete_all(self, conversations, sampling)

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[str]:
        """See `stream_text`."""
        return stream_text(self, conversation, sampling)

    @functools.cached_property
    def _vocabulary(self) -> Vocabulary:
        """What grammars are followed with, made when the first one comes. What ends an answer is no text in it,
        whatever the tokenizer calls it."""
        ends = self._prompts.template.stop_token_ids
        texts = [b"" if token in ends else self._bytes_of(token) for token in range(self._n_vocab)]
        return Vocabulary(texts, ends[0])

    def _enter(self, row: _Row) -> None:
        with self._changed:
            if self._is_closed:
                raise _closed()
            self._waiting.append(row)
            self._changed.notify()

    def _told(self, row: _Row, take: Callable[[Piece], bool]) -> Ending | None:
        """Give the tokens of a row on as text."""
        tokenizer, sampling = self._prompts.template.tokenizer, row.request.sampling
        answer = Answer(tokenizer, self._special_ids, row.request.prompt[-1], sampling.stop)
        count = 0
        while True:
            try:
                event = row.events.get(timeout=_ASK_S)
            except queue.Empty:
                if take(Piece("")):
                    continue
                return None
            if isinstance(event, BaseException):
                raise event
            count += 1
            answer.add(event.token)
            text = answer.take()
            reason: FinishReason | None = "stop" if answer.stopped else event.reason
            if reason is not None:
                text += answer.finish()
            told = event.written if event.token not in self._stop_ids else None
            if not take(Piece(text, () if told is None else (told,))):
                return None
            if reason is not None:
                return Ending(reason, len(row.prompt), 0, count)

    # ---- the thread that computes

    @torch.no_grad()
    def _work(self, step: Step, cache: Cache) -> None:
        growing: list[_Row] = []
        while (entering := self._entering(growing)) is not None:
            try:
                with self._computing:
                    if entering:
                        first, prompts = len(growing), [row.prompt for row in entering]
                        growing += entering
                        logits_RV = read_prompts(self._model, cache, prompts, first)
                    else:
                        logits_RV = self._step(step, cache, growing)
                for row, logits_V in zip(entering or growing, logits_RV.cpu().numpy(), strict=True):
                    try:
                        self._add(row, logits_V)
                    except EngineError as error:  # of its grammar, which is nobody else's
                        row.events.put(error)
                        row.is_over = True
                _drop(growing, cache)
            except BaseException as error:
                for row in growing:
                    row.events.put(error)
                growing.clear()

    def _entering(self, growing: list[_Row]) -> list[_Row] | None:
        """Who takes a free row now; waits where there is nothing to do. None at the end."""
        with self._changed:
            while True:
                self._waiting = deque(row for row in self._waiting if not row.is_over)
                if self._is_closed:
                    for row in [*growing, *self._waiting]:
                        row.events.put(_closed())
                    return None
                if growing or self._waiting:
                    free = min(len(self._waiting), self.n_parallel - len(growing))
                    return [self._waiting.popleft() for _ in range(free)]
                self._changed.wait()

    def _step(self, step: Step, cache: Cache, growing: Sequence[_Row]) -> torch.Tensor:
        device = self._model.device
        positions = [row.cached for row in growing]
        writing = Writing(cache, torch.tensor(positions, device=device), max(positions) + 1)
        logits_RV: torch.Tensor = step(
            torch.tensor([row.tokens[-1] for row in growing], device=device), writing
        )
        return logits_RV

    def _add(self, row: _Row, logits_V: np.ndarray) -> None:
        """The next token of a row."""
        request, form = row.request, row.form
        allowed_V = None if form is None else form.allowed()
        token = choose(_adjusted(logits_V, request, row.tokens, allowed_V), request.sampling, row.rng)
        row.tokens.append(token)
        if form is not None:
            form.take(token)
        reason: FinishReason | None = None
        if token in self._stop_ids or (form is not None and form.is_over):
            reason = "stop"
        elif len(row.tokens) == row.room:
            reason = "length"
        top = request.top_logprobs
        row.events.put(_Event(token, None if top is None else self._written(token, logits_V, top), reason))
        row.is_over = row.is_over or reason is not None

    # ---- what is not answering

    def score(self, conversation: Conversation, answers: Sequence[str]) -> list[float]:
        """See `Engine.score`; as exact as the machine's number format is."""

        def weigh(tokens: Sequence[int]) -> list[float | None]:
            return [written.chosen.logprob for written in self.weigh(tokens, 0)]

        return score_answers(self._prompts.encode_texts, weigh, self.render(conversation), answers)

    def weigh(self, tokens: Sequence[int], top: int) -> list[Written]:
        """See `ServingEngine.weigh`; all logits of the text are in memory at once, T x V floats."""
        self._check_length(tokens, "the text")
        logits_TV = self._output(self._open(), tokens).logits[0]
        found = [Written(self._likely(tokens[0], None), ())]
        for token, logits_V in zip(tokens[1:], logits_TV[:-1], strict=True):
            found.append(self._written(token, logits_V.float().cpu().numpy(), top))
        return found

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """See `Engine.embed`."""
        found = []
        for i, text in enumerate(texts):
            tokens = self.tokenize(text)
            self._check_length(tokens, f"input[{i}]")
            mean = self._output(self._open().base_model, tokens).last_hidden_state[0].float().mean(dim=0)
            found.append(torch.nn.functional.normalize(mean, dim=0).tolist())
        return found

    @torch.no_grad()
    def _output(self, module: Any, tokens: Sequence[int]) -> Any:
        text = np.array(tokens, dtype=np.uint32)
        with self._computing:
            packed: Packed = pack([(text, np.zeros(len(text), dtype=np.bool_))], self._open().device)
            return module(
                input_ids=packed.tokens_T[None],
                position_ids=packed.positions_T[None],
                segments=packed.segments,
                use_cache=False,
            )

    def _written(self, token: int, logits_V: np.ndarray, top: int) -> Written:
        weighed = weigh_token(logits_V, token, top)
        return Written(
            self._likely(token, weighed.logprob), tuple(self._likely(*pair) for pair in weighed.top)
        )

    def _likely(self, token: int, logprob: float | None) -> Likely:
        raw = self._bytes_of(token)
        return Likely(token, raw.decode(errors="replace"), raw, logprob)

    def _check_length(self, tokens: Sequence[int], what: str) -> None:
        if not 0 < len(tokens) <= self.n_ctx:
            raise EngineError(f"{what} has {len(tokens)} tokens; expected 1 to {self.n_ctx}")
        self._check_tokens(tokens)

    def _check_tokens(self, tokens: Sequence[int]) -> None:
        if not all(0 <= token < self._n_vocab for token in tokens):
            raise EngineError(f"invalid tokens; the vocabulary has ids 0 to {self._n_vocab - 1}")

    def _open(self) -> Any:
        if self._model is None:
            raise _closed()
        return self._model


def _closed() -> EngineError:
    return EngineError("this engine has been closed")


def _drop(growing: list[_Row], cache: Cache) -> None:
    """Take out the rows that are over; the last ones move into their places."""
    for index in reversed(range(len(growing))):
        if growing[index].is_over:
            last = growing.pop()
            if index < len(growing):
                growing[index] = last
                cache.move(len(growing), index, last.cached)


def _adjusted(
    logits_V: np.ndarray, request: Request, tokens: Sequence[int], allowed_V: np.ndarray | None
) -> np.ndarray:
    """Logits with what the request wants besides `Sampling`; nothing but what is allowed, if that is said."""
    adjusted_V = logits_V.copy()
    for token, bias in request.logit_bias:
        adjusted_V[token] += bias
    if request.frequency_penalty or request.presence_penalty:
        for token, times in Counter(tokens).items():
            adjusted_V[token] -= request.frequency_penalty * times + request.presence_penalty
    if allowed_V is not None:
        adjusted_V[~allowed_V] = -np.inf
    if request.min_p and request.sampling.temperature:
        least = adjusted_V.max() + request.sampling.temperature * np.log(request.min_p)
        adjusted_V[adjusted_V < least] = -np.inf
    return adjusted_V
