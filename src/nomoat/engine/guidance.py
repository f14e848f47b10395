"""llguidance in the library that xllamacpp ships, through its C interface: whether a grammar compiles, and which tokens
may come next in a text that is held to one. Grammars are in its Lark dialect (`nomoat.engine.grammar`)."""
# V vocabulary

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Callable, Sequence
from ctypes import c_bool, c_char_p, c_int32, c_size_t, c_uint8, c_uint32, c_void_p
from typing import final

import numpy as np
from numpy.typing import NDArray

from nomoat.engine.library import library
from nomoat.errors import EngineError

_BYTES = 256
_MESSAGE_BYTES = 4096
_NO_TEXT = b"\xff"  # how the bytes of a token begin that is none
_LARK = b"lark"
_FUNCTIONS = {
    "llg_new_tokenizer": (c_void_p, (c_void_p, c_char_p, c_size_t)),
    "llg_free_tokenizer": (None, (c_void_p,)),
    "llg_constraint_init_set_defaults": (None, (c_void_p, c_void_p)),
    "llg_validate_grammar": (c_int32, (c_void_p, c_char_p, c_char_p, c_char_p, c_size_t)),
    "llg_new_matcher": (c_void_p, (c_void_p, c_char_p, c_char_p)),
    "llg_free_matcher": (None, (c_void_p,)),
    "llg_matcher_get_error": (c_char_p, (c_void_p,)),
    "llg_matcher_get_mask_byte_size": (c_size_t, (c_void_p,)),
    "llg_matcher_compute_mask_into": (c_int32, (c_void_p, c_void_p, c_size_t)),
    "llg_matcher_consume_token": (c_int32, (c_void_p, c_uint32)),
    "llg_matcher_is_stopped": (c_bool, (c_void_p,)),
}


class _TokenizerInit(ctypes.Structure):
    """LlgTokenizerInit; `rest` is for fields that later versions add behind, all of which may be zero."""

    _fields_ = (
        ("vocab_size", c_uint32),
        ("tok_eos", c_uint32),
        ("token_lens", c_void_p),
        ("token_bytes", c_void_p),
        ("tokenizer_json", c_char_p),
        ("tokenize_assumes_string", c_bool),
        ("tokenize_fn", c_void_p),
        ("use_approximate_greedy_tokenize_fn", c_bool),
        ("tokenize_user_data", c_void_p),
        ("slices", c_void_p),
        ("rest", c_uint8 * 128),
    )


@final
class Vocabulary:
    """What grammars are followed with.

    Args:
        texts: the bytes of each token; none for what is no text, such as turn marks.
        end: the token that ends an answer.

    Raises:
        EngineError: the library has no llguidance, or that does not take these tokens.
    """

    def __init__(self, texts: Sequence[bytes], end: int) -> None:
        self._lib = _library()
        self.size = len(texts)
        tokens = [text or _NO_TEXT + str(index).encode() for index, text in enumerate(texts)]
        lengths = (c_uint32 * len(tokens))(*map(len, tokens))
        joined = ctypes.create_string_buffer(b"".join(tokens))
        made = _TokenizerInit(vocab_size=len(tokens), tok_eos=end, use_approximate_greedy_tokenize_fn=True)
        made.token_lens, made.token_bytes = ctypes.cast(lengths, c_void_p), ctypes.cast(joined, c_void_p)
        message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        tokenizer = self._lib.llg_new_tokenizer(ctypes.byref(made), message, _MESSAGE_BYTES)
        if not tokenizer:
            raise EngineError(f"llguidance cannot start: {message.value.decode(errors='replace')}")
        _free_with(self, self._lib.llg_free_tokenizer, tokenizer)
        self._init = (c_uint8 * 512)()  # more than LlgConstraintInit takes; the library fills it
        self._lib.llg_constraint_init_set_defaults(self._init, tokenizer)

    def problem(self, grammar: str) -> str | None:
        """What llguidance says against a grammar; None where it compiles."""
        message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        status = self._lib.llg_validate_grammar(self._init, _LARK, grammar.encode(), message, _MESSAGE_BYTES)
        return None if status >= 0 else message.value.decode(errors="replace")

    def follow(self, grammar: str) -> Follower:
        """An answer that is held to a grammar, from its beginning.

        Raises:
            EngineError: the grammar does not compile.
        """
        return Follower(self, self._lib, self._lib.llg_new_matcher(self._init, _LARK, grammar.encode()))


@final
class Follower:
    """Where a grammar has come to in one answer; made by `Vocabulary.follow`."""

    def __init__(self, vocabulary: Vocabulary, lib: ctypes.CDLL, matcher: int) -> None:
        self._vocabulary = vocabulary  # which may not go before
        self._lib = lib
        self._matcher = matcher
        _free_with(self, lib.llg_free_matcher, matcher)
        self._refuse(lib.llg_matcher_get_error(matcher) is not None)
        self._mask = np.zeros(lib.llg_matcher_get_mask_byte_size(matcher), dtype=np.uint8)

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may come next, [V]: never none, for where nothing more may come the end may."""
        mask = self._mask
        self._refuse(self._lib.llg_matcher_compute_mask_into(self._matcher, mask.ctypes.data, len(mask)) < 0)
        return np.unpackbits(mask, count=self._vocabulary.size, bitorder="little").astype(np.bool_)

    def take(self, token: int) -> None:
        """This one came."""
        self._refuse(self._lib.llg_matcher_consume_token(self._matcher, token) < 0)

    @property
    def is_over(self) -> bool:
        """Whether nothing may come any more."""
        return bool(self._lib.llg_matcher_is_stopped(self._matcher))

    def _refuse(self, is_wrong: bool) -> None:
        if is_wrong:
            said: bytes = self._lib.llg_matcher_get_error(self._matcher) or b"no reason"
            raise EngineError(f"llguidance: {' '.join(said.decode(errors='replace').split())}")


def _free_with(owner: object, free: Callable[[int], None], pointer: int) -> None:
    """But not when Python ends, where a thread may be computing still."""
    weakref.finalize(owner, free, pointer).atexit = False


@functools.cache
def single_bytes() -> Vocabulary:
    """A vocabulary of the 256 bytes: whether a grammar compiles does not depend on it."""
    return Vocabulary([*(bytes([byte]) for byte in range(_BYTES)), b""], _BYTES)


@functools.cache
def _library() -> ctypes.CDLL:
    lib = library()
    for name, (result, arguments) in _FUNCTIONS.items():
        if not hasattr(lib, name):
            raise EngineError(f"xllamacpp: exports no {name}; grammars need llguidance in it")
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib
