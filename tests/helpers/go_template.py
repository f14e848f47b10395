"""As much of Go's text/template as our Modelfiles use: quoted strings, fields, if/else if/else, range, eq."""

from __future__ import annotations

import json
import re
from typing import Any

_ACTION = re.compile(r'\{\{\s*((?:"(?:\\.|[^"\\])*"|[^}"])*?)\s*\}\}')


def render(source: str, values: dict[str, Any]) -> str:
    """What Go would write."""
    parts: list[tuple[str, str]] = []
    at = 0
    for found in _ACTION.finditer(source):
        parts += [("text", source[at : found.start()]), ("do", found.group(1))]
        at = found.end()
    parts.append(("text", source[at:]))
    out, end = _block(parts, 0, values, is_on=True)
    assert end == len(parts), parts[end]
    return out


def _block(parts: list[tuple[str, str]], at: int, values: dict[str, Any], *, is_on: bool) -> tuple[str, int]:
    out = []
    while at < len(parts):
        kind, text = parts[at]
        if kind == "text":
            out.append(text)
        elif text.startswith("range "):
            items = _value(text.removeprefix("range "), values)
            end = at + 1
            for item in items or [values]:
                piece, end = _block(parts, at + 1, item, is_on=is_on)
                out.append(piece if items else "")
            at = end
        elif text.startswith("if "):
            piece, at = _branches(parts, at, values, is_on=is_on)
            out.append(piece)
        elif text == "end" or text.startswith("else"):
            return "".join(out) if is_on else "", at
        else:
            out.append(_value(text, values) if is_on else "")
        at += 1
    return "".join(out), at


def _branches(
    parts: list[tuple[str, str]], at: int, values: dict[str, Any], *, is_on: bool
) -> tuple[str, int]:
    taken, out = False, ""
    while True:
        condition = parts[at][1].removeprefix("else").strip().removeprefix("if").strip()
        holds = is_on and not taken and (not condition or bool(_value(condition, values)))
        piece, at = _block(parts, at + 1, values, is_on=holds)
        if holds:
            taken, out = True, piece
        if parts[at][1] == "end":
            return out, at


def _value(text: str, values: dict[str, Any]) -> Any:
    if text.startswith("eq "):
        left, right = text.removeprefix("eq ").split(" ", 1)
        return _value(left, values) == _value(right, values)
    if text.startswith('"'):
        return json.loads(text)
    assert re.fullmatch(r"\.\w+", text), text
    return values.get(text[1:], "")
