"""Conversations of the web app: one JSON file each, in a folder of the workspace."""

from __future__ import annotations

import logging
import re
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from pydantic import TypeAdapter, ValidationError

from nomoat.errors import ServeError
from nomoat.ledger.clock import now_iso
from nomoat.ledger.files import atomic_write, disk_errors, make_folder
from nomoat.ledger.rows import Thumb

STOPPED = "stopped"
CHATS = "chats"
"""The folder, within the workspace's own."""
_ID = re.compile(r"[0-9a-f]{16}")
_LONGEST_TITLE = 60
_LOG = logging.getLogger("nomoat.serve")


@dataclass(frozen=True)
class Answer:
    """What a model wrote. `seconds` from its first token to its last; `ended` is 'stop', 'length', or 'stopped'
    where the reader ended it (its tokens are then not known: 0). `system` is the text that it was asked with, None in
    files from before this was kept."""

    model: str
    text: str
    ended: str
    tokens: int = 0
    seconds: float = 0.0
    thumb: Thumb | None = None
    system: str | None = None


@dataclass(frozen=True)
class Turn:
    """A message and its answer, which is None where none came; `base` is the base's, where it was asked too, and
    `earlier` the answer that this one was asked for in place of, until the reader says which is better."""

    user: str
    answer: Answer | None = None
    base: Answer | None = None
    earlier: Answer | None = None

    @property
    def choice(self) -> tuple[Answer, Answer] | None:
        """The answer and the earlier one, where both are whole and differ."""
        new, earlier = self.answer, self.earlier
        if (
            new is None
            or earlier is None
            or STOPPED in (new.ended, earlier.ended)
            or new.text == earlier.text
        ):
            return None
        return (new, earlier) if new.text.strip() and earlier.text.strip() else None


@dataclass(frozen=True)
class Manner:
    """How answers are to be written. `seed` None draws anew each time."""

    system: str = ""
    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 512
    seed: int | None = None


@dataclass(frozen=True)
class Chat:
    """One conversation."""

    id: str
    title: str
    created_at: str
    changed_at: str
    model: str
    beside_base: bool = False
    manner: Manner = Manner()
    turns: tuple[Turn, ...] = ()

    @staticmethod
    def new(first: str, model: str) -> Chat:
        """An empty one, named after the message that it will begin with."""
        now = now_iso()
        return Chat(secrets.token_hex(8), shortened(first), now, now, model)

    def branched(self) -> Chat:
        """The same as another conversation."""
        now = now_iso()
        return replace(self, id=secrets.token_hex(8), created_at=now, changed_at=now)

    def asked(self, place: int, answer: Answer) -> list[dict[str, Any]]:
        """What `answer`, at this place of `turns`, is an answer to, as `messages`. The system text may be another
        one by now."""
        upto = (*self.turns[:place], Turn(self.turns[place].user))
        manner = self.manner if answer.system is None else replace(self.manner, system=answer.system)
        return replace(self, turns=upto, manner=manner).messages()

    def messages(self) -> list[dict[str, Any]]:
        """In OpenAI's form, the system text first."""
        found = [{"role": "system", "content": self.manner.system}] if self.manner.system else []
        for turn in self.turns:
            found.append({"role": "user", "content": turn.user})
            if turn.answer is not None:
                found.append({"role": "assistant", "content": turn.answer.text})
        return found

    def has(self, words: str) -> bool:
        """Whether all words occur in it, in any case."""
        said = (turn.user + "\n" + (turn.answer.text if turn.answer else "") for turn in self.turns)
        text = "\n".join((self.title, *said)).casefold()
        return all(word in text for word in words.casefold().split())


def shortened(text: str) -> str:
    """A title: the text's beginning on one line."""
    line = " ".join(text[: 4 * _LONGEST_TITLE].split())
    if len(line) <= _LONGEST_TITLE:
        return line or "Untitled"
    return line[: _LONGEST_TITLE - 1].rstrip() + "…"


_CHAT = TypeAdapter(Chat)


@final
class Chats:
    """The folder. Called from threads; files appear whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, words: str = "") -> list[Chat]:
        """Those that have all the words, the last changed first. A file that cannot be read is left alone."""
        chats = []
        for path in self._folder.glob("*.json"):
            try:
                chats.append(_read(path))
            except ServeError as error:
                _LOG.warning("%s", error)
        return sorted(
            (chat for chat in chats if chat.has(words)), key=lambda chat: chat.changed_at, reverse=True
        )

    def get(self, chat_id: str) -> Chat | None:
        """None where there is none such, and for what is no id: it comes from a browser.

        Raises:
            ServeError: its file is damaged.
        """
        if not _ID.fullmatch(chat_id):
            return None
        path = self._path(chat_id)
        return _read(path) if path.is_file() else None

    def save(self, chat: Chat) -> None:
        """Keep it as it is now.

        Raises:
            ArtifactError: the disk is full or read-only.
        """
        make_folder(self._folder)
        atomic_write(self._path(chat.id), _CHAT.dump_json(replace(chat, changed_at=now_iso()), indent=1))

    def delete(self, chat_id: str) -> None:
        """Forget it; nothing where it is gone already."""
        if _ID.fullmatch(chat_id):
            path = self._path(chat_id)
            with disk_errors(path):
                path.unlink(missing_ok=True)

    def _path(self, chat_id: str) -> Path:
        return self._folder / f"{chat_id}.json"


def _read(path: Path) -> Chat:
    try:
        with disk_errors(path):
            return _CHAT.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "file"
        raise ServeError(
            f"{path}: {place}: {first['msg']}; expected a conversation of the web app",
            hint="Put a copy of it back, or move it away.",
        ) from None
