"""vLLM as a program that this process owns: many answers at once on a GPU, from a transformers folder."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, final

import httpx

from nomoat.chat.conversation import Conversation
from nomoat.engine.answers import complete_all, stream_text
from nomoat.engine.base import Completion, Sampling
from nomoat.engine.owned import OwnedServer
from nomoat.engine.prompts import ByPrompts, Prompts, token_bytes
from nomoat.engine.request import Ending, Likely, Piece, Request, Written, check_room
from nomoat.engine.weigh import score_answers
from nomoat.errors import EngineError, ServeError

_MODEL = "model"  # its only name for what it serves
_TOKEN = "token_id:"
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # all it needs lies in the folder
    "VLLM_NO_USAGE_STATS": "1",  # it reports to its makers otherwise
}


def card_bytes() -> int:
    """Memory of the GPU that vLLM would take.

    Raises:
        ServeError: vLLM is not installed, or PyTorch sees no GPU.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ServeError("vLLM is not installed", hint='Install it: pip install "nomoat[vllm]"')
    import torch

    if not torch.cuda.is_available():
        raise ServeError("vLLM needs a GPU, and PyTorch sees none here", hint="Serve with llama.cpp.")
    return int(torch.cuda.get_device_properties(0).total_memory)


@final
class VllmEngine(ByPrompts):
    """A transformers folder that answers `n_parallel` requests at once.

    Prompts are rendered by the folder's chat template here and given as token ids, so the served bytes are the
    trained ones. It computes in 16 bits (`--dtype auto`), so a greedy answer may differ from llama.cpp's where two
    tokens are all but equally likely; `min_p` has its say before `top_k` and `top_p`, and
    a bias beyond ±100 counts as 100. Of a prompt that is being read nothing is heard, so a reader who has gone is
    noticed at the first token. Where vLLM has died, the next request starts it anew.

    Args:
        model_dir: config, weights as safetensors, and tokenizer.
        n_ctx: context of each request in tokens, at most what the model was made for.
        n_parallel: requests computed together.
        memory_share: of the GPU's memory, which vLLM takes whole: what the weights leave is its cache.
        start_s: it must be ready after so many seconds.

    Raises:
        ServeError: vLLM does not start; the message ends with the last lines it wrote.
    """

    def __init__(
        self,
        model_dir: Path,
        *,
        n_ctx: int,
        n_parallel: int,
        memory_share: float,
        start_s: float = 1200.0,
    ) -> None:
        self._prompts = Prompts(model_dir)
        self._bytes_of = token_bytes(self._prompts.template.tokenizer)
        self._stop_token_ids = list(self._prompts.template.stop_token_ids)
        self._n_ctx = n_ctx
        self._n_parallel = n_parallel
        self._start_s = start_s
        self._words = serving_words(model_dir, n_ctx=n_ctx, n_parallel=n_parallel, memory_share=memory_share)
        self._starting = threading.Lock()
        self._is_closed = False
        self._server = self._start()

    def __enter__(self) -> VllmEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End vLLM, and answers that are being written with it."""
        with self._starting:
            self._is_closed = True
            self._server.close()

    @property
    def n_ctx(self) -> int:
        return self._n_ctx

    @property
    def n_parallel(self) -> int:
        return self._n_parallel

    # ---- answers

    def answer(self, request: Request, take: Callable[[Piece], bool]) -> Ending | None:
        """Write an answer in the calling thread; see `ServingEngine.answer`.

        Raises:
            EngineError: as there.
            ServeError: vLLM has ended, or fails.
        """
        check_room(request, self._n_ctx)
        top = request.top_logprobs or 0
        reason, usage = None, None
        with self._asked(_body(request, self._n_ctx, self._stop_token_ids)) as response:
            for line in response.iter_lines():
                data = line.removeprefix("data:").strip()
                if not line.startswith("data:") or data == "[DONE]":
                    continue
                event = json.loads(data)
                if "error" in event:
                    raise refusal(event["error"].get("code", 500), event)
                usage = event.get("usage") or usage
                for choice in event["choices"]:
                    reason = choice.get("finish_reason") or reason
                    piece = Piece(choice["text"], self._written(choice.get("logprobs"), top))
                    if not take(piece):
                        return None
        if usage is None or reason not in ("stop", "length"):
            raise ServeError(f"vLLM: the answer broke off ({reason or 'it has no end'})")
        return Ending(
            "stop" if reason == "stop" else "length",
            usage["prompt_tokens"],
            (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
            usage["completion_tokens"],
        )

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        """See `complete_all`."""
        return complete_all(self, conversations, sampling)

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[str]:
        """See `stream_text`."""
        return stream_text(self, conversation, sampling)

    # ---- what is not answering

    def score(self, conversation: Conversation, answers: Sequence[str]) -> list[float]:
        """See `Engine.score`; as exact as 16 bits are."""

        def weigh(tokens: Sequence[int]) -> list[float | None]:
            return [written.chosen.logprob for written in self.weigh(tokens, 0)]

        return score_answers(self._prompts.encode_texts, weigh, self.render(conversation), answers)

    def weigh(self, tokens: Sequence[int], top: int) -> list[Written]:
        """See `ServingEngine.weigh`; as exact as 16 bits are, and of one token less than the context, for vLLM
        always writes one."""
        if not 0 < len(tokens) < self._n_ctx:
            raise EngineError(
                f"the text has {len(tokens)} tokens; vLLM weighs 1 to {self._n_ctx - 1} at once"
            )
        body = {
            "model": _MODEL,
            "prompt": list(tokens),
            "prompt_logprobs": max(1, top),
            "max_tokens": 1,
            "temperature": 0.0,
        }
        with self._asked(body) as response:
            (choice,) = json.loads(response.read())["choices"]
        return [
            self._place(token, {int(key): value["logprob"] for key, value in (place or {}).items()}, top)
            for token, place in zip(tokens, choice["prompt_logprobs"], strict=True)
        ]

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Not here: a vLLM that writes answers gives no embeddings.

        Raises:
            EngineError: always.
        """
        raise EngineError(
            "a vLLM that writes answers gives no embeddings", hint="Serve with llama.cpp for them."
        )

    # ---- vLLM

    def _start(self) -> OwnedServer:
        return OwnedServer(
            "vLLM",
            lambda socket: [*self._words, "--uds", str(socket)],
            serving_environment,
            start_s=self._start_s,
        )

    def _running(self) -> OwnedServer:
        with self._starting:
            if self._is_closed:
                raise EngineError("this engine has been closed")
            if not self._server.is_alive:
                self._server.close()
                self._server = self._start()
            return self._server

    @contextmanager
    def _asked(self, body: Mapping[str, Any]) -> Iterator[httpx.Response]:
        """vLLM's good answer. Leaving it early hangs up, which ends the generation."""
        server = self._running()
        try:
            with server.client.stream("POST", "/v1/completions", json=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise refusal(response.status_code, response.read())
                yield response
        except httpx.HTTPError as error:
            raise server.broken(error) from error

    def _written(self, logprobs: Mapping[str, Any] | None, top: int) -> tuple[Written, ...]:
        """The tokens that have text: a stop token has none."""
        if logprobs is None:
            return ()
        places = zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
        found = []
        for name, logprob, likeliest in places:
            near = {token_of(other): value for other, value in (likeliest or {}).items()}
            found.append(self._place(token_of(name), near | {token_of(name): logprob}, top))
        return tuple(written for written in found if written.chosen.raw)

    def _place(self, token: int, logprobs: Mapping[int, float], top: int) -> Written:
        """vLLM tells the `top` likeliest and besides them the token itself, where it is not among them."""
        likeliest = sorted(logprobs.items(), key=lambda pair: -pair[1])[:top]
        return Written(
            self._likely(token, logprobs.get(token)), tuple(self._likely(*pair) for pair in likeliest)
        )

    def _likely(self, token: int, logprob: float | None) -> Likely:
        raw = self._bytes_of(token)
        return Likely(token, raw.decode(errors="replace"), raw, logprob)


def serving_words(model_dir: Path, *, n_ctx: int, n_parallel: int, memory_share: float) -> list[str]:
    """What starts a vLLM that serves a transformers folder; where it listens is still to be said."""
    # fmt: off
    return [
        sys.executable, "-P", "-m", "vllm.entrypoints.cli.main", "serve", str(model_dir.resolve()),
        "--served-model-name", _MODEL,
        "--max-model-len", str(n_ctx),
        "--max-num-seqs", str(n_parallel),
        "--gpu-memory-utilization", f"{memory_share:.4f}",
        "--generation-config", "vllm",  # sampling is what a request says, not what the folder does
        # the library that llama.cpp's grammars are for, so that one grammar holds both to the same form
        "--structured-outputs-config", json.dumps({"backend": "guidance"}),
        "--enable-prompt-tokens-details",
        "--disable-log-stats", "--disable-uvicorn-access-log",
    ]
    # fmt: on


def serving_environment(key: str) -> dict[str, str]:
    """Variables of a vLLM that demands this key."""
    return {**_ENVIRONMENT, "VLLM_API_KEY": key}


def token_of(name: str) -> int:
    """The id that vLLM has named a token by."""
    return int(name.removeprefix(_TOKEN))


def _body(request: Request, n_ctx: int, stop_token_ids: list[int]) -> dict[str, Any]:
    """vLLM's `CompletionRequest`, in which all that a folder could say otherwise is said."""
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": _MODEL,
        "prompt": list(request.prompt),
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": min(sampling.max_new_tokens, n_ctx - len(request.prompt)),
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": request.min_p,
        "seed": sampling.seed % 2**63,
        "stop": list(sampling.stop),
        "stop_token_ids": stop_token_ids,
        "repetition_penalty": 1.0,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "logit_bias": {str(token): bias for token, bias in request.logit_bias} or None,
    }
    if request.grammar is not None:
        body["structured_outputs"] = {"grammar": request.grammar}
    if request.top_logprobs is not None:
        body |= {"logprobs": request.top_logprobs, "return_tokens_as_token_ids": True}
    return body


def refusal(status: int, answered: bytes | Mapping[str, Any]) -> EngineError | ServeError:
    """What vLLM says against a request (4xx), or why it failed."""
    try:
        found = json.loads(answered) if isinstance(answered, bytes) else answered
        said = found["error"]["message"]
    except (ValueError, KeyError, TypeError):
        said = str(answered)[:200]
    return EngineError(f"vLLM: {said}") if 400 <= status < 500 else ServeError(f"vLLM fails: {said}")
