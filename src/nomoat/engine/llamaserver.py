"""llama.cpp's own server in this process: many answers at once, grammars, embeddings.

xllamacpp starts it with a socket that we do not use. It lies in a folder of ours alone and demands a key
that nobody is told, so nothing on this machine or beyond reaches the model past our own server."""

from __future__ import annotations

import secrets
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, final

from nomoat.chat.conversation import Conversation
from nomoat.engine.answers import complete_all, stream_text
from nomoat.engine.base import Completion, Sampling
from nomoat.engine.cmodel import Adapter, CModel
from nomoat.engine.gguf_file import check_gguf, load_failure
from nomoat.engine.grammar import forget_vocabulary
from nomoat.engine.library import library
from nomoat.engine.llamawire import Listener, body_of
from nomoat.engine.prompts import ByPrompts, Prompts
from nomoat.engine.request import Ending, Likely, Piece, Request, ServingEngine, Written, check_room
from nomoat.engine.turnstile import Turnstile
from nomoat.engine.weigh import Weighed, score_answers, weigh_tokens
from nomoat.errors import EngineError

DEFAULT_CONTEXT = 4096


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

    LoRA adapters share its weights: what takes `adapter` computes with that one, or with none. llama.cpp computes
    answers with one adapter beside one another, and those with another one after them, in the order they came.

    Args:
        gguf: the file.
        tokenizer_dir: the transformers folder that the file was made from.
        n_ctx: context of each request in tokens, at most what the model was made for; None for that, but no
            more than 4096: memory is taken for all of it at once.
        n_parallel: requests computed together.
        n_threads: threads of the forward pass.
        exact: keep attention in float32, as `LlamaCppEngine` does with it.
        adapters: GGUF files of LoRA adapters of this model, by name.

    Raises:
        EngineError: a file is missing, not GGUF, cut short, or llama.cpp cannot load it; or `n_ctx` is not
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
        adapters: Mapping[str, Path] | None = None,
    ) -> None:
        self._adapters = dict(adapters or {})
        for file in (gguf, *self._adapters.values()):
            check_gguf(file)
        library()  # refuses another xllamacpp, and silences llama.cpp's log
        with CModel(gguf, vocab_only=True) as model:
            largest = model.context_length
        if n_ctx is not None and not 0 < n_ctx <= largest:
            raise EngineError(f"{gguf}: n_ctx: got {n_ctx}; this model's context has 1 to {largest} tokens")
        self._prompts = Prompts(tokenizer_dir)
        self._gguf = gguf
        self._n_ctx = n_ctx or min(largest, DEFAULT_CONTEXT)
        self._n_parallel = n_parallel
        self._n_threads = n_threads
        self._turnstile = Turnstile()
        self._following = threading.Lock()
        self._has_followed = False  # a grammar
        self._weighing = threading.Lock()
        self._embedders: dict[str | None, Any] = {}
        self._weigher: CModel | None = None
        self._weighed: dict[str, Adapter] = {}
        self._temporary = tempfile.TemporaryDirectory(prefix="nomoat-")  # mode 0700
        self._folder = Path(self._temporary.name)
        try:
            self._server = self._start(list(self._adapters.values()), exact=exact, embeds=False)
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
        self._server = None  # xllamacpp stops a server when it is let go of
        self._embedders.clear()
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

    def answer(
        self, request: Request, take: Callable[[Piece], bool], *, adapter: str | None = None
    ) -> Ending | None:
        """Write an answer in the calling thread; see `ServingEngine.answer`."""
        check_room(request, self._n_ctx)
        # Each is named: to an adapter that is not, llama.cpp gives the scale of the request before, or of the start.
        scales = [{"id": i, "scale": float(name == adapter)} for i, name in enumerate(self._adapters)]
        listener = Listener(take)
        with self._turnstile.through(adapter, lambda: take(Piece(""))) as is_wanted:
            if not is_wanted:
                return None
            if request.grammar is not None:
                self._follow_own_vocabulary()
            self._open_server().handle_completions(body_of(request, self._n_ctx) | {"lora": scales}, listener)
        if listener.problem is not None:
            raise listener.problem
        return listener.ending

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        """See `complete_all`."""
        return complete_all(self, conversations, sampling)

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[str]:
        """See `stream_text`."""
        return stream_text(self, conversation, sampling)

    def adapted(self, adapter: str) -> ServingEngine:
        """This engine where it computes with one of its adapters."""
        return _Adapted(self, self._prompts, adapter)

    # ---- what is not answering

    def score(
        self, conversation: Conversation, answers: Sequence[str], *, adapter: str | None = None
    ) -> list[float]:
        """See `Engine.score`; in float32 attention, one call at a time."""
        with self._weighing:

            def weigh(tokens: Sequence[int]) -> list[float | None]:
                return [w.logprob for w in self._weigh(tokens, 0, adapter)]

            return score_answers(self._prompts.encode_texts, weigh, self.render(conversation), answers)

    def weigh(self, tokens: Sequence[int], top: int, *, adapter: str | None = None) -> list[Written]:
        """See `ServingEngine.weigh`; in float32 attention, one call at a time."""
        with self._weighing:
            weighed = self._weigh(tokens, top, adapter)
        return [
            Written(self._named(token, w.logprob), tuple(self._named(*pair) for pair in w.top))
            for token, w in zip(tokens, weighed, strict=True)
        ]

    def _named(self, token: int, logprob: float | None) -> Likely:
        raw = self._open_weigher().text_of(token)
        return Likely(token, raw.decode(errors="replace"), raw, logprob)

    def embed(self, texts: Sequence[str], *, adapter: str | None = None) -> list[list[float]]:
        """See `Engine.embed`. The first call opens the file a second time, as the first with each adapter does; the
        weights are shared.

        Raises:
            EngineError: a text has no tokens, or more than the context holds.
        """
        tokens = [self.tokenize(text) for text in texts]
        for i, ids in enumerate(tokens):
            if not 0 < len(ids) <= self._n_ctx:
                raise EngineError(f"input[{i}] has {len(ids)} tokens; expected 1 to {self._n_ctx}")
        with self._weighing:
            if adapter not in self._embedders:
                used = [] if adapter is None else [self._adapters[adapter]]
                self._embedders[adapter] = self._start(used, exact=False, embeds=True)
            found = self._embedders[adapter].handle_embeddings({"input": tokens})
        if "error" in found:
            raise EngineError(f"{self._gguf}: {found['error']['message']}")
        return [item["embedding"] for item in sorted(found["data"], key=lambda item: item["index"])]

    # ---- llama.cpp

    def _start(self, adapters: Sequence[Path], *, exact: bool, embeds: bool) -> Any:
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
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(path), 1.0) for path in adapters]
        params.endpoint_metrics = True
        try:
            server = xllamacpp.Server(params)
        except RuntimeError:
            if adapters:
                names = ", ".join(map(str, adapters))
                raise EngineError(f"{self._gguf}: llama.cpp cannot load it with {names}") from None
            raise load_failure(self._gguf) from None
        # Its loop may not have begun, and one that is stopped before it begins never ends: wait for an answer of it.
        server.handle_metrics()
        return server

    def _follow_own_vocabulary(self) -> None:
        with self._following:
            if not self._has_followed:
                forget_vocabulary(self._gguf)
                self._has_followed = True

    def _open_server(self) -> Any:
        if self._server is None:
            raise EngineError("this engine has been closed")
        return self._server

    def _weigh(self, tokens: Sequence[int], top: int, adapter: str | None) -> list[Weighed]:
        model = self._open_weigher()
        if adapter is not None and adapter not in self._weighed:
            self._weighed[adapter] = model.load_adapter(self._adapters[adapter])
        used = None if adapter is None else self._weighed[adapter]
        return weigh_tokens(model, tokens, top, n_threads=self._n_threads, adapter=used)

    def _open_weigher(self) -> CModel:
        if self._weigher is None:
            self._weigher = CModel(self._gguf)
        return self._weigher


@final
class _Adapted(ByPrompts):
    """A `LlamaServerEngine` with one of its adapters."""

    def __init__(self, engine: LlamaServerEngine, prompts: Prompts, adapter: str) -> None:
        self._engine = engine
        self._prompts = prompts
        self._adapter = adapter
        self.n_ctx = engine.n_ctx
        self.n_parallel = engine.n_parallel

    def answer(self, request: Request, take: Callable[[Piece], bool]) -> Ending | None:
        return self._engine.answer(request, take, adapter=self._adapter)

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        return complete_all(self, conversations, sampling)

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[str]:
        return stream_text(self, conversation, sampling)

    def score(self, conversation: Conversation, answers: Sequence[str]) -> list[float]:
        return self._engine.score(conversation, answers, adapter=self._adapter)

    def weigh(self, tokens: Sequence[int], top: int) -> list[Written]:
        return self._engine.weigh(tokens, top, adapter=self._adapter)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return self._engine.embed(texts, adapter=self._adapter)

    def close(self) -> None:
        """Nothing: the weights are those of the engine that it came from, which others use."""
