"""LiteLLM, unmodified, against the server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from helpers.serving import HELLO, PARAMETERS, WEATHER, Running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier"),  # of its own types
]


@pytest.fixture(scope="module")
def litellm() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it is fetched when it is imported
        return pytest.importorskip("litellm", reason="the extra dev is not installed")


@pytest.fixture
def where(running: Running) -> dict[str, Any]:
    return {"model": "openai/champion", "api_base": f"{running.url}/v1", "api_key": "none", "num_retries": 0}


def test_a_stream_is_the_same_answer(litellm: Any, where: dict[str, Any]) -> None:
    settings = where | {"messages": HELLO, "max_tokens": 12, "temperature": 0}
    whole = litellm.completion(**settings)
    assert (whole.choices[0].finish_reason, whole.usage.completion_tokens) == ("length", 12)
    chunks = [*litellm.completion(**settings, stream=True)]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content != ""
    assert chunks[-1].choices[0].finish_reason == "length"


def test_a_schema_and_a_tool(litellm: Any, where: dict[str, Any]) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "place", "schema": PARAMETERS, "strict": True}}
    settings = where | {"messages": HELLO, "max_tokens": 100, "seed": 1}
    found = litellm.completion(**settings, response_format=wanted)
    assert json.loads(found.choices[0].message.content)["city"] in ("Kyiv", "Graz")
    found = litellm.completion(**settings, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False)
    (call,) = found.choices[0].message.tool_calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Kyiv", "Graz")


def test_log_probabilities_and_embeddings(litellm: Any, where: dict[str, Any]) -> None:
    found = litellm.completion(
        **where, messages=HELLO, max_tokens=4, temperature=0, logprobs=True, top_logprobs=2
    )
    tokens = found.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == found.choices[0].message.content
    assert {len(token.top_logprobs) for token in tokens} == {2}
    one, other = litellm.embedding(**where, input=["a cat", "a hill"]).data
    assert len(one["embedding"]) == len(other["embedding"]) > 0 != one["embedding"] != other["embedding"]


def test_errors_are_the_clients_own(litellm: Any, where: dict[str, Any]) -> None:
    with pytest.raises(litellm.NotFoundError, match="gpt-5"):
        litellm.completion(**where | {"model": "openai/gpt-5"}, messages=HELLO)
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        litellm.completion(**where, messages=HELLO, temperature=-1)
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**where, messages=[{"role": "user", "content": "cat " * 4000}])
