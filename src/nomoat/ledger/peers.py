"""What outside models passed of the held-out prompts, in the ledger.

Each call is one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from sqlalchemy import insert, select, update

from nomoat.errors import LedgerError, nearest
from nomoat.ledger.clock import now_iso
from nomoat.ledger.schema import peers
from nomoat.ledger.store import Ledger


@dataclass(frozen=True, kw_only=True)
class PeerScore:
    """How many of the `n` prompts of a suite that it answered a model passed, and what asking has cost. `name` is what
    it is called here, `endpoint` its address and name there."""

    name: str
    endpoint: str
    suite: str
    passed: int
    n: int
    dollars: float


@dataclass(frozen=True, kw_only=True)
class PeerRow(PeerScore):
    """A score as kept."""

    id: int
    measured_at: str


def add_peer_scores(ledger: Ledger, found: Iterable[PeerScore]) -> None:
    """Keep what was measured now, which counts from now on."""
    now = now_iso()
    rows = [asdict(score) | {"measured_at": now} for score in found]
    with ledger.transaction(writes=True) as connection:
        connection.execute(insert(peers), rows)


def peer_scores(ledger: Ledger) -> list[PeerRow]:
    """The newest of each name on each suite, by name and suite, with what all of them have cost; not what was
    forgotten."""
    columns = [column for column in peers.c if column is not peers.c.forgotten_at]
    query = select(*columns).where(peers.c.forgotten_at.is_(None)).order_by(peers.c.id)
    with ledger.transaction(writes=False) as connection:
        rows = [PeerRow(**row._mapping) for row in connection.execute(query)]
    newest: dict[tuple[str, str], PeerRow] = {}
    for row in rows:
        before = newest.get((row.name, row.suite))
        newest[row.name, row.suite] = replace(row, dollars=row.dollars + before.dollars) if before else row
    return [newest[key] for key in sorted(newest)]


def forget_peer(ledger: Ledger, name: str) -> None:
    """Show this model beside the generations no more. LedgerError where none has this name."""
    known = sorted({row.name for row in peer_scores(ledger)})
    if name not in known:
        raise LedgerError(
            f'peer: no model named "{name}" was measured here.{nearest(name, known)}',
            hint=f"Known are: {', '.join(known) or 'none'}",
        )
    with ledger.transaction(writes=True) as connection:
        shown = peers.c.name == name, peers.c.forgotten_at.is_(None)
        connection.execute(update(peers).where(*shown).values(forgotten_at=now_iso()))
