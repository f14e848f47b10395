"""Models as lm-eval asks for them.

Importing it needs the extra `eval`. Contexts that do not fit are cut at their beginning, as lm-eval's own models do it,
but counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, final

from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from nomoat.chat.conversation import Conversation, parse_messages
from nomoat.chat.template import ChatTemplate
from nomoat.engine.base import Sampling
from nomoat.engine.request import Request, ServingEngine, whole_answer
from nomoat.errors import EngineError

LONGEST_ANSWER = 256
"""Tokens of an answer where its task does not say, as lm-eval's own models have it."""


class Weighing(ServingEngine, Protocol):
    """A serving engine whose chat template and tokenizer are here."""

    @property
    def template(self) -> ChatTemplate:
        """What the model is served with."""


@final
class EngineModel(TemplateLM):
    """An engine that tells how likely a text is, as lm-eval asks for a model. `cut` and `asked` count contexts.

    Args:
        chat: render every prompt with the served chat template.
        progress: told how many requests were answered.
    """

    def __init__(self, engine: Weighing, *, chat: bool, progress: Callable[[int], None]) -> None:
        super().__init__()
        self.chat = chat
        self._engine, self._progress = engine, progress
        self.tokenizer = engine.template.tokenizer
        self.cut = self.asked = 0

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has nothing before it."""
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    @property
    def max_length(self) -> int:
        return self._engine.n_ctx

    @property
    def tokenizer_name(self) -> str:
        return self._engine.template.fingerprint

    def chat_template(self, chat_template: bool | str = False) -> str:
        return self._engine.template.source

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        talk = Conversation(parse_messages(chat_history, "lm-eval"))
        return self._engine.template.render(talk, add_generation_prompt=add_generation_prompt)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        # a rendered chat begins as its template says, and is served without anything added
        begins = not self.chat if add_special_tokens is None else add_special_tokens
        return self._engine.tokenize(string, begins=begins)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """log p of whole texts, in windows that each know one token before them."""
        return [
            sum(logp for logp, _ in self._weighed(self._windows(request.args[0]))) for request in requests
        ]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        with ThreadPoolExecutor(self._engine.n_parallel) as pool:
            answers = pool.map(lambda asked: self._answer(*asked), _numbered(requests))
            return [self._count(text) for text in answers]

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        return list(self._weighed((context, continuation) for _, context, continuation in requests))

    def _weighed(self, parts: Iterable[tuple[list[int], list[int]]]) -> Iterator[tuple[float, bool]]:
        """log p of each continuation after its context, and whether it is what greedy decoding writes."""
        for context, continuation in parts:
            tokens = self._fitted(context, self.max_length - len(continuation)) + continuation
            weighed = self._engine.weigh(tokens, 1)[-len(continuation) :] if continuation else []
            logp = sum(written.chosen.logprob or 0.0 for written in weighed)
            yield self._count((logp, all(w.top[0].token == w.chosen.token for w in weighed)))

    def _windows(self, text: str) -> Iterator[tuple[list[int], list[int]]]:
        tokens = self.tok_encode(text, add_special_tokens=False)
        windows = get_rolling_token_windows(
            tokens, prefix_token=self.prefix_token_id, max_seq_len=self.max_length - 1, context_len=1
        )
        return map(make_disjoint_window, windows)

    def _answer(self, context: str, wanted: Mapping[str, Any], seed: int) -> str:
        sampling = _sampling(wanted, self.max_length - 1, seed)
        prompt = self._fitted(self.tok_encode(context), self.max_length - sampling.max_new_tokens)
        pieces, _ = whole_answer(self._engine, Request(tuple(prompt), sampling))
        return "".join(piece.text for piece in pieces)

    def _fitted(self, context: list[int], room: int) -> list[int]:
        if room < 1:
            raise EngineError(
                f"a task's continuation leaves no room for its context in {self.max_length} tokens",
                hint="Give more: --context N, up to what the model was made for.",
            )
        self.cut += len(context) > room
        return context[-room:]

    def _count(self, found: Any) -> Any:
        self.asked += 1
        self._progress(self.asked)
        return found


def _numbered(requests: Sequence[Any]) -> Iterator[tuple[str, Mapping[str, Any], int]]:
    """Context and settings of each request, and how often the same has come before: a task that draws several answers
    wants different ones."""
    seen = Counter[tuple[str, str]]()
    for request in requests:
        context, wanted = request.args
        key = context, repr(wanted)
        yield context, wanted, seen[key]
        seen[key] += 1


def _sampling(wanted: Mapping[str, Any], most: int, seed: int) -> Sampling:
    """What a task wants of an answer, of at most so many tokens."""
    until = wanted.get("until") or []
    return Sampling(
        max_new_tokens=min(int(wanted.get("max_gen_toks", LONGEST_ANSWER)), most),
        temperature=float(wanted.get("temperature", 1.0)) if wanted.get("do_sample") else 0.0,
        top_p=float(wanted.get("top_p", 1.0)),
        top_k=int(wanted.get("top_k", 0)),
        seed=seed,
        stop=(until,) if isinstance(until, str) else tuple(until),
    )
