"""/v1/chat/completions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from nomoat.chat.tools import Call
from nomoat.engine.request import Ending, Likely, Written
from nomoat.serve.errors import ApiError
from nomoat.serve.http import ServerEvent, event_stream, json_response, new_id, until_gone
from nomoat.serve.prepare import Asked, Settings, prepare_chat
from nomoat.serve.schemas import ChatRequest, Format, JsonFormat, NamedTool, SchemaFormat
from nomoat.serve.turns import Desk, Done, Event, Words


async def chat_completions(desk: Desk, body: ChatRequest, http: HttpRequest) -> Response:
    """Answer a chat, whole or as a stream."""
    arrived = time.monotonic()
    if body.stream:
        return await until_gone(http, event_stream(_chunks(desk, body, arrived)))
    return await until_gone(http, _whole(desk, body, arrived))


async def _events(desk: Desk, body: ChatRequest, arrived: float) -> AsyncGenerator[list[Event]]:
    asked = Asked(
        messages=body.messages,
        tools=body.tools or (),
        tool_choice=_choice(body),
        parallel_calls=body.parallel_tool_calls is not False,
        schema=wanted_schema(body.response_format),
    )
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs: needs logprobs: true", param="top_logprobs")
    settings = Settings.of(
        body,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    async with desk.model(body.model) as loaded:
        prepared = await asyncio.to_thread(prepare_chat, loaded.engine, asked, settings)
        async with aclosing(desk.choices(loaded, prepared, body.n or 1, arrived)) as choices:
            async for events in choices:
                yield events


def wanted_schema(wanted: Format | None) -> Any:
    """The JSON schema that an answer is to fit; None for any text."""
    if isinstance(wanted, JsonFormat):
        return {"type": "object"}
    return wanted.json_schema.schema_ if isinstance(wanted, SchemaFormat) else None


def _choice(body: ChatRequest) -> str | tuple[str, str]:
    if isinstance(body.tool_choice, NamedTool):
        return "name", body.tool_choice.function.name
    return body.tool_choice or ("auto" if body.tools else "none")


# ---- whole answers


@dataclass
class _Choice:
    text: list[str] = field(default_factory=list)
    tokens: list[Written] = field(default_factory=list)
    done: Done | None = None


async def _whole(desk: Desk, body: ChatRequest, arrived: float) -> Response:
    choices = [_Choice() for _ in range(body.n or 1)]
    async with aclosing(_events(desk, body, arrived)) as batches:
        async for events in batches:
            for index, event in events:
                if isinstance(event, Done):
                    choices[index].done = event
                else:
                    choices[index].text.append(event.text)
                    choices[index].tokens += event.tokens
    written = [(choice, choice.done) for choice in choices if choice.done is not None]
    return json_response(
        {
            "id": new_id("chatcmpl-"),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body.model,
            "choices": [
                {
                    "index": i,
                    "message": _message("".join(choice.text), done.calls),
                    "logprobs": {"content": token_json(choice.tokens, body.top_logprobs), "refusal": None}
                    if body.logprobs
                    else None,
                    "finish_reason": done.finish_reason,
                }
                for i, (choice, done) in enumerate(written)
            ],
            "usage": usage([done.ending for _, done in written]),
        }
    )


def _message(text: str, calls: tuple[Call, ...]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text or ("" if not calls else None)}
    if calls:
        message["tool_calls"] = [call_json(call) for call in calls]
    return message


def call_json(call: Call) -> dict[str, Any]:
    """A call of a tool, with an id of its own."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": new_id("call_"), "type": "function", "function": function}


def token_json(tokens: list[Written] | tuple[Written, ...], top: int | None) -> list[dict[str, Any]]:
    """Tokens with their log-probabilities and those of the `top` likeliest."""
    return [
        {**_likely(token.chosen), "top_logprobs": [_likely(one) for one in token.top[: top or 0]]}
        for token in tokens
    ]


def _likely(one: Likely) -> dict[str, Any]:
    return {"token": one.text, "logprob": bounded(one.logprob or 0.0), "bytes": list(one.raw)}


def bounded(logprob: float) -> float:
    """-inf is no JSON; OpenAI writes -9999.0 for what all but cannot come."""
    return max(logprob, -9999.0)


def usage(endings: list[Ending]) -> dict[str, Any]:
    """What the choices of one request took; their prompt is counted once."""
    prompt = endings[0].prompt_tokens if endings else 0
    completion = sum(ending.completion_tokens for ending in endings)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": endings[0].cached_tokens if endings else 0},
    }


# ---- streams


async def _chunks(desk: Desk, body: ChatRequest, arrived: float) -> AsyncGenerator[list[ServerEvent]]:
    head = {
        "id": new_id("chatcmpl-"),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": body.model,
    }

    def chunk(index: int, delta: Mapping[str, Any], **more: Any) -> ServerEvent:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        return None, {**head, "choices": [choice]}

    def chunks(index: int, event: Words | Done) -> Iterator[ServerEvent]:
        if isinstance(event, Words):
            logprobs = {"content": token_json(event.tokens, body.top_logprobs), "refusal": None}
            yield chunk(index, {"content": event.text}, logprobs=logprobs if body.logprobs else None)
            return
        for i, call in enumerate(event.calls):
            yield chunk(index, {"tool_calls": [{"index": i, **call_json(call)}]})
        yield chunk(index, {}, finish_reason=event.finish_reason)

    begun: set[int] = set()
    endings: list[Ending] = []
    async with aclosing(_events(desk, body, arrived)) as batches:
        async for events in batches:
            told: list[ServerEvent] = []
            for index, event in events:
                if index not in begun:
                    begun.add(index)
                    told.append(chunk(index, {"role": "assistant", "content": ""}))
                if isinstance(event, Done):
                    endings.append(event.ending)
                told += chunks(index, event)
            yield told
    last: list[ServerEvent] = [(None, "[DONE]")]
    if body.includes_usage:
        last.insert(0, (None, {**head, "choices": [], "usage": usage(endings)}))
    yield last
