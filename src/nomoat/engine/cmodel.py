"""A GGUF file opened by llama.cpp: its vocabulary, its contexts, and the logits of a token sequence."""
# T tokens · V vocabulary

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from ctypes import c_float, c_int32, c_void_p
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import final

import numpy as np

from nomoat.engine.gguf_file import check_gguf, load_failure
from nomoat.engine.library import DECODE, F32, NO_FLASH_ATTENTION, library
from nomoat.errors import EngineError

_LOGITS_AT_ONCE = 2**24  # floats: 64 MiB a batch, however large the vocabulary


@final
class CModel:
    """An opened file. Close it, or use it as a context manager.

    Args:
        gguf: the file.
        vocab_only: read the vocabulary and no weights; no context can then be made.

    Raises:
        EngineError: the file is missing, truncated, not GGUF, or of an architecture llama.cpp lacks.
    """

    def __init__(self, gguf: Path, *, vocab_only: bool = False) -> None:
        self._handle: int | None = None
        self._lib = library()
        self.path = gguf
        check_gguf(gguf)
        params = self._lib.llama_model_default_params()
        params.vocab_only = vocab_only
        self._handle = self._lib.llama_model_load_from_file(str(gguf).encode(), params)
        if self._handle is None:
            raise load_failure(gguf)
        self.vocab: int = self._lib.llama_model_get_vocab(self._handle)
        self.n_vocab: int = self._lib.llama_vocab_n_tokens(self.vocab)

    def __enter__(self) -> CModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the model; its contexts must be closed before."""
        if self._handle is not None:
            self._lib.llama_model_free(self._handle)
            self._handle = None

    @property
    def handle(self) -> int:
        assert self._handle is not None, "closed"
        return self._handle

    @property
    def context_length(self) -> int:
        """Tokens the model was made for."""
        # llama_model_n_ctx_train answers 0 with `vocab_only`.
        return int(self._meta(f"{self._meta('general.architecture')}.context_length"))

    @property
    def cache_bytes_per_token(self) -> int:
        """What a context remembers of each token in llama.cpp's usual float16, for models with attention."""
        architecture = self._meta("general.architecture")

        def number(key: str, otherwise: str) -> list[int]:
            """A value of the file: one for all layers, or a list of one each."""
            found = self._meta(f"{architecture}.{key}", otherwise)
            return [int(word) for word in found.strip("[]").split(",")]

        (layers,) = number("block_count", "0")
        (width,) = number("embedding_length", "0")
        heads = number("attention.head_count", "1")
        kv_heads = number("attention.head_count_kv", str(heads[0]))
        size = str(width // max(1, heads[0]))
        lengths = number("attention.key_length", size)[0] + number("attention.value_length", size)[0]
        return 2 * lengths * (sum(kv_heads) if len(kv_heads) > 1 else layers * kv_heads[0])

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """The ids llama.cpp makes of `text`; with `parse_special`, '<|im_end|>' in it is that token."""
        raw = text.encode()
        room = len(raw) + 8  # a token covers a byte or more; BOS and EOS come on top
        ids = (c_int32 * room)()
        count = self._lib.llama_tokenize(self.vocab, raw, len(raw), ids, room, add_special, parse_special)
        assert count >= 0, (text, count)
        return list(ids[:count])

    def text_of(self, token: int) -> bytes:
        """The bytes a token stands for; none for special tokens."""
        raw = ctypes.create_string_buffer(256)
        length = self._lib.llama_token_to_piece(self.vocab, token, raw, len(raw), 0, False)
        assert length >= 0, (token, length)
        return raw.raw[:length]

    def ends_generation(self, token: int) -> bool:
        """Whether llama.cpp's own programs stop when this token is generated."""
        return bool(self._lib.llama_vocab_is_eog(self.vocab, token))

    def load_adapter(self, gguf: Path) -> Adapter:
        """A LoRA adapter, which contexts of this model may be given; it is freed with the model.

        Raises:
            EngineError: the file is missing, not GGUF, or llama.cpp cannot put it on this model.
        """
        check_gguf(gguf)
        handle: int | None = self._lib.llama_adapter_lora_init(self.handle, str(gguf).encode())
        if handle is None:
            raise EngineError(f"{gguf}: llama.cpp cannot put this adapter on {self.path}")
        return Adapter(handle)

    def logits(
        self, tokens: Sequence[int], *, n_threads: int = 1, adapter: Adapter | None = None
    ) -> np.ndarray:
        """Logits after each token of one sequence: float32 [T, V]. Attention and its cache are float32, so
        that the only rounding is that of the weights' own type."""
        return np.concatenate(list(self.logits_in_parts(tokens, n_threads=n_threads, adapter=adapter)))

    def logits_in_parts(
        self, tokens: Sequence[int], *, n_threads: int = 1, adapter: Adapter | None = None
    ) -> Iterator[np.ndarray]:
        """As `logits`, some rows after the other, for vocabularies and texts that would fill the memory."""
        n_batch = max(1, min(512, len(tokens), _LOGITS_AT_ONCE // self.n_vocab))
        with Context(
            self,
            n_ctx=len(tokens),
            n_batch=n_batch,
            n_outputs=n_batch,
            n_threads=n_threads,
            exact=True,
            adapter=adapter,
        ) as context:
            for start in range(0, len(tokens), n_batch):
                part = tokens[start : start + n_batch]
                context.decode([Row(token, start + i, 0, True) for i, token in enumerate(part)])
                yield np.stack([context.logits(i) for i in range(len(part))])

    def _meta(self, key: str, otherwise: str | None = None) -> str:
        value = ctypes.create_string_buffer(4096)
        length = self._lib.llama_model_meta_val_str(self.handle, key.encode(), value, len(value))
        if length >= 0:
            return value.value.decode()
        if otherwise is None:
            raise EngineError(f"{self.path}: has no {key}")
        return otherwise


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter that a `CModel` has loaded."""

    handle: int


@dataclass(frozen=True)
class Row:
    """One token of a batch: where it stands in which sequence, and whether its logits are wanted."""

    token: int
    position: int
    sequence: int
    wants_logits: bool


@final
class Context:
    """What a model remembers of `n_sequences` sequences of `n_ctx` tokens each.

    Args:
        n_batch: rows of a `decode` at most.
        n_outputs: rows of a `decode` whose logits are wanted at most; each takes V floats.
        exact: compute attention in float32; otherwise as llama.cpp's programs do, with a float16 cache.
        adapter: what the model computes with besides its own weights; of the same `model`.

    Raises:
        EngineError: there is not memory enough.
    """

    def __init__(
        self,
        model: CModel,
        *,
        n_ctx: int,
        n_batch: int,
        n_outputs: int,
        n_threads: int,
        n_sequences: int = 1,
        exact: bool = False,
        adapter: Adapter | None = None,
    ) -> None:
        self._lib = library()
        self._model = model
        self._handle: int | None = None
        params = self._lib.llama_context_default_params()
        params.n_ctx = n_ctx * n_sequences
        params.n_batch = params.n_ubatch = n_batch
        params.n_seq_max = n_sequences
        params.n_outputs_max = params.n_outputs_max_per_seq = n_outputs
        params.n_threads = params.n_threads_batch = n_threads
        if exact:
            params.type_k = params.type_v = F32
            params.flash_attn_type = NO_FLASH_ATTENTION  # the CPU's kind rounds to float16 inside
        self._handle = self._lib.llama_init_from_model(model.handle, params)
        if self._handle is None:
            raise EngineError(
                f"{model.path}: llama.cpp cannot open a context of {n_sequences} x {n_ctx} tokens",
                hint="is there memory enough? a smaller n_ctx needs less",
            )
        self._batch = self._lib.llama_batch_ext_init(self._handle)
        if adapter is not None:
            status = self._lib.llama_set_adapters_lora(
                self._handle, (c_void_p * 1)(adapter.handle), 1, (c_float * 1)(1.0)
            )
            assert status == 0, status

    def __enter__(self) -> Context:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._handle is not None:
            self._lib.llama_batch_ext_free(self._batch)
            self._lib.llama_free(self._handle)
            self._handle = None

    def decode(self, rows: Sequence[Row]) -> None:
        """Compute the rows and remember them.

        Raises:
            EngineError: a token is outside the vocabulary, or llama.cpp gives up.
        """
        assert self._handle is not None, "closed"
        self._lib.llama_batch_ext_clear(self._batch)
        for i, row in enumerate(rows):
            index = self._lib.llama_batch_ext_add_token(self._batch, row.sequence, row.token)
            if index != i:
                raise EngineError(
                    f"{self._model.path}: token {row.token} is refused; "
                    f"the vocabulary has ids 0 to {self._model.n_vocab - 1}"
                )
            self._lib.llama_batch_ext_set_pos(self._batch, index, ctypes.byref(c_int32(row.position)))
            self._lib.llama_batch_ext_set_output_logits(self._batch, index, row.wants_logits)
        status = self._lib.llama_process(self._handle, DECODE, self._batch)
        if status != 0:
            raise EngineError(
                f"{self._model.path}: llama.cpp's forward pass over {len(rows)} tokens ended with {status}"
            )

    def logits(self, index: int) -> np.ndarray:
        """Logits of the `index`-th row of the last `decode`: float32 [V], valid until the next one."""
        assert self._handle is not None, "closed"
        values = self._lib.llama_get_logits_ith(self._handle, index)
        return np.ctypeslib.as_array(values, shape=(self._model.n_vocab,))

    def forget(self, sequence: int, *, from_position: int) -> bool:
        """Forget a sequence's tokens from `from_position` on; False where llama.cpp cannot do so in part."""
        assert self._handle is not None, "closed"
        memory = self._lib.llama_get_memory(self._handle)
        return bool(self._lib.llama_memory_seq_rm(memory, sequence, from_position, -1))


def token_logits(gguf: Path, tokens: Sequence[int], *, n_threads: int = 1) -> np.ndarray:
    """Logits after each token of one sequence: float32 [T, V].

    Raises:
        EngineError: the file cannot be loaded, or a token is outside its vocabulary.
    """
    with CModel(gguf) as model:
        return model.logits(tokens, n_threads=n_threads)
