"""A row's columns under the names that its format gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from nomoat.chat.conversation import Conversation, Message, check_text, parse_tools
from nomoat.data.readers.turns import decoded, is_turns, parse_turns
from nomoat.data.rows import Row, Where
from nomoat.errors import DataError


@final
class Fields:
    """One row. Errors name the column as the owner's file does."""

    def __init__(self, record: Mapping[str, Any], columns: Mapping[str, str], where: Where) -> None:
        self._record = record
        self._columns = columns
        self.where = where

    def get(self, field: str) -> Any:
        """The value, None where the row has none."""
        column = self._columns.get(field)
        return None if column is None else self._record.get(column)

    def at(self, field: str) -> str:
        """Where the field stands, as errors begin."""
        return f"{self.where}: {self._columns.get(field, field)}"

    def text(self, field: str) -> str:
        """The field as text with something in it; DataError otherwise."""
        text = check_text(self.get(field), self.at(field))
        if not text.strip():
            raise DataError(f"{self.at(field)}: is empty; expected text.")
        return text

    def optional_text(self, field: str) -> str:
        """The field as text, '' where the row has none."""
        value = self.get(field)
        return "" if value is None else check_text(value, self.at(field))

    def turns(self, field: str) -> tuple[Message, ...]:
        """The field as a list of turns."""
        return parse_turns(self.get(field), str(self.where), self._columns.get(field, field))

    def tools(self) -> tuple[dict[str, Any], ...]:
        return parse_tools(self.get("tools"), str(self.where))

    def answer(self, field: str) -> tuple[Message, ...]:
        """The field as an answer: text, one turn, or turns."""
        if self._is_turns(field):
            return self.turns(field)
        return (Message("assistant", self.text(field).strip("\r\n")),)

    def prompt(self) -> tuple[Message, ...]:
        """What the row asks: turns in `conversations` or `prompt`, or text in `prompt` (with `input` on a line
        of its own below it), after the `system` text and the question-and-answer pairs of `history`."""
        if self.get("conversations") is not None:
            return self.with_system(self.turns("conversations"))
        if self._is_turns("prompt"):
            return self.with_system(self.turns("prompt"))
        asked, given = self.optional_text("prompt"), self.optional_text("input")
        text = "\n".join(part for part in (asked, given) if part.strip())
        if not text:
            raise DataError(f"{self.at('prompt')}: is empty; expected text.")
        return self.with_system((*self._history(), Message("user", text)))

    def with_system(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The messages, behind the row's `system` text where they do not begin with one of their own."""
        system = self.optional_text("system")
        if not system.strip() or messages[0].role == "system":
            return messages
        return (Message("system", system), *messages)

    def _is_turns(self, field: str) -> bool:
        value = self.get(field)
        return isinstance(value, dict | list) or is_turns(value, "role", "from")

    def _history(self) -> list[Message]:
        pairs = decoded(self.get("history")) or []
        if not isinstance(pairs, list):
            raise DataError(f"{self.at('history')}: expected a list of pairs of question and answer.")
        messages = []
        for i, pair in enumerate(pairs):
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise DataError(f"{self.at('history')}[{i}]: expected a pair of question and answer.")
            question, answer = (check_text(side, f"{self.at('history')}[{i}]") for side in pair)
            messages += [Message("user", question), Message("assistant", answer.strip("\r\n"))]
        return messages


@dataclass(frozen=True)
class Format:
    """A layout of rows. `fields` are its names with the columns that may hold them, best first; one set of
    `needs` must be there; `fits` looks at a row's values where columns alone do not tell."""

    name: str
    shape: str
    fields: Mapping[str, tuple[str, ...]]
    needs: tuple[frozenset[str], ...]
    build: Callable[[Fields], Row]
    fits: Callable[[Fields], bool] = lambda fields: True

    def columns(self, mapping: Mapping[str, str]) -> dict[str, str]:
        """The mapping found in the first rows, with the usual columns for fields that only later rows have."""
        columns = dict(mapping)
        for field, choices in self.fields.items():
            usual = next((choice for choice in choices if choice not in columns.values()), None)
            if field not in columns and usual is not None:
                columns[field] = usual
        return columns


PROMPT_FIELDS: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "query", "instruction"),
    "input": ("input", "context"),
    "system": ("system", "system_prompt"),
    "history": ("history",),
    "tools": ("tools", "functions"),
}


_TRUTH = {"true": True, "false": False, "1": True, "0": False}
"""CSV has only text. In other files a number is no truth value, because it may as well be a class."""


def truth(value: object) -> bool | None:
    """True or false as a file may write them; None for anything else."""
    if isinstance(value, str):
        return _TRUTH.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def talk(messages: tuple[Message, ...], fields: Fields) -> Conversation:
    """The messages with the row's tools."""
    return Conversation(messages, fields.tools())
