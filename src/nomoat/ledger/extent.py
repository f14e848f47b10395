"""How much the ledger holds, to know whether what was read of it before is still so."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from nomoat.ledger.schema import artifacts, generations, samples, stages, votes
from nomoat.ledger.store import Ledger

_OF_VOTES = (votes.c.id, votes.c.withdrawn_at)
_OF_NIGHTS = (generations.c.id, samples.c.id, stages.c.artifact_id, artifacts.c.id)


@dataclass(frozen=True)
class Extent:
    """How many votes there are and were taken back; and how many generations, samples, finished stages and artifacts.

    Rows of these are only added, a vote is taken back once, and a stage gets its artifact once: no number ever falls,
    and as long as none has grown all of them say what they said, whichever process writes. Not so in all else: the
    verdict on a generation may be set anew."""

    votes: tuple[int, ...]
    nights: tuple[int, ...]


def extent(ledger: Ledger) -> Extent:
    """The ledger's extent now. Votes are counted and not looked at: about 10 ms for 3,000."""
    counts = [select(func.count(column)).scalar_subquery() for column in (*_OF_VOTES, *_OF_NIGHTS)]
    with ledger.transaction(writes=False) as connection:
        found = tuple(connection.execute(select(*counts)).one())
    return Extent(found[: len(_OF_VOTES)], found[len(_OF_VOTES) :])
