"""Rows as every reader yields them, whatever the format of the file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from nomoat.chat.conversation import Conversation, Message

_BY_LINE = (".jsonl", ".ndjson", ".txt", ".text", ".md")


@dataclass(frozen=True)
class Where:
    """Where a row stands: a line of a line-based file, or the number of the row in any other (from 1)."""

    file: str
    line: int

    def __str__(self) -> str:
        plain = self.file.lower().removesuffix(".gz").removesuffix(".zst")
        return f"{self.file}:{self.line}" if plain.endswith(_BY_LINE) else f"{self.file}: row {self.line}"


@dataclass(frozen=True)
class ChatRow:
    where: Where
    conversation: Conversation

    def content_hash(self) -> str:
        return _sha256("chat", _talk(self.conversation))

    def prompt_hash(self) -> str:
        """Of everything before the last assistant turn: rows that ask the same have the same hash."""
        messages = self.conversation.messages
        last = max(
            (i for i, message in enumerate(messages) if message.role == "assistant"), default=len(messages)
        )
        return _sha256("prompt", _talk(Conversation(messages[:last], self.conversation.tools)))


@dataclass(frozen=True)
class TextRow:
    """A document, or a passage of one. `ends` is False for a passage that the next row continues."""

    where: Where
    text: str
    ends: bool = True

    def content_hash(self) -> str:
        return _sha256("text", self.text)


@dataclass(frozen=True)
class PreferenceRow:
    """Two answers to one prompt, of which the first was preferred, by `margin` where that is known; or a tie."""

    where: Where
    prompt: Conversation
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    margin: float = 0.0
    tie: bool = False

    def content_hash(self) -> str:
        judged = [[self.margin, self.tie]] if self.margin or self.tie else []
        return _sha256(
            "preference", [_talk(self.prompt), _turns(self.chosen), _turns(self.rejected), *judged]
        )


@dataclass(frozen=True)
class RatingRow:
    """One answer to a prompt, and whether it was found good."""

    where: Where
    prompt: Conversation
    completion: tuple[Message, ...]
    label: bool

    def content_hash(self) -> str:
        return _sha256("rating", [_talk(self.prompt), _turns(self.completion), self.label])


Row = ChatRow | TextRow | PreferenceRow | RatingRow


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: a value, so that one of them never ends a night."""

    where: Where
    reason: str
    excerpt: str


def excerpt(value: object) -> str:
    """The beginning of a row, as bad rows are quoted."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=True, default=repr)
    return text if len(text) <= 120 else text[:117] + "..."


def _talk(conversation: Conversation) -> object:
    return [_turns(conversation.messages), list(conversation.tools)]


def _turns(messages: tuple[Message, ...]) -> object:
    return [
        message.to_dict() | ({} if message.loss is None else {"loss": message.loss}) for message in messages
    ]


def _sha256(kind: str, content: object) -> str:
    """sha256 (hex) of canonical JSON: sorted keys, no spaces, and the kind, so that kinds never collide."""
    text = json.dumps([kind, content], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
