"""A conversation as the whole program knows it: frozen, checked once, and free of any file format.

`parse_messages` is the only way in. It takes the OpenAI form (a list of objects with `role` and
`content`), and every error names the message and the field, what was found and what was expected."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from nomoat.errors import DataError, nearest

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Message:
    """One turn. `loss` says whether an assistant turn is trained on (None: as the run decides).
    `reasoning_content` is what the model thought before it answered, for templates that show it."""

    role: str
    content: str
    tool_calls: tuple[dict[str, Any], ...] = ()
    name: str | None = None
    tool_call_id: str | None = None
    loss: bool | None = None
    reasoning_content: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The message as chat templates expect it: no `loss`, and no key without a value."""
        out: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            out["tool_calls"] = list(self.tool_calls)
        for key in ("name", "tool_call_id", "reasoning_content"):
            value = getattr(self, key)
            if value is not None:
                out[key] = value
        return out


@dataclass(frozen=True)
class Conversation:
    """Turns in order, and the tools (JSON schemas, OpenAI form) that the assistant may call."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """`{"messages": [...]}`, with `tools` where there are any: the form of a JSONL row."""
        out: dict[str, Any] = {"messages": [message.to_dict() for message in self.messages]}
        if self.tools:
            out["tools"] = list(self.tools)
        return out


def parse_messages(
    raw: object, where: str, *, field: str = "messages", text_key: str = "content"
) -> tuple[Message, ...]:
    """Messages from decoded JSON. `where` opens every error, for example `night.jsonl:412`; `field` and
    `text_key` are what the owner's file calls the list and the text, where a reader has renamed them.

    A message needs text; an assistant turn may have tool calls in its place. Tool arguments that come as
    JSON text (as OpenAI's API sends them) are decoded, because chat templates encode them again. Line breaks
    at the edges of an assistant turn are dropped: they would merge with the template's own line break into
    one token, and the prompt that is trained would not be the prompt that is served."""
    if not isinstance(raw, list | tuple) or not raw:
        raise DataError(f"{where}: {field}: got {shown(raw)}; expected a list of at least one message.")
    return tuple(_message(item, f"{where}: {field}[{i}]", text_key) for i, item in enumerate(raw))


def parse_tools(raw: object, where: str) -> tuple[dict[str, Any], ...]:
    """Tools from decoded JSON or JSON text. A bare function schema is wrapped into the OpenAI form."""
    value = _json_text(raw, f"{where}: tools") if isinstance(raw, str) and raw.strip() else raw
    if not value:
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise DataError(f"{where}: tools: got {shown(value)}; expected a list of function schemas.")
    return tuple(_tool(tool, f"{where}: tools[{i}]") for i, tool in enumerate(value))


def check_text(value: object, where: str) -> str:
    """`value` as text that UTF-8 can hold; DataError otherwise."""
    if not isinstance(value, str):
        raise DataError(f"{where}: got {shown(value)}; expected text.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(value[error.start]):04x}"
        raise DataError(
            f"{where}: holds half of a surrogate pair ({half} at character {error.start}); expected whole "
            "characters.",
            hint="The text was cut inside an emoji or a rare letter: cut it one character earlier.",
        ) from None
    return value


def shown(value: object) -> str:
    """A value as error messages quote it: short, and with its kind where the value itself is long."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, list | tuple | dict):
        kind = "an object" if isinstance(value, dict) else "a list"
        return f"an empty {kind.split()[1]}" if not value else f"{kind} of {len(value)}"
    text = json.dumps(value, ensure_ascii=True, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


def _message(item: object, where: str, text_key: str) -> Message:
    if not isinstance(item, dict):
        raise DataError(f"{where}: got {shown(item)}; expected an object with role and content.")
    role = item.get("role")
    if role not in ROLES:
        hint = nearest(role, list(ROLES)) if isinstance(role, str) else ""
        raise DataError(f"{where}.role: got {shown(role)}; expected system, user, assistant or tool.{hint}")
    calls = _tool_calls(item.get("tool_calls"), f"{where}.tool_calls")
    if calls and role != "assistant":
        raise DataError(f"{where}.tool_calls: stand on a {role} turn; only the assistant calls tools.")
    may_be_empty = bool(calls) or role == "tool"
    content = _content(item.get("content"), f"{where}.{text_key}", may_be_empty=may_be_empty)
    loss = item.get("loss")
    if loss is not None and not isinstance(loss, bool):
        raise DataError(f"{where}.loss: got {shown(loss)}; expected true or false.")
    if loss and role != "assistant":
        raise DataError(f"{where}.loss: true on a {role} turn; only assistant turns can be trained on.")
    return Message(
        role=role,
        content=content.strip("\r\n") if role == "assistant" else content,
        tool_calls=calls,
        name=_optional_text(item, "name", where),
        tool_call_id=_optional_text(item, "tool_call_id", where),
        loss=loss,
        reasoning_content=_optional_text(item, "reasoning_content", where) or None,
    )


def _content(raw: object, where: str, *, may_be_empty: bool) -> str:
    if isinstance(raw, list):
        raw = "".join(_text_part(part, f"{where}[{i}]") for i, part in enumerate(raw))
    if raw is None and may_be_empty:
        return ""
    text = check_text(raw, where)
    if not text.strip() and not may_be_empty:
        raise DataError(f"{where}: is empty; expected text.")
    return text


def _text_part(part: object, where: str) -> str:
    if isinstance(part, str):
        return check_text(part, where)
    if not isinstance(part, dict) or part.get("type") != "text":
        kind = part.get("type") if isinstance(part, dict) else part
        raise DataError(
            f"{where}.type: got {shown(kind)}; expected text. Images and sound are not read here."
        )
    return check_text(part.get("text"), f"{where}.text")


def _tool_calls(raw: object, where: str) -> tuple[dict[str, Any], ...]:
    if not raw:
        return ()
    if not isinstance(raw, list | tuple):
        raise DataError(f"{where}: got {shown(raw)}; expected a list of calls.")
    return tuple(_tool_call(call, f"{where}[{i}]") for i, call in enumerate(raw))


def _tool_call(raw: object, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise DataError(f"{where}: got {shown(raw)}; expected an object with name and arguments.")
    function: Any = raw.get("function", raw)
    if not isinstance(function, dict):
        raise DataError(f"{where}.function: got {shown(function)}; expected an object.")
    name = check_text(function.get("name"), f"{where}.function.name")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = _json_text(arguments or "{}", f"{where}.function.arguments")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise DataError(f"{where}.function.arguments: got {shown(arguments)}; expected an object.")
    check_text(json.dumps(arguments, ensure_ascii=False), f"{where}.function.arguments")
    call: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": arguments}}
    if isinstance(raw.get("id"), str):
        call["id"] = raw["id"]
    return call


def _tool(raw: dict[str, Any], where: str) -> dict[str, Any]:
    is_wrapped = isinstance(raw.get("function"), dict)
    tool: dict[str, Any] = raw if is_wrapped else {"type": "function", "function": raw}
    check_text(tool["function"].get("name"), f"{where}.function.name")
    check_text(json.dumps(tool, ensure_ascii=False), where)
    return tool


def _json_text(raw: str, where: str) -> object:
    try:
        return json.loads(raw)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: got text that is not JSON ({error.msg} at character {error.pos})."
        ) from None


def _optional_text(item: dict[str, Any], key: str, where: str) -> str | None:
    value = item.get(key)
    return None if value is None else check_text(value, f"{where}.{key}")
