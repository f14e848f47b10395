"""Grammars that hold an answer to a form, in llguidance's Lark dialect, which all engines follow.

llama.cpp drops a grammar that llguidance cannot compile and goes on without it, so each one is checked here
first, with the validator in the same library."""

from __future__ import annotations

import json
from ctypes import c_char_p, c_void_p
from pathlib import Path
from typing import Any

from nomoat.engine.cmodel import CModel
from nomoat.engine.guidance import single_bytes
from nomoat.engine.library import library
from nomoat.errors import DataError, EngineError

_HEAD = "%llguidance {}\n"
# llama_sampler_init_llg(llama_vocab const*, char const*, char const*), which has no C name
_INIT_SAMPLER = "_Z22llama_sampler_init_llgPK11llama_vocabPKcS3_"
# Written without free white space: a small model that may begin another blank line often never stops.
_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


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
    problem = single_bytes().problem(grammar)
    if problem is not None:
        said = problem.partition("\n   1 |")[0]  # behind it stands the whole grammar once more
        said = " ".join(said.rpartition("JSON schema: ")[2].split())
        raise DataError(f"{where}: {said}", hint="See json-schema.org for what a schema may say.")
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
