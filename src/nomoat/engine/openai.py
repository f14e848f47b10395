"""Any endpoint that speaks OpenAI's API: a paid one, a neighbour's machine, another `nomoat serve`."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, final

import httpx

from nomoat.chat.conversation import Conversation
from nomoat.engine.base import Completion, FinishReason, Sampling
from nomoat.errors import EngineError

KEY_VARIABLE = "OPENAI_API_KEY"
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_TRANSIENT = frozenset({408, 409, 429})
_OPTIONAL = frozenset({"temperature", "top_p", "top_k", "seed"})
_RENAMED = {"max_tokens": "max_completion_tokens"}
"""What models that think first take no longer under the name that all others know."""


@dataclass(frozen=True)
class Spent:
    """What an engine has used so far, as the endpoint counted it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0


@final
class OpenAIEngine:
    """A model behind an HTTP endpoint.

    Args:
        base_url: up to and with the version, such as https://api.openai.com/v1.
        model: its name there.
        key_variable: the environment variable that holds the key; unset or empty for none.
        n_parallel: requests of one `generate` under way at once.
        dollars_per_million_prompt_tokens, dollars_per_million_completion_tokens: prices, for `spent`.
        timeout_s: the longest silence of the endpoint.
        attempts: tries of a request that the endpoint turns away for now, or that does not reach it; the
            wait between them doubles from half a second, or is what the endpoint asks for, up to 30 s.
        wait: sleeps for so many seconds.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key_variable: str = KEY_VARIABLE,
        n_parallel: int = 4,
        dollars_per_million_prompt_tokens: float = 0.0,
        dollars_per_million_completion_tokens: float = 0.0,
        timeout_s: float = 120.0,
        attempts: int = 6,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._model = model
        self._key_variable = key_variable
        self._n_parallel = n_parallel
        self._prices = (dollars_per_million_prompt_tokens, dollars_per_million_completion_tokens)
        self._attempts = attempts
        self._wait = wait
        self._not_taken = set[str]()  # parameters that the endpoint has refused
        self._spent = Spent()
        self._counting = threading.Lock()
        key = os.environ.get(key_variable, "").strip()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=timeout_s)

    def __enter__(self) -> OpenAIEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def spent(self) -> Spent:
        """Tokens and money so far, answers cut short not counted."""
        return self._spent

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        *,
        schema: dict[str, Any] | None = None,
    ) -> list[Completion]:
        """An answer to each conversation, in order; the i-th asks for seed + i. `Completion.tokens` is empty:
        endpoints do not tell ids. With a JSON `schema` the endpoint is asked to hold the answers to it.

        Raises:
            EngineError: the endpoint cannot be reached, refuses, or answers something else.
        """

        def complete(index: int) -> Completion:
            body = self._body(conversations[index], sampling, index)
            if schema is not None:
                form = {"name": "answer", "strict": True, "schema": schema}
                body["response_format"] = {"type": "json_schema", "json_schema": form}
            answer = self._post("chat/completions", body).json()
            try:
                choice, usage = answer["choices"][0], answer.get("usage") or {}
                text, reason = choice["message"]["content"] or "", choice["finish_reason"]
            except (KeyError, IndexError, TypeError) as error:
                raise self._strange(answer) from error
            self._count(usage)
            finished: FinishReason = "length" if reason == "length" else "stop"
            return Completion(text, (), finished, usage.get("prompt_tokens", 0))

        with ThreadPoolExecutor(self._n_parallel) as threads:
            return list(threads.map(complete, range(len(conversations))))

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[str]:
        """The answer's text as it comes. Closing the iterator hangs up, which ends the generation.

        Raises:
            EngineError: as `generate`.
        """
        body = self._body(conversation, sampling, 0) | {
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        response = self._post("chat/completions", body, stream=True)
        try:
            for line in response.iter_lines():
                data = line.removeprefix("data:").strip()
                if not line.startswith("data:") or data == "[DONE]":
                    continue
                event = json.loads(data)
                if "error" in event:
                    raise self._refusal(response.status_code, event)
                if event.get("usage"):
                    self._count(event["usage"])
                for choice in event.get("choices", []):
                    if text := choice["delta"].get("content"):
                        yield text
        except httpx.HTTPError as error:
            raise EngineError(f"{self._base_url}: the answer broke off ({_said(error)})") from error
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise self._strange(line) from error
        finally:
            response.close()

    def score(self, conversation: Conversation, answers: Sequence[str]) -> list[float]:
        """Not here: the API does not tell how likely a given text is.

        Raises:
            EngineError: always.
        """
        raise EngineError(
            f"{self._base_url}: OpenAI's API does not tell how likely a given answer is",
            hint="score with a local model",
        )

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """See `Engine.embed`; the vectors are the endpoint's own.

        Raises:
            EngineError: as `generate`.
        """
        answer = self._post("embeddings", {"model": self._model, "input": list(texts)}).json()
        try:
            items = sorted(answer["data"], key=lambda item: item["index"])
            vectors = [list(map(float, item["embedding"])) for item in items]
        except (KeyError, TypeError, ValueError) as error:
            raise self._strange(answer) from error
        self._count(answer.get("usage") or {})
        return vectors

    def render(self, conversation: Conversation) -> str:
        """What is sent of a conversation, as JSON: the endpoint's own template is not known."""
        return json.dumps(_messages(conversation), ensure_ascii=False)

    # ---- HTTP

    def _body(self, conversation: Conversation, sampling: Sampling, index: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": _messages(conversation),
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed + index,
        }
        if sampling.top_k:
            body["top_k"] = sampling.top_k  # not OpenAI's own, but vLLM, llama.cpp and nomoat know it
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if conversation.tools:
            body["tools"] = list(conversation.tools)
        return body

    def _post(self, path: str, body: dict[str, Any], *, stream: bool = False) -> httpx.Response:
        """The endpoint's good answer, after as many tries as it takes and may."""
        problem = EngineError("not tried")
        for attempt in range(self._attempts):
            asked_s = None
            try:
                taken = self._as_taken(body)
                request = self._client.build_request("POST", f"{self._base_url}/{path}", json=taken)
                response = self._client.send(request, stream=stream)
            except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
                raise EngineError(f"{self._base_url}: is no address of an endpoint ({error})") from error
            except httpx.HTTPError as error:
                problem = EngineError(
                    f"{self._base_url}: cannot be reached ({_said(error)})",
                    hint="Is the server up, and the address right?",
                )
            else:
                if response.status_code == httpx.codes.OK:
                    return response
                response.read()
                answered = _json_or_text(response)
                problem = self._refusal(response.status_code, answered)
                refused = _refused_parameter(response.status_code, answered)
                if refused in taken and refused in _OPTIONAL | _RENAMED.keys():
                    self._not_taken.add(refused)
                    continue
                if response.status_code < 500 and response.status_code not in _TRANSIENT:
                    raise problem
                asked_s = _retry_after_s(response)
            if attempt + 1 < self._attempts:
                backoff_s = _FIRST_WAIT_S * 2**attempt * random.uniform(0.75, 1.25)
                self._wait(min(_LONGEST_WAIT_S, asked_s if asked_s is not None else backoff_s))
        raise problem

    def _as_taken(self, body: dict[str, Any]) -> dict[str, Any]:
        """A request without what this endpoint's model has refused to take."""
        renamed = {
            _RENAMED.get(name, name) if name in self._not_taken else name: value
            for name, value in body.items()
        }
        return {name: value for name, value in renamed.items() if name not in self._not_taken}

    def _refusal(self, status: int, body: Any) -> EngineError:
        error = body.get("error") if isinstance(body, dict) else body
        said = str(error.get("message", error)) if isinstance(error, dict) else str(error)
        hints = {
            401: f"Set its key: export {self._key_variable}=...",
            403: f"Is the key in {self._key_variable} allowed to do this?",
            404: "Are the address (does it end in /v1?) and the model's name right?",
            429: "The endpoint is busy, or your limit there is used up: try later.",
        }
        return EngineError(
            f"{self._base_url}: answers {status}: {' '.join(said.split())[:300]}", hint=hints.get(status)
        )

    def _strange(self, answer: object) -> EngineError:
        return EngineError(f"{self._base_url}: does not answer as OpenAI's API does: {str(answer)[:200]}")

    def _count(self, usage: dict[str, Any]) -> None:
        prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        dollars = (prompt * self._prices[0] + completion * self._prices[1]) / 1e6
        with self._counting:
            self._spent = Spent(
                self._spent.prompt_tokens + prompt,
                self._spent.completion_tokens + completion,
                self._spent.dollars + dollars,
            )


def _messages(conversation: Conversation) -> list[dict[str, Any]]:
    """Messages as the API takes them, where arguments of calls are JSON text."""
    sent = []
    for message in conversation.messages:
        out = message.to_dict()
        if message.tool_calls:
            out["tool_calls"] = [
                {
                    **call,
                    "function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"])},
                }
                for call in message.tool_calls
            ]
        sent.append(out)
    return sent


def _json_or_text(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return response.text


def _refused_parameter(status: int, body: Any) -> str | None:
    """The parameter that a model does not take, or takes only at one value, as OpenAI says so."""
    error = body.get("error") if isinstance(body, dict) else None
    if status != httpx.codes.BAD_REQUEST or not isinstance(error, dict):
        return None
    if error.get("code") not in ("unsupported_parameter", "unsupported_value"):
        return None
    named = error.get("param")
    return named if isinstance(named, str) else None


def _retry_after_s(response: httpx.Response) -> float | None:
    """Retry-After is seconds or a date (RFC 9110, section 10.2.3)."""
    said = response.headers.get("retry-after", "")
    with suppress(ValueError):
        return max(0.0, float(said))
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    return None


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
