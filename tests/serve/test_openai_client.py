"""OpenAI's own Python client, unmodified, against the server."""

from __future__ import annotations

import json
import math
from pathlib import Path

import openai
import pytest

from helpers.serving import HELLO, PARAMETERS, WEATHER, Running
from nomoat.chat.conversation import Conversation, Message
from nomoat.chat.template import ChatTemplate
from nomoat.engine.base import Sampling
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.engine.openai import OpenAIEngine
from nomoat.model.load import load_tokenizer

OTHER = {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def client(running: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=30)


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["champion", "gen-0001"]
    assert client.models.retrieve("champion").owned_by == "nomoat"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")


def test_a_chat_and_what_it_took(client: openai.OpenAI, tiny: Path) -> None:
    found = client.chat.completions.create(model="champion", messages=HELLO, max_tokens=8, temperature=0)
    (choice,) = found.choices
    assert (choice.finish_reason, choice.message.role) == ("length", "assistant")
    assert found.usage is not None and found.usage.completion_tokens == 8
    template = ChatTemplate.of(load_tokenizer(tiny))
    talk = Conversation(tuple(Message(m["role"], m["content"]) for m in HELLO))
    prompt = template.encode(talk, add_generation_prompt=True)
    assert found.usage.prompt_tokens == len(prompt)
    with LlamaCppEngine(tiny / "model.gguf", tokenizer_dir=tiny, exact=True) as engine:
        (expected,) = engine.generate([talk], Sampling(max_new_tokens=8))
    assert choice.message.content == expected.text.rstrip("\ufffd")


def test_a_stream_is_the_same_answer(client: openai.OpenAI) -> None:
    settings = {"model": "gen-0001", "messages": HELLO, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**settings)
    stream = client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_several_choices_differ_and_a_seed_repeats_them(client: openai.OpenAI) -> None:
    def drawn(seed: int) -> list[str | None]:
        found = client.chat.completions.create(
            model="champion", messages=HELLO, max_tokens=8, n=3, seed=seed, temperature=1.0
        )
        assert [choice.index for choice in found.choices] == [0, 1, 2]
        return [choice.message.content for choice in found.choices]

    first = drawn(7)
    assert len(set(first)) == 3
    assert drawn(7) == first
    assert drawn(8)[:2] == first[1:]  # the i-th choice draws with seed + i
    chunks = client.chat.completions.create(
        model="champion", messages=HELLO, max_tokens=8, n=3, seed=7, stream=True
    )
    texts = ["", "", ""]
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == first


def test_stop(client: openai.OpenAI) -> None:
    settings = {"model": "champion", "messages": HELLO, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**settings).choices[0].message.content or ""
    stop = whole[1:3]
    assert stop.isascii(), whole
    cut = client.chat.completions.create(**settings, stop=[stop, "never comes"]).choices[0]
    assert (cut.message.content, cut.finish_reason) == (whole[: whole.index(stop)], "stop")


def test_logprobs(client: openai.OpenAI) -> None:
    settings = {"model": "champion", "messages": HELLO, "max_tokens": 4, "temperature": 0}
    found = client.chat.completions.create(**settings, logprobs=True, top_logprobs=3)
    tokens = found.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == found.choices[0].message.content
    for token in tokens:
        assert bytes(token.bytes).decode(errors="replace") == token.token
        assert len(token.top_logprobs) == 3
        assert token.logprob == max(top.logprob for top in token.top_logprobs) < 0
    chunks = client.chat.completions.create(**settings, logprobs=True, top_logprobs=3, stream=True)
    streamed = [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content or []]
    assert [t.token for t in streamed] == [t.token for t in tokens]
    plain = client.chat.completions.create(**settings)
    assert plain.choices[0].logprobs is None


def test_json_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["cat", "dog"]}, "is_tame": {"type": "boolean"}},
        "required": ["kind", "is_tame"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "animal", "schema": schema, "strict": True}}
    for seed in range(3):
        found = client.chat.completions.create(
            model="champion", messages=HELLO, response_format=wanted, seed=seed, max_tokens=100
        )
        animal = json.loads(found.choices[0].message.content or "")
        assert animal.keys() == {"kind", "is_tame"}
        assert found.choices[0].finish_reason == "stop"
    with pytest.raises(openai.BadRequestError, match="Invalid type: animal") as caught:
        client.chat.completions.create(
            model="champion",
            messages=HELLO,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "animal"}},
            },
        )
    assert caught.value.param == "response_format"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_tools_that_must_be_called(client: openai.OpenAI, choice: object) -> None:
    tools = [WEATHER] if choice == "required" else [OTHER, WEATHER]
    settings = {
        "model": "champion",
        "messages": HELLO,
        "tools": tools,
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "max_tokens": 100,
    }
    found = client.chat.completions.create(**settings).choices[0]
    assert (found.finish_reason, found.message.content) == ("tool_calls", None)
    (call,) = found.message.tool_calls or []
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Kyiv", "Graz")
    chunks = list(client.chat.completions.create(**settings, stream=True))
    (streamed,) = [c.choices[0].delta.tool_calls for c in chunks if c.choices[0].delta.tool_calls]
    assert streamed[0].function.name == "weather"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == ""
    # what was called is told in the next turn
    messages = [*HELLO, found.message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    again = client.chat.completions.create(model="champion", messages=messages, tools=tools, max_tokens=4)
    assert again.choices[0].finish_reason in ("length", "stop", "tool_calls")


def test_tools_that_may_be_called_leave_words_alone(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(
        model="champion", messages=HELLO, tools=[WEATHER], max_tokens=8, temperature=0
    )
    assert found.choices[0].message.tool_calls is None
    assert found.choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="there is no tool named 'rain'"):
        client.chat.completions.create(
            model="champion",
            messages=HELLO,
            tools=[WEATHER],
            tool_choice={"type": "function", "function": {"name": "rain"}},
        )


def test_completions(client: openai.OpenAI) -> None:
    settings = {"model": "champion", "max_tokens": 5, "temperature": 0}
    found = client.completions.create(prompt=["Lily", "the dog"], logprobs=2, **settings)
    first, second = found.choices
    assert first.text != second.text
    assert first.logprobs is not None
    assert "".join(first.logprobs.tokens) == first.text
    assert [len(top) for top in first.logprobs.top_logprobs] == [2] * len(first.logprobs.tokens)
    stream = client.completions.create(prompt="Lily", stream=True, **settings)
    assert "".join(chunk.choices[0].text for chunk in stream) == first.text


def test_completions_weigh_a_given_text(client: openai.OpenAI, tiny: Path) -> None:
    """As lm-eval asks for log-likelihoods."""
    text = "Lily and the dog"
    settings = {"model": "champion", "prompt": text, "logprobs": 1, "echo": True}
    found = client.completions.create(max_tokens=0, **settings).choices[0]
    assert found.text == text
    assert found.logprobs.token_logprobs[0] is None
    with LlamaCppEngine(tiny / "model.gguf", tokenizer_dir=tiny, exact=True) as engine:
        ids = engine.template.encode_texts([text])[0]
        logits = engine._model.logits(ids).astype(float)
    expected = [
        row[token] - math.log(sum(math.exp(x - row.max()) for x in row)) - row.max()
        for row, token in zip(logits, ids[1:], strict=False)
    ]
    assert found.logprobs.token_logprobs[1:] == pytest.approx(expected, abs=1e-4)
    more = client.completions.create(max_tokens=6, temperature=0, **settings).choices[0]
    assert more.text.startswith(text) and len(more.text) > len(text)


def test_embeddings(client: openai.OpenAI) -> None:
    found = client.embeddings.create(model="champion", input=["Lily", "the dog", "Lily"])  # base64 inside
    vectors = [item.embedding for item in found.data]
    assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1.0] * 3, abs=1e-5)
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-5)
    plain = client.embeddings.create(model="champion", input="the dog", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(vectors[1], abs=1e-5)
    with pytest.raises(openai.BadRequestError, match=r"input\[1\] has 0 tokens"):
        client.embeddings.create(model="champion", input=["a", ""])


def test_responses(client: openai.OpenAI) -> None:
    settings = {"model": "champion", "instructions": "Be brief.", "temperature": 0, "max_output_tokens": 8}
    found = client.responses.create(input="Tell me of Lily.", **settings)
    chat = client.chat.completions.create(model="champion", messages=HELLO, temperature=0, max_tokens=8)
    assert found.output_text == chat.choices[0].message.content
    assert (found.status, found.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert found.usage.input_tokens == chat.usage.prompt_tokens
    parts = [{"role": "user", "content": [{"type": "input_text", "text": "Tell me of Lily."}]}]
    events = list(client.responses.create(input=parts, stream=True, **settings))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.incomplete"
    assert "".join(deltas) == events[-1].response.output_text == found.output_text


def test_responses_with_tools(client: openai.OpenAI) -> None:
    tool = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}
    settings = {"model": "champion", "tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
    found = client.responses.create(input="Weather?", **settings)
    (call,) = found.output
    assert (call.type, call.name) == ("function_call", "weather")
    assert json.loads(call.arguments)["city"] in ("Kyiv", "Graz")
    history = [
        {"role": "user", "content": "Weather?"},
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
    ]
    told = client.responses.create(model="champion", input=history, max_output_tokens=4)
    assert told.output_text is not None
    with client.responses.stream(input="Weather?", **settings) as stream:
        kinds = [event.type for event in stream]
    assert "response.function_call_arguments.done" in kinds
    assert kinds[-1] == "response.completed"


def test_errors_have_the_types_that_the_client_knows(client: openai.OpenAI) -> None:
    def ask(**changed: object) -> object:
        return client.chat.completions.create(**{"model": "champion", "messages": HELLO, **changed})

    with pytest.raises(openai.NotFoundError) as unknown:
        ask(model="gpt-5")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    assert "This server has: champion, gen-0001" in str(unknown.value)
    with pytest.raises(openai.BadRequestError) as long:
        ask(messages=[{"role": "user", "content": "word " * 600}])
    assert long.value.code == "context_length_exceeded"
    for changed, param, said in (
        ({"temperature": 7}, "temperature", "temperature: Input should be less than or equal to 2"),
        ({"messages": [{"role": "usr", "content": "x"}]}, "messages", 'messages[0].role: got "usr"'),
        ({"messages": []}, "messages", "messages: List should have at least 1 item"),
        ({"extra_body": {"temprature": 1}}, "temprature", 'Did you mean "temperature"?'),
        ({"logit_bias": {"x": 1}}, "logit_bias", "expected token ids as keys"),
        ({"top_logprobs": 2}, "top_logprobs", "needs logprobs: true"),
        ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "expected text"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(**changed)
        assert caught.value.param == param, changed
        assert said in str(caught.value), (changed, str(caught.value))
    with pytest.raises(openai.BadRequestError, match="invalid tokens|vocabulary"):
        client.completions.create(model="champion", prompt=[5, 10**6], max_tokens=2)


def test_our_own_client_engine(running: Running, tiny: Path) -> None:
    talk = Conversation((Message("user", "Tell me of Lily."),))
    with (
        OpenAIEngine(f"{running.url}/v1", "champion") as engine,
        LlamaCppEngine(tiny / "model.gguf", tokenizer_dir=tiny, exact=True) as local,
    ):
        (expected,) = local.generate([talk], Sampling(max_new_tokens=6))
        (found,) = engine.generate([talk], Sampling(max_new_tokens=6))
        assert found.text == expected.text.rstrip("\ufffd")
        assert "".join(engine.stream(talk, Sampling(max_new_tokens=6))) == found.text
        assert engine.spent.completion_tokens == 12
        assert math.hypot(*engine.embed(["Lily"])[0]) == pytest.approx(1.0, abs=1e-5)
