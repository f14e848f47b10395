"""Grammars that hold an answer to a form, in llguidance's Lark dialect, which llama.cpp's samplers follow.

llama.cpp drops a grammar that llguidance cannot compile and goes on without it, so each one is checked here
first, with the validator in the same library."""

from __future__ import annotations

import ctypes
import functools
import json
from ctypes import c_bool, c_char_p, c_int32, c_size_t, c_uint8, c_uint32, c_void_p
from pathlib import Path
from typing import Any

from nomoat.engine.cmodel import CModel
from nomoat.engine.library import library
from nomoat.errors import DataError, EngineError

_HEAD = "%llguidance {}\n"
_BYTES = 256
_MESSAGE_BYTES = 4096
# llama_sampler_init_llg(llama_vocab const*, char const*, char const*), which has no C name
_INIT_SAMPLER = "_Z22llama_sampler_init_llgPK11llama_vocabPKcS3_"
# Written without free white space: a small model that may begin another blank line often never stops.
_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


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


def json_grammar(schema: Any, where: str) -> str:
    """The grammar of JSON that fits a schema (decoded JSON). `where` opens the error.

    Raises:
        DataError: the schema is not one, or uses what llguidance does not know.
    """
    return checked(f"start: {json_rule(schema)}", where)


def json_rule(schema: Any) -> str:
    """A schema as a part of a Lark rule; JSON after it is written as training data has it, `{"a": 1}`."""
    if isinstance(schema, dict):
        schema = {**schema, "x-guidance": _COMPACT}
    return f"%json {json.dumps(schema)}"


def text_rule(text: str) -> str:
    """A fixed text as a part of a Lark rule."""
    return json.dumps(text, ensure_ascii=False)


def checked(rules: str, where: str) -> str:
    """Lark rules, of which `start` is the first, as a grammar for `Request`.

    Raises:
        DataError: they cannot be compiled.
    """
    grammar = _HEAD + rules
    problem = _problem(grammar)
    if problem is not None:
        raise DataError(f"{where}: {problem}", hint="See json-schema.org for what a schema may say.")
    return grammar


def forget_vocabulary(gguf: Path) -> None:
    """Make sure that a model which is open, and has followed no grammar yet, follows its first one by its own
    vocabulary.

    llama.cpp keeps llguidance's tokenizer of the latest vocabulary and knows it by its address alone. A model that
    has come to lie where another one was would be held to the tokens of that other one, and its answers to no
    form at all. A second vocabulary, opened while the first is, has another address and takes its place there.

    Args:
        gguf: a file with the vocabulary to take.

    Raises:
        EngineError: the library exports no such sampler.
    """
    lib = library()
    if not hasattr(lib, _INIT_SAMPLER):
        raise EngineError("xllamacpp: exports no llama_sampler_init_llg; grammars need it")
    start = getattr(lib, _INIT_SAMPLER)
    start.restype, start.argtypes = c_void_p, (c_void_p, c_char_p, c_char_p)
    with CModel(gguf, vocab_only=True) as model:
        lib.llama_sampler_free(start(model.vocab, b"lark", f'{_HEAD}start: "a"'.encode()))


def _problem(grammar: str) -> str | None:
    """What llguidance says against a grammar, on one line; None where it compiles."""
    lib, init = _validator()
    message = ctypes.create_string_buffer(_MESSAGE_BYTES)
    status = lib.llg_validate_grammar(init, b"lark", grammar.encode(), message, _MESSAGE_BYTES)
    if status >= 0:
        return None
    said = message.value.decode(errors="replace")
    first = said.partition("\n   1 |")[0]  # behind it stands the whole grammar once more
    return " ".join(first.rpartition("JSON schema: ")[2].split())


@functools.cache
def _validator() -> tuple[ctypes.CDLL, ctypes.Array[c_uint8]]:
    """The library and a LlgConstraintInit. Whether a grammar compiles does not depend on the vocabulary, so
    one of single bytes does for all models."""
    lib = library()
    for name, result, arguments in (
        ("llg_new_tokenizer", c_void_p, (c_void_p, c_char_p, c_size_t)),
        ("llg_constraint_init_set_defaults", None, (c_void_p, c_void_p)),
        ("llg_validate_grammar", c_int32, (c_void_p, c_char_p, c_char_p, c_char_p, c_size_t)),
    ):
        if not hasattr(lib, name):
            raise EngineError(f"xllamacpp: exports no {name}; grammars need llguidance in it")
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    lengths = (c_uint32 * (_BYTES + 1))(*[1] * _BYTES, 2)
    texts = ctypes.create_string_buffer(bytes(range(_BYTES)) + b"\xff\xff")
    made = _TokenizerInit(vocab_size=_BYTES + 1, tok_eos=_BYTES, use_approximate_greedy_tokenize_fn=True)
    made.token_lens = ctypes.cast(lengths, c_void_p)
    made.token_bytes = ctypes.cast(texts, c_void_p)
    message = ctypes.create_string_buffer(_MESSAGE_BYTES)
    tokenizer = lib.llg_new_tokenizer(ctypes.byref(made), message, _MESSAGE_BYTES)
    if not tokenizer:
        raise EngineError(f"llguidance cannot start: {message.value.decode(errors='replace')}")
    init = (c_uint8 * 512)()  # more than LlgConstraintInit takes; the library fills it
    lib.llg_constraint_init_set_defaults(init, tokenizer)
    return lib, init
