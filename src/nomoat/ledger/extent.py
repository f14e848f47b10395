"""How much the ledger holds, to know whether what was read of it before is still so."""

from __future__ import annotations

from sqlalchemy import func, select

from nomoat.ledger.schema import artifacts, generations, samples, stages, votes
from nomoat.ledger.store import Ledger

_COUNTED = (
    votes.c.id,
    votes.c.withdrawn_at,
    generations.c.id,
    samples.c.id,
    stages.c.artifact_id,
    artifacts.c.id,
)


def extent(ledger: Ledger) -> tuple[int, ...]:
    """How many votes there are and were taken back, and how many generations, samples, finished stages and artifacts.

    Rows of these are only added, a vote is taken back once, and a stage gets its artifact once: no number ever falls,
    and as long as none has grown all of them say what they said, whichever process writes. Not so in all else: the
    verdict on a generation may be set anew. Votes are counted and not looked at: about 10 ms for 3,000."""
    counts = [select(func.count(column)).scalar_subquery() for column in _COUNTED]
    with ledger.transaction(writes=False) as connection:
        return tuple(connection.execute(select(*counts)).one())
