"""Browsers that logged in with a key, in the ledger, so that they outlive the server. Of the token that a browser has,
what is kept is its hash."""

from __future__ import annotations

import secrets

from sqlalchemy import delete, insert, or_, select

from nomoat.ledger.clock import now_iso
from nomoat.ledger.keys import Holder, hash_of, holder_where
from nomoat.ledger.schema import keys, sessions
from nomoat.ledger.store import Ledger


def begin_session(ledger: Ledger, key_id: int, *, lasts_s: float) -> str:
    """The token of a new session of this key, which only its browser is told. Those that have ended are swept."""
    token = secrets.token_urlsafe(32)
    now = now_iso()
    revoked = select(keys.c.id).where(keys.c.revoked_at.is_not(None))
    with ledger.transaction(writes=True) as connection:
        connection.execute(
            delete(sessions).where(or_(sessions.c.ends_at <= now, sessions.c.key_id.in_(revoked)))
        )
        connection.execute(
            insert(sessions).values(
                sha256=hash_of(token), key_id=key_id, created_at=now, ends_at=now_iso(after_s=lasts_s)
            )
        )
    return token


def session_holder(ledger: Ledger, token: str) -> Holder | None:
    """Whose session it is; None where it has ended or never was, or its key was revoked."""
    return holder_where(
        ledger,
        keys.c.id == sessions.c.key_id,
        sessions.c.sha256 == hash_of(token),
        sessions.c.ends_at > now_iso(),
    )


def end_session(ledger: Ledger, token: str) -> None:
    """Forget it; nothing where there is none."""
    with ledger.transaction(writes=True) as connection:
        connection.execute(delete(sessions).where(sessions.c.sha256 == hash_of(token)))
