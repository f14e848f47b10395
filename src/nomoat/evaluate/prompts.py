"""Held-out prompts with checks, read from JSONL."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nomoat.chat.conversation import Conversation, parse_messages, parse_tools
from nomoat.chat.template import ChatTemplate
from nomoat.data.functions import Question
from nomoat.errors import DataError
from nomoat.evaluate.checks import Check, parse_checks

HELD_OUT_ROWS = "held-out rows"
"""The suite of those questions that are the owner's own held-out rows."""
UNANSWERED = f"{HELD_OUT_ROWS}.jsonl"
"""File of those of them that nobody has answered yet."""


@dataclass(frozen=True)
class Prompt:
    """One prompt of a suite; `checks` may be empty for a prompt that is only answered. `row` is what its file says,
    `folder` where that file is, `where` its name and the line."""

    suite: str
    id: str
    conversation: Conversation
    checks: tuple[Check, ...]
    row: Mapping[str, Any] = field(default_factory=dict, compare=False)
    folder: Path = field(default=Path(), compare=False)
    where: str = field(default="", compare=False)

    @property
    def question(self) -> Question:
        """What its checks look at."""
        messages = tuple(message.to_dict() for message in self.conversation.messages)
        return Question(f"{self.suite}:{self.id}", messages, self.row, self.folder)


def read_prompts(path: Path, *, most: int | None = None) -> list[Prompt]:
    """The first `most` prompts, or all, of a file of rows {"id", "messages", "checks"}; its stem is the suite's name.

    Raises DataError with file, line and field.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines would cut at U+2028 too
    except FileNotFoundError as error:
        raise DataError(f"evaluate.prompts: {path} is not there") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text; expected JSONL rows with messages and checks") from error
    prompts = [_prompt(path, n, line) for n, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise DataError(f"{path}: empty", hint='Expected one {"messages": [...], "checks": [...]} a line.')
    return prompts[:most]


def _prompt(path: Path, number: int, line: str) -> Prompt:
    where = f"{path.name}:{number}"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(row, dict) or "messages" not in row:
        raise DataError(f'{where}: expected {{"messages": [...], "checks": [...]}}')
    messages = parse_messages(row["messages"], where)
    if messages[-1].role == "assistant":
        raise DataError(
            f"{where}: messages end with an assistant turn; expected the turn to be answered last"
        )
    try:
        checks = parse_checks(row.get("checks", []), path.parent)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    return Prompt(
        path.stem,
        str(row.get("id", number)),
        Conversation(messages, parse_tools(row.get("tools"), where)),
        checks,
        row,
        path.parent,
        where,
    )


def held_out_questions(
    held_out: Path, most: int, *, template: ChatTemplate, most_tokens: int
) -> list[Prompt]:
    """Some `most` held-out conversations (as `data` writes them), in an order of hashes, so that each part of the files
    has its share, each up to its last assistant turn that has at most `most_tokens` tokens before it. Those without
    such a turn are left out."""
    lines = enumerate(held_out.read_text(encoding="utf-8").split("\n"), 1)
    shuffled = sorted(
        (hashlib.sha256(line.encode()).digest(), number, line) for number, line in lines if line
    )
    prompts: list[Prompt] = []
    for _, number, line in shuffled:
        if len(prompts) == most:
            break
        row = json.loads(line)
        messages = parse_messages(row["messages"], f"held_out.jsonl:{number}")
        tools = parse_tools(row.get("tools"), f"held_out.jsonl:{number}")
        for turn in range(len(messages) - 1, 0, -1):
            question = Conversation(messages[:turn], tools)
            if messages[turn].role != "assistant" or messages[turn - 1].role == "assistant":
                continue  # a second answer in a row is asked by nobody
            if len(template.encode(question, add_generation_prompt=True)) <= most_tokens:
                prompts.append(Prompt(HELD_OUT_ROWS, str(number), question, ()))
                break
    return prompts


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> None:
    """Prompts without checks as `read_prompts` reads them; no file where there are none."""
    rows = [json.dumps({"id": p.id, **p.conversation.to_dict()}, ensure_ascii=False) for p in prompts]
    if rows:
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
