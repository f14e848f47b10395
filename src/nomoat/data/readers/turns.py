"""Turns in any of the spellings in use, as messages."""

from __future__ import annotations

import json
from typing import Any

from nomoat.chat.conversation import Message, check_text, parse_messages, shown
from nomoat.errors import DataError, nearest

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
}


def is_turns(value: object, *role_keys: str) -> bool:
    """Whether the value is turns, or JSON text of turns, that name their speaker under one of `role_keys`.
    Text such as "[1, 2, 3]" is an answer and no list of turns."""
    turns = decoded(value)
    listed = turns if isinstance(turns, list) else [turns]
    return any(isinstance(turn, dict) and any(key in turn for key in role_keys) for turn in listed)


def decoded(value: object) -> object:
    """The value of JSON text, which CSV columns hold in place of lists; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def parse_turns(raw: object, where: str, column: str) -> tuple[Message, ...]:
    """Messages from {role, content} or {from, value} turns; one turn alone may stand without a list.
    DataError names column, turn and key as the owner's file does."""
    turns = decoded(raw)
    listed = [turns] if isinstance(turns, dict) else turns
    if not isinstance(listed, list) or not listed:
        raise DataError(f"{where}: {column}: got {shown(turns)}; expected a list of at least one turn.")
    text_key = "value" if isinstance(listed[0], dict) and "from" in listed[0] else "content"
    messages = [_message(turn, f"{where}: {column}[{i}]") for i, turn in enumerate(listed)]
    return parse_messages(messages, where, field=column, text_key=text_key)


def _message(turn: object, where: str) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise DataError(f"{where}: got {shown(turn)}; expected an object with a role and text.")
    role_key, text_key = ("from", "value") if "from" in turn else ("role", "content")
    role = turn.get(role_key)
    if role not in ROLES:
        words = "human, gpt, system, function_call or observation"
        if role_key == "role":
            words = "system, user, assistant or tool"
        hint = nearest(role, list(ROLES)) if isinstance(role, str) else ""
        raise DataError(f"{where}.{role_key}: got {shown(role)}; expected {words}.{hint}")
    message = {**turn, "role": ROLES[role], "content": turn.get(text_key)}
    if turn.get("weight") == 0 and message["role"] == "assistant":  # OpenAI's way to leave a turn untrained
        message["loss"] = False
    if role == "function_call":
        message |= {"content": "", "tool_calls": _calls(turn.get(text_key), f"{where}.{text_key}")}
    elif isinstance(message["content"], list):
        message |= _parts(message["content"], f"{where}.{text_key}")
    return message


def _calls(raw: object, where: str) -> list[Any]:
    """The calls of a function_call turn: JSON text of one {name, arguments} or of a list of them."""
    calls = decoded(raw)
    if isinstance(calls, dict):
        calls = [calls]
    if not isinstance(calls, list) or not calls:
        raise DataError(
            f'{where}: got {shown(raw)}; expected JSON such as {{"name": ..., "arguments": ...}}.'
        )
    return calls


def _parts(parts: list[Any], where: str) -> dict[str, Any]:
    """Content in parts: text is left to `parse_messages`; thoughts and calls move to their own fields."""
    message: dict[str, Any] = {"content": []}
    thoughts: list[str] = []
    for i, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        value = part.get("value", part.get(kind)) if isinstance(part, dict) else None
        if kind in ("reasoning", "thinking"):
            thoughts.append(check_text(value, f"{where}[{i}].value"))
        elif kind == "tool_call":
            message.setdefault("tool_calls", []).extend(_calls(value, f"{where}[{i}].value"))
        elif kind == "text":
            message["content"].append({"type": "text", "text": value})
        else:
            message["content"].append(part)
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    if not message["content"]:
        message["content"] = None
    return message
