"""/v1/responses: OpenAI's newer form of a chat, with text and tools. Nothing is stored here, so there is no
`previous_response_id`: the whole conversation is sent each time."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, final

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from nomoat.chat.tools import Call
from nomoat.engine.request import Ending
from nomoat.serve.chat import usage
from nomoat.serve.errors import ApiError
from nomoat.serve.http import ServerEvent, event_stream, json_response, new_id, until_gone
from nomoat.serve.prepare import Asked, Settings, prepare_chat
from nomoat.serve.schemas import FlatTool, JsonFormat, ResponsesRequest, SchemaText
from nomoat.serve.turns import Desk, Done, Words


async def responses(desk: Desk, body: ResponsesRequest, http: HttpRequest) -> Response:
    """Answer, whole or as a stream."""
    if body.stream:
        return await until_gone(http, event_stream(_named(_events(desk, body))))
    return await until_gone(http, _whole(desk, body))


async def _named(batches: AsyncGenerator[list[dict[str, Any]]]) -> AsyncGenerator[list[ServerEvent]]:
    numbers = itertools.count()
    async with aclosing(batches):
        async for events in batches:
            yield [(event["type"], {**event, "sequence_number": next(numbers)}) for event in events]


async def _whole(desk: Desk, body: ResponsesRequest) -> Response:
    last: dict[str, Any] = {}
    async with aclosing(_events(desk, body)) as batches:
        async for events in batches:
            last = events[-1]
    return json_response(last["response"])


async def _events(desk: Desk, body: ResponsesRequest) -> AsyncGenerator[list[dict[str, Any]]]:
    """The response as it grows; the last event holds all of it."""
    arrived = time.monotonic()
    asked = Asked(
        messages=_messages(body),
        tools=[_tool(tool, i) for i, tool in enumerate(body.tools or ())],
        tool_choice=_choice(body),
        parallel_calls=body.parallel_tool_calls is not False,
        schema=_schema(body),
        field="input",
    )
    settings = Settings.of(body, max_tokens=body.max_output_tokens)
    async with desk.model(body.model) as loaded:
        prepared = await asyncio.to_thread(prepare_chat, loaded.engine, asked, settings)
        record = _Record(body)
        begun = ("response.created", "response.in_progress")
        yield [{"type": kind, "response": record.json("in_progress")} for kind in begun]
        async with aclosing(desk.choices(loaded, prepared, 1, arrived)) as choices:
            async for events in choices:
                yield [one for _, event in events for one in record.told(event)]


# ---- what is asked


def _messages(body: ResponsesRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if body.instructions:
        messages.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        return [*messages, {"role": "user", "content": body.input}]
    for i, item in enumerate(body.input):
        messages.append(_message(item, f"input[{i}]"))
    return messages


def _message(item: dict[str, Any], where: str) -> dict[str, Any]:
    kind = item.get("type", "message")
    if kind == "message":
        content = item.get("content")
        if isinstance(content, list):
            content = [_part(part, f"{where}.content[{i}]") for i, part in enumerate(content)]
        return {"role": item.get("role"), "content": content}
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"type": "function", "id": item.get("call_id"), "function": function}
        return {"role": "assistant", "content": "", "tool_calls": [call]}
    if kind == "function_call_output":
        return {"role": "tool", "content": item.get("output"), "tool_call_id": item.get("call_id")}
    raise ApiError(
        400,
        f"{where}.type: got {str(kind)[:40]!r}; expected message, function_call or function_call_output",
        param="input",
    )


def _part(part: Any, where: str) -> Any:
    if isinstance(part, dict) and part.get("type") in ("input_text", "output_text"):
        return {"type": "text", "text": part.get("text")}
    kind = part.get("type") if isinstance(part, dict) else part
    raise ApiError(400, f"{where}.type: got {str(kind)[:40]!r}; expected input_text", param="input")


def _tool(tool: dict[str, Any], i: int) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise ApiError(
            400, f"tools[{i}].type: got {str(tool.get('type'))[:40]!r}; expected function", param="tools"
        )
    known = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {key: tool[key] for key in known if tool.get(key) is not None}}


def _choice(body: ResponsesRequest) -> str | tuple[str, str]:
    if isinstance(body.tool_choice, FlatTool):
        return "name", body.tool_choice.name
    return body.tool_choice or ("auto" if body.tools else "none")


def _schema(body: ResponsesRequest) -> Any:
    wanted = body.text.format if body.text else None
    if isinstance(wanted, JsonFormat):
        return {"type": "object"}
    return wanted.schema_ if isinstance(wanted, SchemaText) else None


# ---- what is answered


@final
class _Record:
    """A response as it grows, and the events that tell of it."""

    def __init__(self, body: ResponsesRequest) -> None:
        self._body = body
        self._id = new_id("resp_")
        self._created = int(time.time())
        self._text: list[str] = []
        self._message_id = new_id("msg_")
        self._output: list[dict[str, Any]] = []
        self._ending: Ending | None = None

    def json(self, status: str) -> dict[str, Any]:
        body = self._body
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "model": body.model,
            "output": list(self._output),
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": {},
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "temperature": 1.0 if body.temperature is None else body.temperature,
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "tool_choice": body.tool_choice.model_dump()
            if isinstance(body.tool_choice, FlatTool)
            else body.tool_choice or "auto",
            "tools": body.tools or [],
            "usage": self._usage(),
        }

    def told(self, event: Words | Done) -> list[dict[str, Any]]:
        """The events that tell of more text, or of the end."""
        return self._words(event.text) if isinstance(event, Words) else self._end(event)

    def _words(self, text: str) -> list[dict[str, Any]]:
        told = [] if self._text else self._begin_message()
        self._text.append(text)
        return [*told, {"type": "response.output_text.delta", "delta": text, "logprobs": [], **self._place()}]

    def _end(self, done: Done) -> list[dict[str, Any]]:
        """Whatever was open is closed."""
        told: list[dict[str, Any]] = []
        if not self._text and not done.calls:
            told += self._begin_message()
        if self._text or not done.calls:
            told += self._end_message(cut=done.finish_reason == "length")
        for call in done.calls:
            told += self._call(call)
        self._ending = done.ending
        status = "incomplete" if done.finish_reason == "length" else "completed"
        return [*told, {"type": f"response.{status}", "response": self.json(status)}]

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._message_id, "output_index": len(self._output), "content_index": 0}

    def _begin_message(self) -> list[dict[str, Any]]:
        item = self._message("in_progress", [])
        return [
            {"type": "response.output_item.added", "output_index": len(self._output), "item": item},
            {"type": "response.content_part.added", "part": _text_part(""), **self._place()},
        ]

    def _end_message(self, *, cut: bool) -> list[dict[str, Any]]:
        text, place = "".join(self._text), self._place()
        item = self._message("incomplete" if cut else "completed", [_text_part(text)])
        self._output.append(item)
        return [
            {"type": "response.output_text.done", "text": text, "logprobs": [], **place},
            {"type": "response.content_part.done", "part": _text_part(text), **place},
            {"type": "response.output_item.done", "output_index": place["output_index"], "item": item},
        ]

    def _message(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._message_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _call(self, call: Call) -> list[dict[str, Any]]:
        place = {"item_id": new_id("fc_"), "output_index": len(self._output)}
        item = {
            "id": place["item_id"],
            "type": "function_call",
            "call_id": new_id("call_"),
            "name": call.name,
            "arguments": "",
            "status": "in_progress",
        }
        done = {**item, "arguments": call.arguments, "status": "completed"}
        self._output.append(done)
        index = place["output_index"]
        return [
            {"type": "response.output_item.added", "output_index": index, "item": item},
            {"type": "response.function_call_arguments.delta", "delta": call.arguments, **place},
            {
                "type": "response.function_call_arguments.done",
                "name": call.name,
                "arguments": call.arguments,
                **place,
            },
            {"type": "response.output_item.done", "output_index": index, "item": done},
        ]

    def _usage(self) -> Mapping[str, Any] | None:
        if self._ending is None:
            return None
        counted = usage([self._ending])
        return {
            "input_tokens": counted["prompt_tokens"],
            "input_tokens_details": counted["prompt_tokens_details"],
            "output_tokens": counted["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": counted["total_tokens"],
        }


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
