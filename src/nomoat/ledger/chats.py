"""Conversations in the ledger: those of the chat page and of `nomoat chat`."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import delete, insert, select

from nomoat.ledger.rows import Json
from nomoat.ledger.schema import chats
from nomoat.ledger.store import Ledger


@dataclass(frozen=True, kw_only=True)
class ChatRow:
    """A conversation as a whole; `content` is all that is said in it."""

    id: str
    created_at: str
    changed_at: str
    content: Json


def keep_chat(ledger: Ledger, row: ChatRow) -> None:
    """Keep it as it is now, in place of what it was."""
    with ledger.transaction(writes=True) as connection:
        connection.execute(delete(chats).where(chats.c.id == row.id))
        connection.execute(insert(chats).values(**asdict(row)))


def add_chat(ledger: Ledger, row: ChatRow) -> None:
    """Keep it where there is none of this id."""
    with ledger.transaction(writes=True) as connection:
        if connection.execute(select(chats.c.id).where(chats.c.id == row.id)).first() is None:
            connection.execute(insert(chats).values(**asdict(row)))


def chat_rows(ledger: Ledger) -> list[ChatRow]:
    """All, the last changed first."""
    query = select(chats).order_by(chats.c.changed_at.desc(), chats.c.id)
    with ledger.transaction(writes=False) as connection:
        return [ChatRow(**row._mapping) for row in connection.execute(query)]


def chat_row(ledger: Ledger, chat_id: str) -> ChatRow | None:
    """None where there is none such."""
    with ledger.transaction(writes=False) as connection:
        found = connection.execute(select(chats).where(chats.c.id == chat_id)).first()
    return ChatRow(**found._mapping) if found else None


def forget_chat(ledger: Ledger, chat_id: str) -> None:
    """Leave nothing of it in the database's files; nothing to do where it is gone already."""
    with ledger.transaction(writes=True) as connection:
        connection.execute(delete(chats).where(chats.c.id == chat_id))
    ledger.forget_overwritten()
