"""A judge model behind an OpenAI-compatible endpoint as a source of rewards."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, final

import httpx

from nomoat.data.functions import Asked, Failed, Question
from nomoat.errors import RecipeError

INSTRUCTIONS = (
    "You grade an answer from 0 (useless or wrong) to 10 (as good as can be). Look at whether it does what was asked, "
    "is true, and reads well; a longer answer is not a better one. Reply with the number only."
)
TRIES, FIRST_WAIT_S, LONGEST_WAIT_S, AT_ONCE = 4, 1.0, 30.0, 4
_GRADE = re.compile(r"(?<![\d.])(10|\d)(\.\d+)?(?:\s*/\s*10)?(?![\d.]*\d)")


@final
class Judge:
    """Grades of a model behind `url` (".../v1"), from 0 to 1. Requests are tried `TRIES` times, with waits that double,
    or as long as the endpoint asks; once it could not be reached at all, the rest of a batch is tried only once.

    Its grades are not this machine's: a night with a judge is not the same, byte for byte, when it is run again.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        limit_s: float,
        api_key_env: str | None = None,
        instructions: str = INSTRUCTIONS,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = f"judge {model}"
        self._model, self._instructions, self._sleep = model, instructions, sleep
        headers = {}
        if api_key_env is not None:
            key = os.environ.get(api_key_env)
            if not key:
                raise RecipeError(
                    f"reinforce.rewards: the judge's key is to be in the environment variable {api_key_env}, which is "
                    "not set",
                    hint=f"export {api_key_env}=...",
                )
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.Client(
            base_url=url.rstrip("/"), headers=headers, timeout=limit_s, transport=transport
        )
        self._reachable = True

    def score(self, asked: Asked) -> list[float | Failed]:
        """A grade for every answer, `AT_ONCE` requests at a time."""
        self._reachable = True
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda pair: self._grade(*pair), asked))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _grade(self, question: Question, text: str) -> float | Failed:
        body = {
            "model": self._model,
            "temperature": 0,
            "max_tokens": 16,
            "messages": [
                {"role": "system", "content": self._instructions},
                {"role": "user", "content": _shown(question, text)},
            ],
        }
        failed = Failed("down", "not tried")
        wait_s = FIRST_WAIT_S
        for left in reversed(range(TRIES)):
            found = self._ask(body)
            if not isinstance(found, _Again):
                return found
            failed = found.failed
            if not left or not self._reachable:
                break
            jitter = 1 + 0.1 * random.random()  # so that those who were refused together do not come together
            self._sleep(min(LONGEST_WAIT_S, found.wait_s or wait_s) * jitter)
            wait_s *= 2
        if failed.kind == "down":
            self._reachable = False
        return failed

    def _ask(self, body: dict[str, Any]) -> float | Failed | _Again:
        try:
            reply = self._client.post("/chat/completions", json=body)
        except httpx.TimeoutException:
            return _Again(Failed("timed out", "the judge did not answer in time"))
        except httpx.HTTPError as error:
            return _Again(Failed("down", f"{type(error).__name__}: {error}"))
        if reply.status_code == 429:
            return _Again(Failed("rate limited", "HTTP 429"), _seconds(reply.headers.get("retry-after")))
        if reply.status_code >= 500:
            return _Again(Failed("down", f"HTTP {reply.status_code}"))
        if reply.status_code >= 400:
            return Failed("refused", f"HTTP {reply.status_code}: {reply.text[:120]}")
        return _read(reply)


class _Again:
    """A failure that may pass; `wait_s` is what the endpoint asks to wait."""

    def __init__(self, failed: Failed, wait_s: float | None = None) -> None:
        self.failed, self.wait_s = failed, wait_s


def _read(reply: httpx.Response) -> float | Failed:
    try:
        said = reply.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return Failed("nonsense", f"no chat completion: {reply.text[:80]!r}")
    grades = _GRADE.findall(said) if isinstance(said, str) else []
    if len(grades) != 1:
        return Failed("nonsense", f"no single number from 0 to 10: {str(said)[:80]!r}")
    grade = float("".join(grades[0]))
    return grade / 10 if grade <= 10 else Failed("nonsense", f"{grade:g} is above 10")


def _seconds(header: str | None) -> float | None:
    try:
        return None if header is None else max(0.0, float(header))
    except ValueError:
        return None


def _shown(question: Question, text: str) -> str:
    turns = "\n\n".join(f"[{turn['role']}]\n{turn['content']}" for turn in question.messages)
    return f"The conversation:\n\n{turns}\n\nThe answer to grade:\n\n{text}"
