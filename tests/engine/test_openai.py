"""An engine behind HTTP, against a small server whose answers the test writes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest

from helpers.endpoints import Endpoint, Reply, listening, said
from nomoat.chat.conversation import Conversation, parse_messages
from nomoat.engine.base import GREEDY, Engine, Sampling
from nomoat.engine.openai import OpenAIEngine, Spent
from nomoat.errors import EngineError

TALK = Conversation(parse_messages([{"role": "user", "content": "Hello"}], "test"))


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with listening() as made:
        yield made


def test_an_answer_its_cost_and_what_was_sent(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    endpoint.script = [(200, {}, said("Hi.")), (200, {}, said("Good d", "length"))]
    sampling = Sampling(max_new_tokens=5, temperature=0.5, top_p=0.9, top_k=7, seed=3, stop=("X",))
    with OpenAIEngine(
        endpoint.url,
        "m",
        key_variable="MY_KEY",
        n_parallel=1,
        dollars_per_million_prompt_tokens=1.0,
        dollars_per_million_completion_tokens=10.0,
    ) as engine:
        as_engine: Engine = engine
        first, second = as_engine.generate([TALK, TALK], sampling)
        assert (first.text, first.finish_reason, first.prompt_tokens) == ("Hi.", "stop", 10)
        assert second.finish_reason == "length"
        assert engine.spent == Spent(20, 8, pytest.approx(100e-6))
    path, headers, body = endpoint.seen[0]
    assert (path, headers["Authorization"]) == ("/v1/chat/completions", "Bearer sk-secret")
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "seed": 3,
        "stop": ["X"],
    }
    assert endpoint.seen[1][2]["seed"] == 4


def test_it_waits_and_tries_again_as_long_as_it_is_asked_to(endpoint: Endpoint) -> None:
    endpoint.script = [
        (429, {"Retry-After": "7"}, {"error": {"message": "slow down"}}),
        (503, {}, "<html>busy</html>"),
        (503, {"Retry-After": "900"}, "busy"),
        (503, {"Retry-After": formatdate(time.time() + 20, usegmt=True)}, "busy"),
        (503, {"Retry-After": "Thu, 01 Jan 2026 00:00:00 GMT"}, "busy"),
        (503, {"Retry-After": "soon"}, "busy"),
        (200, {}, said("Hi.")),
    ]
    waits: list[float] = []
    with OpenAIEngine(endpoint.url, "m", attempts=7, wait=waits.append) as engine:
        assert engine.generate([TALK], GREEDY)[0].text == "Hi."
    assert (waits[0], waits[2], waits[4]) == (7.0, 30.0, 0.0)
    assert 0.75 <= waits[1] <= 1.25
    assert 10 <= waits[3] <= 20
    assert 12 <= waits[5] <= 20


def test_what_waiting_does_not_mend_is_told_at_once(endpoint: Endpoint) -> None:
    endpoint.script = [(401, {}, {"error": {"message": "Incorrect API key"}})]
    waits: list[float] = []
    with (
        OpenAIEngine(endpoint.url, "m", key_variable="MY_KEY", wait=waits.append) as engine,
        pytest.raises(EngineError) as caught,
    ):
        engine.generate([TALK], GREEDY)
    assert str(caught.value) == (
        f"{endpoint.url}: answers 401: Incorrect API key\n  Set its key: export MY_KEY=..."
    )
    assert waits == []


def test_what_a_model_does_not_take_is_not_sent_again(endpoint: Endpoint) -> None:
    def refused(name: str, code: str) -> Reply:
        return 400, {}, {"error": {"message": f"Unsupported: '{name}'", "param": name, "code": code}}

    endpoint.script = [
        refused("max_tokens", "unsupported_parameter"),
        refused("temperature", "unsupported_value"),
        (200, {}, said("Hi.")),
        (200, {}, said("Hello.")),
        refused("messages", "unsupported_value"),
    ]
    with OpenAIEngine(endpoint.url, "m", n_parallel=1, attempts=3) as engine:
        assert engine.generate([TALK], GREEDY)[0].text == "Hi."
        assert engine.generate([TALK], GREEDY)[0].text == "Hello."
        with pytest.raises(EngineError, match="answers 400: Unsupported: 'messages'"):
            engine.generate([TALK], GREEDY)
    sent = [body for _, _, body in endpoint.seen]
    assert [("max_tokens" in body, "temperature" in body) for body in sent] == [
        (True, True),
        (False, True),
        *[(False, False)] * 3,
    ]
    assert sent[2]["max_completion_tokens"] == sent[0]["max_tokens"]


def test_it_gives_up_in_the_end(endpoint: Endpoint) -> None:
    endpoint.script = [(500, {}, {"error": {"message": "oops"}})] * 3
    waits: list[float] = []
    with (
        OpenAIEngine(endpoint.url, "m", attempts=3, wait=waits.append) as engine,
        pytest.raises(EngineError, match="answers 500: oops"),
    ):
        engine.generate([TALK], GREEDY)
    assert len(waits) == 2
    with (
        OpenAIEngine("http://127.0.0.1:9/v1", "m", attempts=2, wait=waits.append) as engine,
        pytest.raises(EngineError, match=r"^http://127.0.0.1:9/v1: cannot be reached"),
    ):
        engine.generate([TALK], GREEDY)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/v1", "127.0.0.1:9", "http://[::1"])
def test_what_is_no_address(url: str) -> None:
    with OpenAIEngine(url, "m") as engine, pytest.raises(EngineError, match="is no address of an endpoint"):
        engine.generate([TALK], GREEDY)


def test_a_stream_and_its_cost(endpoint: Endpoint) -> None:
    events = [{"choices": [{"delta": {"content": text}}]} for text in ("Guten", " Tag")]
    events += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}]
    events += [{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}]
    lines = [f"data: {json.dumps(event)}\n\n" for event in events] + [": a comment\n\n", "data: [DONE]\n\n"]
    endpoint.script = [(200, {"Content-Type": "text/event-stream"}, "".join(lines))]
    with OpenAIEngine(endpoint.url, "m") as engine:
        assert list(engine.stream(TALK, GREEDY)) == ["Guten", " Tag"]
        assert engine.spent == Spent(5, 2, 0.0)
    assert endpoint.seen[0][2]["stream"] is True


def test_what_is_no_openai_answer(endpoint: Endpoint) -> None:
    endpoint.script = [(200, {}, {"hello": 1}), (200, {}, "data: {nonsense\n\n"), (200, {}, {"data": 3})]
    with OpenAIEngine(endpoint.url, "m") as engine:
        with pytest.raises(EngineError, match="does not answer as OpenAI's API does"):
            engine.generate([TALK], GREEDY)
        with pytest.raises(EngineError, match="does not answer as OpenAI's API does"):
            list(engine.stream(TALK, GREEDY))
        with pytest.raises(EngineError, match="does not answer as OpenAI's API does"):
            engine.embed(["a"])


def test_embeddings_come_in_order(endpoint: Endpoint) -> None:
    items = [{"index": 1, "embedding": [0, 1]}, {"index": 0, "embedding": [1, 0]}]
    endpoint.script = [(200, {}, {"data": items, "usage": {"prompt_tokens": 3}})]
    with OpenAIEngine(endpoint.url, "m") as engine:
        assert engine.embed(["a", "b"]) == [[1.0, 0.0], [0.0, 1.0]]
        assert engine.spent.prompt_tokens == 3


def test_calls_of_tools_are_sent_as_json_text(endpoint: Endpoint) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    raw = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
    ]
    endpoint.script = [(200, {}, said("2"))]
    with OpenAIEngine(endpoint.url, "m") as engine:
        talk = Conversation(parse_messages(raw, "test"))
        engine.generate([talk], GREEDY)
        assert json.loads(engine.render(talk)) == endpoint.seen[0][2]["messages"]
        with pytest.raises(EngineError, match="does not tell how likely"):
            engine.score(talk, ["x"])
    sent = endpoint.seen[0][2]["messages"][1]["tool_calls"][0]
    assert sent == {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
