"""Keys of the server, in the ledger. A key is shown once, when it is made; what is kept is its hash."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, insert, select, update

from nomoat.errors import LedgerError, nearest
from nomoat.ledger.clock import now_iso
from nomoat.ledger.schema import keys
from nomoat.ledger.store import Ledger

SCOPES = ("chat", "vote", "admin")
_PREFIX = "nomoat-"


@dataclass(frozen=True, kw_only=True)
class KeyRow:
    """A key without the key. `ends_with` are its last letters, to tell it by."""

    id: int
    name: str
    sha256: str
    ends_with: str
    scopes: list[str]
    created_at: str
    revoked_at: str | None


@dataclass(frozen=True)
class Holder:
    """Who is let in: all that is known of a request's key beyond the guard, which is not the key."""

    key_id: int
    name: str
    scopes: frozenset[str]


def add_key(ledger: Ledger, name: str, scopes: Collection[str]) -> str:
    """A new key, which is nowhere else to be had.

    Raises LedgerError where a key of this name is in use, or a scope is none.
    """
    if not name.strip() or len(name) > 100:
        raise LedgerError("keys: a key's name has 1 to 100 letters")
    for scope in scopes:
        if scope not in SCOPES:
            raise LedgerError(
                f'keys: got the scope "{scope}"; expected chat, vote or admin.{nearest(scope, list(SCOPES))}'
            )
    # 256 random bits cannot be guessed, so one round of a fast hash protects them; salt and slow hashes are
    # for passwords, which people choose.
    key = _PREFIX + secrets.token_urlsafe(32)
    with ledger.transaction(writes=True) as connection:
        taken = select(keys.c.id).where(keys.c.name == name, keys.c.revoked_at.is_(None))
        if connection.execute(taken).first() is not None:
            raise LedgerError(
                f'keys: there is a key named "{name}" already',
                hint="Choose another name, or revoke that one first: nomoat keys revoke NAME",
            )
        connection.execute(
            insert(keys).values(
                name=name,
                sha256=hash_of(key),
                ends_with=key[-4:],
                scopes=sorted(set(scopes)),
                created_at=now_iso(),
            )
        )
    return key


def list_keys(ledger: Ledger) -> list[KeyRow]:
    """All keys, revoked ones too, in the order in which they were made."""
    with ledger.transaction(writes=False) as connection:
        return [KeyRow(**row._mapping) for row in connection.execute(select(keys).order_by(keys.c.id))]


def revoke_key(ledger: Ledger, name: str) -> None:
    """From now on the key of this name opens nothing. LedgerError where there is none in use."""
    with ledger.transaction(writes=True) as connection:
        in_use = keys.c.name == name, keys.c.revoked_at.is_(None)
        if connection.execute(update(keys).where(*in_use).values(revoked_at=now_iso())).rowcount == 0:
            known = [row.name for row in list_keys(ledger) if row.revoked_at is None]
            raise LedgerError(
                f'keys: no key named "{name}" is in use.{nearest(name, known)}',
                hint="See them all: nomoat keys list",
            )


def holder_of(ledger: Ledger, key: str) -> Holder | None:
    """Whom a key lets in; None where it is not known or revoked."""
    return holder_where(ledger, keys.c.sha256 == hash_of(key))


def holder_where(ledger: Ledger, *conditions: ColumnElement[bool]) -> Holder | None:
    """Of the keys in use the one that is so."""
    query = select(keys.c.id, keys.c.name, keys.c.scopes).where(keys.c.revoked_at.is_(None), *conditions)
    with ledger.transaction(writes=False) as connection:
        found = connection.execute(query).first()
    return Holder(found.id, found.name, frozenset(found.scopes)) if found else None


def hash_of(secret: str) -> str:
    """What is kept of a key, or of a session's token, instead of it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
