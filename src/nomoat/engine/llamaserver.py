"""llama.cpp's own server in this process: many answers at once, grammars, embeddings.

xllamacpp starts it with a socket that we do not use. It lies in a folder of ours alone and demands a key
that nobody is told, so nothing on this machine or beyond reaches the model past our own server."""

from __future__ import annotations

import secrets
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, final

from nomoat.chat.conversation import Conversation
from nomoat.engine.answers import complete_all, stream_text
from nomoat.engine.base import Completion, Sampling
from nomoat.engine.cmodel import CModel
from nomoat.engine.gguf_file import check_gguf, load_failure
from nomoat.engine.library import library
from nomoat.engine.prompts import ByPrompts, Prompts
from nomoat.engine.request import Ending, Likely, Piece, Request, Written, check_room
from nomoat.engine.weigh import score_answers, weigh_tokens
from nomoat.errors import EngineError

DEFAULT_CONTEXT = 4096
# transformers' order, which `nomoat.engine.choose` has too; llama.cpp's own begins with top_k.
_SAMPLERS = ["penalties", "temperature", "top_k", "top_p", "min_p"]
_LARGEST_SEED = 2**32 - 2  # the next one means "a new seed each time" to llama.cpp


def footprint_bytes(gguf: Path, *, n_tokens: int) -> int:
    """About what a file takes in memory with a context of so many tokens.

    Raises:
        EngineError: the file is missing, truncated or not GGUF.
    """
    with CModel(gguf, vocab_only=True) as model:
        return gguf.stat().st_size + n_tokens * model.cache_bytes_per_token


@final
class LlamaServerEngine(ByPrompts):
    """A GGUF file that answers `n_parallel` requests at once (continuous batching).

    Prompts are rendered by the chat template of `tokenizer_dir` and given as token ids, so the served bytes
    are the trained ones. Requests that run beside one another share each forward pass, which changes the
    rounding: a greedy answer may differ from the same one alone where two tokens are all but equally likely.
    llama.cpp tells nothing of a token that only begins a character, nor of a character that is not finished.

    Args:
        gguf: the file.
        tokenizer_dir: the transformers folder that the file was made from.
        n_ctx: context of each request in tokens, at most what the model was made for; None for that, but no
            more than 4096: memory is taken for all of it at once.
        n_parallel: requests computed together.
        n_threads: threads of the forward pass.
        exact: keep attention in float32, as `LlamaCppEngine` does with it.

    Raises:
        EngineError: the file is missing, not GGUF, cut short, or llama.cpp cannot load it; or `n_ctx` is not
            within the model's context.
    """

    def __init__(
        self,
        gguf: Path,
        *,
        tokenizer_dir: Path,
        n_ctx: int | None = None,
        n_parallel: int = 4,
        n_threads: int = 1,
        exact: bool = False,
    ) -> None:
        check_gguf(gguf)
        library()  # refuses another xllamacpp, and silences llama.cpp's log
        with CModel(gguf, vocab_only=True) as model:
            largest = model.context_length
        if n_ctx is not None and not 0 < n_ctx <= largest:
            raise EngineError(f"{gguf}: n_ctx: got {n_ctx}; this model's context has 1 to {largest} tokens")
        self._prompts = Prompts(tokenizer_dir)
        self.template = self._prompts.template
        self._gguf = gguf
        self._n_ctx = n_ctx or min(largest, DEFAULT_CONTEXT)
        self._n_parallel = n_parallel
        self._n_threads = n_threads
        self._weighing = threading.Lock()
        self._embedder: Any = None
        self._weigher: CModel | None = None
        self._temporary = tempfile.TemporaryDirectory(prefix="nomoat-")  # mode 0700
        self._folder = Path(self._temporary.name)
        try:
            self._server = self._start(exact=exact, embeds=False)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LlamaServerEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the model, once answers that are being written have ended."""
        self._server = self._embedder = None  # xllamacpp stops a server when it is let go of
        with self._weighing:  # a client may have hung up while its text is still being weighed
            if self._weigher is not None:
                self._weigher.close()
                self._weigher = None
        self._temporary.cleanup()

    @property
    def n_ctx(self) -> int:
        return self._n_ctx

    @property
    def n_parallel(self) -> int:
        return self._n_parallel

    # ---- answers

    def answer(self, request: Request, take: Callable[[Piece], bool]) -> Ending | None:
        """Write an answer in the calling thread; see `ServingEngine.answer`."""
        check_room(request, self._n_ctx)
        listener = _Listener(take)
        self._open_server().handle_completions(_body(request, self._n_ctx), listener)
        if listener.problem is not None:
            raise listener.problem
        return listener.ending

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        """See `complete_all`."""
        return complete_all(self, conversations, sampling)

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[str]:
        """See `stream_text`."""
        return stream_text(self, conversation, sampling)

    # ---- what is not answering

    def score(self, conversation: Conversation, answers: Sequence[str]) -> list[float]:
        """See `Engine.score`; in float32 attention, one call at a time."""
        with self._weighing:
            weigher = self._open_weigher()

            def weigh(tokens: Sequence[int]) -> list[float | None]:
                return [w.logprob for w in weigh_tokens(weigher, tokens, 0, n_threads=self._n_threads)]

            return score_answers(self._prompts.encode_texts, weigh, self.render(conversation), answers)

    def weigh(self, tokens: Sequence[int], top: int) -> list[Written]:
        """See `ServingEngine.weigh`; in float32 attention, one call at a time."""
        with self._weighing:
            weighed = weigh_tokens(self._open_weigher(), tokens, top, n_threads=self._n_threads)
        return [
            Written(self._named(token, w.logprob), tuple(self._named(*pair) for pair in w.top))
            for token, w in zip(tokens, weighed, strict=True)
        ]

    def _named(self, token: int, logprob: float | None) -> Likely:
        raw = self._open_weigher().text_of(token)
        return Likely(token, raw.decode(errors="replace"), raw, logprob)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """See `Engine.embed`. The first call opens the file a second time; the weights are shared.

        Raises:
            EngineError: a text has no tokens, or more than the context holds.
        """
        tokens = [self.tokenize(text) for text in texts]
        for i, ids in enumerate(tokens):
            if not 0 < len(ids) <= self._n_ctx:
                raise EngineError(f"input[{i}] has {len(ids)} tokens; expected 1 to {self._n_ctx}")
        with self._weighing:
            if self._embedder is None:
                self._embedder = self._start(exact=False, embeds=True)
            found = self._embedder.handle_embeddings({"input": tokens})
        if "error" in found:
            raise EngineError(f"{self._gguf}: {found['error']['message']}")
        return [item["embedding"] for item in sorted(found["data"], key=lambda item: item["index"])]

    # ---- llama.cpp

    def _start(self, *, exact: bool, embeds: bool) -> Any:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(self._gguf)
        params.n_parallel = 1 if embeds else self._n_parallel
        params.n_ctx = self._n_ctx * params.n_parallel
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._n_threads
        params.verbosity = -1
        params.warmup = False
        params.fit_params = False  # what does not fit is refused, not made smaller unasked
        params.cache_ram_mib = 0
        params.ui = params.endpoint_slots = False
        params.api_keys = [secrets.token_hex(32)]
        params.n_threads_http = 1
        if hasattr(socket, "AF_UNIX"):
            params.hostnames = [str(self._folder / f"{secrets.token_hex(4)}.sock")]
        else:
            params.port = 0
        if embeds:
            params.embedding = True
            params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
            params.n_batch = params.n_ubatch = self._n_ctx  # a text must be computed at once
        if exact:
            params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
            params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.endpoint_metrics = True
        try:
            server = xllamacpp.Server(params)
        except RuntimeError:
            raise load_failure(self._gguf) from None
        # Its loop may not have begun, and one that is stopped before it begins never ends: wait for an answer of it.
        server.handle_metrics()
        return server

    def _open_server(self) -> Any:
        if self._server is None:
            raise EngineError("this engine has been closed")
        return self._server

    def _open_weigher(self) -> CModel:
        if self._weigher is None:
            self._weigher = CModel(self._gguf)
        return self._weigher


@final
class _Listener:
    """What llama.cpp tells of one answer. Nothing may be raised through its C code."""

    def __init__(self, take: Callable[[Piece], bool]) -> None:
        self._take = take
        self.problem: BaseException | None = None
        self.ending: Ending | None = None

    def __call__(self, event: dict[str, Any]) -> bool:
        """One event; True ends the answer."""
        try:
            if "error" in event:
                self.problem = EngineError(event["error"]["message"])
                return True
            (choice,) = event["choices"]
            if choice["finish_reason"] is not None:
                self.ending = _ending(choice["finish_reason"], event["usage"])
            return not self._take(Piece(choice["text"], _written(choice["logprobs"])))
        except BaseException as error:
            self.problem = error
            return True


def _body(request: Request, n_ctx: int) -> dict[str, Any]:
    sampling = request.sampling
    body: dict[str, Any] = {
        "prompt": list(request.prompt),
        "stream": True,
        "return_progress": True,  # an event for each part of the prompt, so that it can be given up
        "n_predict": min(sampling.max_new_tokens, n_ctx - len(request.prompt)),
        "samplers": _SAMPLERS,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": request.min_p,
        "seed": sampling.seed % _LARGEST_SEED,
        "stop": list(sampling.stop),
        "repeat_penalty": 1.0,
        "repeat_last_n": n_ctx,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "logit_bias": [list(pair) for pair in request.logit_bias],
    }
    if request.grammar is not None:
        body["grammar"] = request.grammar
    if request.top_logprobs is not None:
        body["n_probs"] = max(1, request.top_logprobs)
    return body


def _ending(reason: str, usage: dict[str, Any]) -> Ending:
    return Ending(
        "stop" if reason == "stop" else "length",
        usage["prompt_tokens"],
        usage["prompt_tokens_details"]["cached_tokens"],
        usage["completion_tokens"],
    )


def _written(logprobs: dict[str, Any] | None) -> tuple[Written, ...]:
    if logprobs is None:
        return ()
    return tuple(Written(_likely(t), tuple(map(_likely, t["top_logprobs"]))) for t in logprobs["content"])


def _likely(raw: dict[str, Any]) -> Likely:
    return Likely(raw["id"], raw["token"], bytes(raw["bytes"]), raw["logprob"])
