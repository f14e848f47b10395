"""Rewards that look at the text alone: JSON that follows a schema, and the exact answer to a question."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from nomoat.data.functions import Asked, Failed, Question

_FENCED = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n?```\s*\Z", re.DOTALL)
_BOXED = re.compile(r"\\boxed\s*\{([^{}]*)\}")
_MARKED = re.compile(r"(?:####|[Aa]nswer\s*(?:is|:|=))\s*([^\n]+)")
_NUMBER = re.compile(r"[-+]?\$?\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?%?")
MAX_TEXT_CHARS = 20_000
MAX_DIGITS = 40


@dataclass(frozen=True)
class Told:
    """A source made of a function of question and text."""

    name: str
    judge: Callable[[Question, str], float | Failed]

    def score(self, asked: Asked) -> list[float | Failed]:
        return [self.judge(question, text[:MAX_TEXT_CHARS]) for question, text in asked]

    def close(self) -> None: ...


def json_schema(schema: Mapping[str, Any] | None) -> Told:
    """1 for JSON that is valid by the schema, else 0. Without a schema, the prompt's own field "schema" is it; a fence
    around the JSON is allowed. Raises ValueError for a schema that is none."""
    import jsonschema_rs

    def compiled(found: Any) -> Any:
        return jsonschema_rs.validator_for(found, offline=True)

    given = None if schema is None else compiled(dict(schema))

    def judge(question: Question, text: str) -> float | Failed:
        validator = given
        if validator is None:
            try:
                validator = compiled(question.row["schema"])
            except KeyError:
                return Failed("no schema", f'prompt {question.id} has no "schema"')
            except (ValueError, TypeError) as error:
                return Failed("bad schema", f"prompt {question.id}: {_first_line(error)}")
        fenced = _FENCED.match(text)
        try:
            value = json.loads(fenced.group(1) if fenced else text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return 0.0
        try:
            return float(validator.is_valid(value))
        except ValueError as error:  # such as a pattern that backtracks for too long
            return Failed("not decided", _first_line(error))

    return Told("json_schema", judge)


def exact_answer() -> Told:
    """1 where the text's final answer is the prompt's field "answer", else 0.

    The final answer is what stands in the last \\boxed{}, or after the last "####", "answer is" or "answer:", or else
    the last number, or the whole text. Numbers are compared as numbers ("1,000.0" is "1000", "1/2" is "0.5", "50%" is
    "0.5"), other texts without regard to case, spaces and final stops.
    """

    def judge(question: Question, text: str) -> float | Failed:
        wanted = question.row.get("answer")
        if not isinstance(wanted, str | int | float) or isinstance(wanted, bool):
            return Failed("no answer", f'prompt {question.id} has no "answer" that is text or a number')
        return float(_same(final_answer(text), final_answer(str(wanted))))

    return Told("answer", judge)


def final_answer(text: str) -> str:
    """What a text says in the end."""
    boxed = _BOXED.findall(text)
    if boxed:
        return str(boxed[-1]).strip()
    said: str = ([*_MARKED.findall(text)] or [text])[-1]
    numbers = _NUMBER.findall(said)
    return numbers[-1] if numbers else said


def _same(left: str, right: str) -> bool:
    numbers = _number(left), _number(right)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return _plain(left) == _plain(right)


def _number(text: str) -> Fraction | None:
    text = text.strip().strip("$").rstrip(".").strip()
    if len(text) > MAX_DIGITS or not _NUMBER.fullmatch(text):
        return None
    text = re.sub(r"[\s,$]", "", text)
    try:
        if text.endswith("%"):
            return Fraction(text[:-1]) / 100
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".!")


def _no_constant(constant: str) -> object:
    raise ValueError(f"{constant} is not allowed in JSON")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
