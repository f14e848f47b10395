"""Models as lm-eval asks for them.

Importing it needs the extra `eval`. Contexts that do not fit are cut at their beginning, as lm-eval's own models do it,
but counted. Before that the answer gives way: some tasks allow it as many tokens as a large model takes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, final

from lm_eval.api.model import LM, TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from nomoat.chat.conversation import Conversation, parse_messages, shown
from nomoat.chat.template import ChatTemplate
from nomoat.engine.base import Sampling
from nomoat.engine.openai import OpenAIEngine, Spent
from nomoat.engine.request import Request, ServingEngine, whole_answer
from nomoat.errors import DataError, EngineError
from nomoat.evaluate.interview import Failed, Interview
from nomoat.evaluate.peer import reply_of

LONGEST_ANSWER = 256
"""Tokens of an answer where its task does not say, as lm-eval's own models have it. So many, or half of what the
model takes, are also what a long prompt leaves to an answer that may be longer."""
MOST_STOPS = 4
"""Texts that end an answer, of which OpenAI's API takes so many; at the others it is cut here."""
N_PARALLEL = 4


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
        self.spent: Spent | None = None
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
        """Without a generation prompt the task has begun the answer (`gen_prefix`), which goes on from there."""
        messages, template = parse_messages(chat_history, "lm-eval"), self._engine.template
        if add_generation_prompt:
            return template.render(Conversation(messages), add_generation_prompt=True)
        begun = replace(messages[-1], content=chat_history[-1]["content"])  # with the line breaks at its end
        return template.render_begun(Conversation((*messages[:-1], begun)))

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
        sampling = _sampling(wanted, seed)
        kept = min(sampling.max_new_tokens, LONGEST_ANSWER, self.max_length // 2)
        prompt = self._fitted(self.tok_encode(context), self.max_length - kept)
        most = min(sampling.max_new_tokens, self.max_length - len(prompt))
        pieces, _ = whole_answer(self._engine, Request(tuple(prompt), replace(sampling, max_new_tokens=most)))
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


@final
class EndpointModel(LM):
    """A model behind an OpenAI endpoint as lm-eval asks for one. It answers chats, as its own template has them, and
    does not tell how likely a text is.

    Args:
        identity: names it among the answers kept in `file`, so that none is paid for twice.
        progress: told how many requests were answered.
    """

    chat, cut = True, 0

    def __init__(
        self, engine: OpenAIEngine, *, identity: str, file: Path, progress: Callable[[int], None]
    ) -> None:
        super().__init__()
        self._engine, self._identity, self._file, self._progress = engine, identity, file, progress
        self.asked = 0

    @property
    def spent(self) -> Spent:
        return self._engine.spent

    @property
    def tokenizer_name(self) -> str:
        return self._identity

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Raises DataError where the task has begun the answer."""
        if not add_generation_prompt:
            raise DataError(
                f"--tasks: an answer is begun by its task ({shown(chat_history[-1]['content'])}, gen_prefix), which an "
                "endpoint does not go on with"
            )
        return json.dumps(chat_history, ensure_ascii=False)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Raises EngineError where an answer failed; those that came are kept."""
        asked = [
            (Conversation(parse_messages(json.loads(context), "lm-eval")), _sampling(wanted, n))
            for context, wanted, n in _numbered(requests)
        ]
        answers = {
            sampling: iter(self._answers([talk for talk, other in asked if other == sampling], sampling))
            for sampling in dict.fromkeys(sampling for _, sampling in asked)
        }
        return [next(answers[sampling]) for _, sampling in asked]

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[Any]:
        """Raises EngineError always."""
        raise EngineError(f"{self._identity}: an endpoint does not tell how likely a text is")

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[Any]:
        """Raises EngineError always."""
        return self.loglikelihood(requests)

    def _answers(self, talks: Sequence[Conversation], sampling: Sampling) -> list[str]:
        sent = replace(sampling, stop=sampling.stop[:MOST_STOPS])
        before = self.asked
        interview = Interview[str](
            lambda talk: reply_of(self._engine, talk, sent),
            role="endpoint",
            identity=f"{self._identity} {sampling}",
            file=self._file,
            n_parallel=N_PARALLEL,
        )
        found = interview.replies(talks, lambda done, total: self._progress(before + done))
        self.asked += len(talks)
        texts = []
        for text in found:
            if isinstance(text, Failed):
                raise EngineError(
                    f"{self._identity}: {interview.failures_said()}; {text.detail}",
                    hint="An answer that is not there cannot be scored. Those that came are kept: ask again.",
                )
            texts.append(min((text.split(stop, 1)[0] for stop in sampling.stop), key=len, default=text))
        return texts


def _numbered(requests: Sequence[Any]) -> Iterator[tuple[str, Mapping[str, Any], int]]:
    """Context and settings of each request, and how often the same has come before: a task that draws several answers
    wants different ones."""
    seen = Counter[tuple[str, str]]()
    for request in requests:
        context, wanted = request.args
        key = context, repr(wanted)
        yield context, wanted, seen[key]
        seen[key] += 1


def _sampling(wanted: Mapping[str, Any], seed: int) -> Sampling:
    """What a task wants of an answer."""
    until = wanted.get("until") or []
    draws = bool(wanted.get("do_sample"))
    return Sampling(
        max_new_tokens=int(wanted.get("max_gen_toks", LONGEST_ANSWER)),
        temperature=float(wanted.get("temperature", 1.0)) if draws else 0.0,
        top_p=float(wanted.get("top_p", 1.0)),
        top_k=int(wanted.get("top_k", 0)),
        seed=seed if draws else 0,
        stop=tuple(filter(None, [until] if isinstance(until, str) else until)),
    )
