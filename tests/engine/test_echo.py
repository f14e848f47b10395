"""The engine without a model."""

from __future__ import annotations

import math

import pytest

from nomoat.chat.conversation import Conversation, Message
from nomoat.engine.base import GREEDY, Engine, Sampling
from nomoat.engine.echo import EchoEngine
from nomoat.engine.request import Ending, Piece, Request, ServingEngine
from nomoat.errors import EngineError

TALK = Conversation((Message("system", "Be kind."), Message("user", "Guten Tag, schöne Welt")))


def test_it_answers_with_what_was_said() -> None:
    engine = EchoEngine()
    as_engine: Engine = engine
    as_serving: ServingEngine = engine
    assert as_serving.n_ctx == 4096
    (found,) = as_engine.generate([TALK], GREEDY)
    assert (found.text, found.finish_reason, found.prompt_tokens) == ("Guten Tag, schöne Welt", "stop", 23)
    assert list(engine.stream(TALK, GREEDY)) == ["Guten", " Tag,", " schöne", " Welt"]


def test_pieces_tokens_and_ends() -> None:
    engine = EchoEngine()
    pieces: list[Piece] = []
    prompt = tuple(engine.encode(TALK))
    ending = engine.answer(Request(prompt, GREEDY, top_logprobs=1), lambda p: not pieces.append(p))
    assert ending == Ending("stop", 23, 0, 23)
    assert b"".join(token.chosen.raw for piece in pieces for token in piece.tokens) == bytes(prompt)
    assert engine.answer(Request(prompt, GREEDY), lambda piece: False) is None
    (cut,) = engine.generate([TALK], Sampling(max_new_tokens=15))
    assert (cut.text, cut.finish_reason) == ("Guten Tag, sch", "length")  # half an ö is no text
    (stopped,) = engine.generate([TALK], Sampling(stop=(" Tag",)))
    assert (stopped.text, stopped.finish_reason) == ("Guten", "stop")


def test_scores_vectors_and_refusals() -> None:
    engine = EchoEngine(n_ctx=32)
    assert engine.score(TALK, ["Guten", "Good"]) == [0.0, -math.inf]
    assert [w.chosen.logprob for w in engine.weigh([1, 2, 3], 1)] == [None, 0.0, 0.0]
    a, b, c = engine.embed(["a", "b", "a"])
    assert a == c != b
    assert math.hypot(*a) == pytest.approx(1.0)
    with pytest.raises(EngineError, match="the prompt has 40 tokens and the context 32"):
        engine.generate([Conversation((Message("user", "x" * 40),))], GREEDY)
