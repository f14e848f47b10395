"""Conversations of the web app and of the terminal, and where they are kept."""

from __future__ import annotations

import logging
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from pydantic import TypeAdapter, ValidationError

from nomoat.errors import LedgerError
from nomoat.ledger.chats import ChatRow, add_chat, chat_row, chat_rows, forget_chat, keep_chat
from nomoat.ledger.clock import now_iso
from nomoat.ledger.rows import Thumb
from nomoat.ledger.store import Ledger

STOPPED = "stopped"
_ID = re.compile(r"[0-9a-f]{16}")
_OWN_COLUMNS = ("id", "created_at", "changed_at")
_LONGEST_TITLE = 60
_LOG = logging.getLogger("nomoat.serve")


@dataclass(frozen=True)
class Answer:
    """What a model wrote. `seconds` from its first token to its last; `ended` is 'stop', 'length', or 'stopped'
    where the reader ended it (its tokens are then not known: 0). `system` is the text that it was asked with, None
    where it is from before this was kept."""

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
    """Conversations in the workspace's ledger, which is made with the first one. Called from threads; all methods raise
    LedgerError where the ledger cannot be read or written.

    Earlier versions kept a file of each in a folder beside the ledger: the first call takes them in, and leaves alone
    what it cannot read.
    """

    def __init__(self, ledger_path: Path) -> None:
        self._path = ledger_path
        self._files = ledger_path.parent / "chats"
        self._taking_in = threading.Lock()
        self._has_taken_in = False

    def find(self, words: str = "") -> list[Chat]:
        """Those that have all the words, the last changed first. A row that is none is left alone."""
        with self._open() as ledger:
            rows = chat_rows(ledger) if ledger else []
        found = []
        for row in rows:
            try:
                found.append(_chat(row))
            except LedgerError as error:
                _LOG.warning("%s", error)
        return [chat for chat in found if chat.has(words)]

    def get(self, chat_id: str) -> Chat | None:
        """None where there is none such, and for what is no id: it comes from a browser."""
        if not _ID.fullmatch(chat_id):
            return None
        with self._open() as ledger:
            row = chat_row(ledger, chat_id) if ledger else None
        return _chat(row) if row else None

    def save(self, chat: Chat) -> None:
        """Keep it as it is now."""
        with self._open(make=True) as ledger:
            assert ledger is not None
            keep_chat(ledger, _row(replace(chat, changed_at=now_iso())))

    def delete(self, chat_id: str) -> None:
        """Forget it; nothing where it is gone already."""
        with self._open() as ledger:
            if ledger and _ID.fullmatch(chat_id):
                forget_chat(ledger, chat_id)

    @contextmanager
    def _open(self, *, make: bool = False) -> Iterator[Ledger | None]:
        """None where there is no ledger: looking makes none."""
        self._take_in_files()
        if not make and not self._path.is_file():
            yield None
            return
        with Ledger.open(self._path) as ledger:
            yield ledger

    def _take_in_files(self) -> None:
        with self._taking_in:
            if self._has_taken_in:
                return
            found = [(path, chat) for path in self._files.glob("*.json") if (chat := _read(path))]
            if found:
                with Ledger.open(self._path) as ledger:
                    for path, chat in found:
                        add_chat(ledger, _row(chat))
                        with suppress(OSError):  # it is added once, and may stay
                            path.unlink()
            self._has_taken_in = True


def _read(path: Path) -> Chat | None:
    """A file of an earlier version; None for what is none."""
    try:
        chat = _CHAT.validate_json(path.read_bytes())
        if _ID.fullmatch(chat.id):
            return chat
        why = f"its id is {chat.id!r}"
    except (OSError, ValidationError) as error:
        why = str(error).partition("\n")[0]
    _LOG.warning("%s: is no conversation that can be read: %s", path, why)
    return None


def _row(chat: Chat) -> ChatRow:
    said = _CHAT.dump_python(chat, mode="json")
    return ChatRow(**{key: said.pop(key) for key in _OWN_COLUMNS}, content=said)


def _chat(row: ChatRow) -> Chat:
    """Raises LedgerError for a row that is none."""
    own = {key: getattr(row, key) for key in _OWN_COLUMNS}
    try:
        return _CHAT.validate_python({**row.content, **own})
    except (ValidationError, TypeError) as error:
        why = str(error).partition("\n")[0]
        raise LedgerError(
            f"conversation {row.id}: what the ledger holds of it cannot be read: {why}"
        ) from None
