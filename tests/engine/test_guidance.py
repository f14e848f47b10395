"""Which tokens a grammar lets come next."""

from __future__ import annotations

import numpy as np
import pytest

from nomoat.engine.grammar import checked, json_grammar
from nomoat.engine.guidance import Vocabulary, single_bytes
from nomoat.errors import EngineError

TOKENS = [b"a", b"b", b"ab", b"", b'{"', b'"}', b": ", b"\xc3", b"\xa9"]
END = 3


def names(allowed: np.ndarray) -> list[bytes]:
    return [token for token, may in zip(TOKENS, allowed, strict=True) if may]


def test_an_answer_is_held_to_its_grammar_token_by_token() -> None:
    form = Vocabulary(TOKENS, END).follow(checked('start: "a" "b"+', "here"))
    assert names(form.allowed()) == [b"a", b"ab"]
    form.take(0)
    assert names(form.allowed()) == [b"b"]
    form.take(1)
    assert names(form.allowed()) == [b"b", b""]  # the end
    assert not form.is_over
    form.take(END)
    assert form.is_over


def test_where_nothing_more_may_come_it_is_over() -> None:
    form = Vocabulary(TOKENS, END).follow(checked('start: "ab"', "here"))
    form.take(2)
    assert form.is_over
    assert names(form.allowed()) == [b""]


def test_half_a_character_is_a_token_too() -> None:
    form = Vocabulary(TOKENS, END).follow(checked('start: "é"', "here"))
    assert names(form.allowed()) == [b"\xc3"]
    form.take(7)
    assert names(form.allowed()) == [b"\xa9"]


def test_what_may_not_come_is_refused() -> None:
    form = Vocabulary(TOKENS, END).follow(checked('start: "ab"', "here"))
    with pytest.raises(EngineError, match="^llguidance: "):
        form.take(1)
    with pytest.raises(EngineError, match="^llguidance: "):
        Vocabulary(TOKENS, END).follow("%llguidance {}\nstart: [")


def test_two_forms_at_once_do_not_disturb_each_other() -> None:
    grammar = json_grammar({"enum": ["yes", "no"]}, "schema")
    forms = [single_bytes().follow(grammar), Vocabulary([bytes([i]) for i in range(256)], 0).follow(grammar)]
    for byte in b'"yes"':
        for form in forms:
            assert form.allowed()[byte]
            form.take(byte)
    assert [int(form.allowed().argmax()) for form in forms] == [256, 0]
