"""How a chat template writes an assistant's tool calls, found out by rendering one; and reading them back.

Templates disagree (`<tool_call>{...}</tool_call>`, bare JSON, `[TOOL_CALLS][...]`), and only what a template
shows is what its model was trained on. So the form is asked of the template, not kept in a list of models."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from nomoat.chat.conversation import Conversation, Message
from nomoat.errors import DataError

_NAMES, _KEY, _VALUE = ("nomoat_probe_a", "nomoat_probe_b"), "nomoat_key", "nomoat_value"
_TOOLS: tuple[dict[str, Any], ...] = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "A probe.",
            "parameters": {"type": "object", "properties": {_KEY: {"type": "string"}}},
        },
    }
    for name in _NAMES
)


@dataclass(frozen=True)
class Call:
    """A tool to be called; `arguments` is JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class CallForm:
    """Calls as `opening {"name": ..., "arguments": {...}} (between {...})* closing`.

    Attributes:
        opening, between, closing: the text around the JSON objects.
        name_key, arguments_key: what the objects call the two.
    """

    opening: str
    between: str
    closing: str
    name_key: str
    arguments_key: str

    @staticmethod
    def of(render: Callable[[Conversation, bool], str], stop_texts: Sequence[str]) -> CallForm | None:
        """The form of a template; None where it shows no calls, or not as JSON objects.

        Args:
            render: a conversation as text, with or without the generation prompt.
            stop_texts: the tokens that end an assistant turn.
        """
        asked = Message("user", "Hello")
        calls = tuple(
            {"type": "function", "id": f"{i:09d}", "function": {"name": name, "arguments": {_KEY: _VALUE}}}
            for i, name in enumerate(_NAMES)
        )
        try:
            prompt = render(Conversation((asked,), _TOOLS), True)
            texts = [
                render(Conversation((asked, Message("assistant", "", tool_calls=made)), _TOOLS), False)
                for made in (calls[:1], calls)
            ]
        except DataError:  # the template refuses such a conversation
            return None
        if not all(text.startswith(prompt) for text in texts):
            return None
        return _form(*(_until_stop(text[len(prompt) :], stop_texts) for text in texts))

    @property
    def marker(self) -> str:
        """What in a text announces calls; '' where nothing does but their JSON itself."""
        return self.opening.strip()

    def schema(self, name: str, parameters: Any) -> dict[str, Any]:
        """The JSON schema of a call of this tool."""
        keys = {self.name_key: {"const": name}, self.arguments_key: parameters or {"type": "object"}}
        return {
            "type": "object",
            "properties": keys,
            "required": list(keys),
            "additionalProperties": False,
        }

    def parse(self, text: str, names: Collection[str]) -> tuple[str, list[Call]]:
        """What an answer says besides, and the tools of `names` that it calls. Where it is not written in
        this form to its end, it calls none and all of it is what it says."""
        start = text.find(self.marker)
        if start < 0:
            return text, []
        calls: list[Call] = []
        rest = text[start + len(self.marker) :].lstrip()
        while True:
            found = self._call(rest, names)
            if found is None:
                return text, []
            call, end = found
            calls.append(call)
            rest = rest[end:].lstrip()
            following = self.between.strip()
            if rest.startswith(following) and rest[len(following) :].lstrip().startswith("{"):
                rest = rest[len(following) :].lstrip()
                continue
            if rest.removeprefix(self.closing.strip()).strip():
                return text, []
            return text[:start].rstrip(), calls

    def _call(self, text: str, names: Collection[str]) -> tuple[Call, int] | None:
        try:
            found, end = json.JSONDecoder().raw_decode(text)
        except (json.JSONDecodeError, RecursionError):
            return None
        if not isinstance(found, dict) or found.get(self.name_key) not in names:
            return None
        arguments = found.get(self.arguments_key, {})
        if not isinstance(arguments, dict):
            return None
        return Call(found[self.name_key], json.dumps(arguments, ensure_ascii=False)), end


def _until_stop(text: str, stop_texts: Sequence[str]) -> str:
    ends = [at for at in (text.find(stop) for stop in stop_texts) if at >= 0]
    return text[: min(ends)] if ends else text


def _form(one: str, two: str) -> CallForm | None:
    first = _object_with(_NAMES[0], one)
    if first is None:
        return None
    start, end, found = first
    name_key = next(key for key, value in found.items() if value == _NAMES[0])
    arguments_key = next((key for key, value in found.items() if value == {_KEY: _VALUE}), None)
    second = _object_with(_NAMES[1], two)
    if arguments_key is None or second is None or not two.startswith(one[:end]):
        return None
    return CallForm(one[:start], two[end : second[0]], one[end:], name_key, arguments_key)


def _object_with(name: str, text: str) -> tuple[int, int, dict[str, Any]] | None:
    """Start, end and value of the JSON object in the text that names this tool."""
    at = text.find(name)
    for start in (i for i in range(max(at, 0)) if text[i] == "{"):
        try:
            found, end = json.JSONDecoder().raw_decode(text, start)
        except json.JSONDecodeError:
            continue
        if name in found.values():
            return start, end, found
    return None
