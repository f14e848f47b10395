"""/v1/completions: plain text, or token ids, continued; and how likely a given text is (`echo`)."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from nomoat.engine.request import Ending, Likely, ServingEngine, Written
from nomoat.serve.chat import bounded, usage
from nomoat.serve.errors import ApiError, too_long
from nomoat.serve.http import ServerEvent, event_stream, json_response, new_id, until_gone
from nomoat.serve.prepare import Settings, prepare_text
from nomoat.serve.schemas import MOST_CHOICES, MOST_INPUTS, CompletionRequest
from nomoat.serve.turns import Desk, Done, Event, Words

_DEFAULT_TOKENS = 16  # OpenAI's
Prompt = str | Sequence[int]


async def completions(desk: Desk, body: CompletionRequest, http: HttpRequest) -> Response:
    """Continue prompts, whole or as a stream."""
    arrived = time.monotonic()
    prompts = _prompts(body)
    if body.stream and body.echo:
        raise ApiError(400, "echo: is not streamed", param="echo")
    if not body.echo and body.max_tokens == 0:
        raise ApiError(400, "max_tokens: got 0; expected 1 or more without echo", param="max_tokens")
    if body.stream:
        return await until_gone(http, event_stream(_chunks(desk, body, prompts, arrived)))
    return await until_gone(http, _whole(desk, body, prompts, arrived))


def _prompts(body: CompletionRequest) -> list[Prompt]:
    raw = body.prompt
    if isinstance(raw, str):
        return [raw]
    prompts: list[Prompt] = [raw] if isinstance(raw[0], int) else list(raw)
    if len(prompts) > MOST_INPUTS:
        raise ApiError(400, f"prompt: got {len(prompts)}; expected at most {MOST_INPUTS}", param="prompt")
    if len(prompts) > 1 and (body.n or 1) * len(prompts) > MOST_CHOICES * MOST_INPUTS:
        raise ApiError(400, "n: too many answers for so many prompts", param="n")
    return prompts


@dataclass
class _Choice:
    """One answer, and with `echo` the prompt before it."""

    text: list[str] = field(default_factory=list)
    tokens: list[Written] = field(default_factory=list)
    done: Done | None = None


async def _events(
    desk: Desk, body: CompletionRequest, prompts: list[Prompt], arrived: float
) -> AsyncGenerator[list[Event]]:
    """The answers to one prompt after the other; choice `i` of prompt `p` has the index p·n + i."""
    count = body.n or 1
    settings = Settings.of(body, max_tokens=body.max_tokens or _DEFAULT_TOKENS, top_logprobs=body.logprobs)
    async with desk.model(body.model) as loaded:
        for place, prompt in enumerate(prompts):
            if body.echo:
                words, ending = await asyncio.to_thread(_echo, loaded.engine, prompt, body)
                yield [(place * count + i, words) for i in range(count)]
                if body.max_tokens == 0:
                    yield [(place * count + i, Done("length", (), ending)) for i in range(count)]
                    continue
            prepared = await asyncio.to_thread(prepare_text, loaded.engine, prompt, settings)
            async with aclosing(desk.choices(loaded, prepared, count, arrived)) as choices:
                async for events in choices:
                    yield [(place * count + index, event) for index, event in events]


def _echo(engine: ServingEngine, prompt: Prompt, body: CompletionRequest) -> tuple[Words, Ending]:
    """The prompt itself, with the log-probability of each of its tokens where they are asked for."""
    tokens = engine.tokenize(prompt, begins=True) if isinstance(prompt, str) else list(prompt)
    if not tokens:
        raise ApiError(400, "prompt: is empty; expected text", param="prompt")
    if len(tokens) > engine.n_ctx:
        raise too_long(len(tokens), engine.n_ctx)
    written: tuple[Written, ...] = ()
    if body.logprobs is not None:
        written = tuple(engine.weigh(tokens, body.logprobs))
    text = prompt if isinstance(prompt, str) else engine.detokenize(tokens)
    return Words(text, written), Ending("length", len(tokens), 0, 0)


async def _whole(desk: Desk, body: CompletionRequest, prompts: list[Prompt], arrived: float) -> Response:
    choices = [_Choice() for _ in range(len(prompts) * (body.n or 1))]
    async with aclosing(_events(desk, body, prompts, arrived)) as batches:
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
            "id": new_id("cmpl-"),
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model,
            "choices": [
                {
                    "index": i,
                    "text": "".join(choice.text),
                    "logprobs": _logprobs(choice.tokens, body.logprobs, 0),
                    "finish_reason": done.finish_reason,
                }
                for i, (choice, done) in enumerate(written)
            ],
            "usage": usage([done.ending for _, done in written]),
        }
    )


async def _chunks(
    desk: Desk, body: CompletionRequest, prompts: list[Prompt], arrived: float
) -> AsyncGenerator[list[ServerEvent]]:
    head = {
        "id": new_id("cmpl-"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": body.model,
    }
    offsets: defaultdict[int, int] = defaultdict(int)
    endings: list[Ending] = []

    def chunk(index: int, event: Words | Done) -> ServerEvent:
        choice: dict[str, Any] = {"index": index, "text": "", "logprobs": None, "finish_reason": None}
        if isinstance(event, Done):
            endings.append(event.ending)
            choice["finish_reason"] = event.finish_reason
        else:
            choice["text"] = event.text
            choice["logprobs"] = _logprobs(event.tokens, body.logprobs, offsets[index])
            offsets[index] += len(event.text)
        return None, {**head, "choices": [choice]}

    async with aclosing(_events(desk, body, prompts, arrived)) as batches:
        async for events in batches:
            yield [chunk(index, event) for index, event in events]
    last: list[ServerEvent] = [(None, "[DONE]")]
    if body.includes_usage:
        last.insert(0, (None, {**head, "choices": [], "usage": usage(endings)}))
    yield last


def _logprobs(tokens: Sequence[Written], top: int | None, offset: int) -> Mapping[str, Any] | None:
    """The older form: parallel lists; `text_offset` counts characters."""
    if top is None:
        return None
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.chosen.text)
    return {
        "tokens": [token.chosen.text for token in tokens],
        "token_logprobs": [_number(token.chosen) for token in tokens],
        "top_logprobs": [
            {one.text: _number(one) for one in token.top[:top]} if token.top else None for token in tokens
        ],
        "text_offset": offsets,
    }


def _number(one: Likely) -> float | None:
    """None for the first token of a prompt, whose probability nobody knows."""
    return None if one.logprob is None else bounded(one.logprob)
