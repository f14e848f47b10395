"""What people say of answers besides blind votes: thumbs, and answers of their own; and taking back all they said.

Each call is one transaction.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, insert, select, update

from nomoat.errors import LedgerError, nearest
from nomoat.ledger.clock import now_iso
from nomoat.ledger.rows import OwnAnswerRow, Rating, RatingRow, VoteRow
from nomoat.ledger.schema import artifact_inputs, artifacts, draws, own_answers, ratings, votes
from nomoat.ledger.store import Ledger

_NOTHING: dict[str, Any] = {"prompt": {"messages": []}}
_ERASED: dict[Table, dict[str, Any]] = {
    votes: {
        **_NOTHING,
        "left_answer": "",
        "right_answer": "",
        "note": None,
        "turns": None,
        "reasons": None,
    },
    ratings: {**_NOTHING, "answer": ""},
    own_answers: {**_NOTHING, "answer": ""},
}
_LEARNED = {"votes": votes, "ratings": ratings, "own_answers": own_answers}
"""What the meta of artifacts of the kinds `votes` and `own_answers` lists the numbers of, by its key there."""


@dataclass(frozen=True)
class Withdrawn:
    """How many of each were taken back now."""

    votes: int
    ratings: int
    own_answers: int


def add_rating(ledger: Ledger, rating: Rating) -> int:
    """Keep a thumb and give its number. An earlier one of the same voter on the same answer counts no more."""
    with ledger.transaction(writes=True) as connection:
        return _insert(connection, ratings, asdict(rating))


def take_back_rating(ledger: Ledger, *, voter: str, model_name: str, prompt_hash: str, answer: str) -> None:
    """Take back what this voter has said of this answer, up or down. The model may be here no more, so that it is its
    name that is asked for."""
    which = and_(
        ratings.c.voter == voter,
        ratings.c.model_name == model_name,
        ratings.c.prompt_hash == prompt_hash,
        ratings.c.answer == answer,
    )
    with ledger.transaction(writes=True) as connection:
        _withdraw(connection, ratings, which, erase=False)


def standing_ratings(ledger: Ledger) -> list[RatingRow]:
    """Of every voter on every answer the newest thumb, in the order in which they were made, without those that were
    taken back."""
    query = select(ratings).where(ratings.c.withdrawn_at.is_(None)).order_by(ratings.c.id)
    with ledger.transaction(writes=False) as connection:
        rows = [RatingRow(**row._mapping) for row in connection.execute(query)]
    newest = {(row.voter, row.model, row.prompt_hash, row.answer): row for row in rows}
    return sorted(newest.values(), key=lambda row: row.id)


def add_own_answer(ledger: Ledger, vote: VoteRow, voter: str, answer: str) -> int:
    """Keep what a person would have answered to the prompt of a vote, and give its number."""
    values = {
        "voter": voter,
        "vote_id": vote.id,
        "prompt_hash": vote.prompt_hash,
        "prompt": vote.prompt,
        "answer": answer,
    }
    with ledger.transaction(writes=True) as connection:
        return _insert(connection, own_answers, values)


def standing_own_answers(ledger: Ledger) -> list[OwnAnswerRow]:
    """All own answers that nobody has taken back, in the order in which they were made."""
    query = select(own_answers).where(own_answers.c.withdrawn_at.is_(None)).order_by(own_answers.c.id)
    with ledger.transaction(writes=False) as connection:
        return [OwnAnswerRow(**row._mapping) for row in connection.execute(query)]


def remains(ledger: Ledger) -> list[str]:
    """Folders, relative to the workspace, that hold what was taken back: rows that earlier nights have learned from,
    and what was made of them next. They may be gone already."""
    with ledger.transaction(writes=False) as connection:
        gone = {
            kind: set(
                connection.execute(select(table.c.id).where(table.c.withdrawn_at.is_not(None))).scalars()
            )
            for kind, table in _LEARNED.items()
        }
        rows = connection.execute(select(artifacts).where(artifacts.c.kind.in_(gone))).all()
        holders = [
            row.id for row in rows if any(not gone[key].isdisjoint(row.meta.get(key, ())) for key in gone)
        ]
        made = select(artifact_inputs.c.artifact_id).where(artifact_inputs.c.input_id.in_(holders))
        query = select(artifacts.c.path).where(artifacts.c.id.in_(holders) | artifacts.c.id.in_(made))
        return sorted(connection.execute(query).scalars())


def withdraw_voter(ledger: Ledger, voter: str, *, erase: bool) -> Withdrawn:
    """Take back all that a person has said so far, and what anybody has answered to their votes, which holds their
    prompts; `erase` also overwrites the texts with nothing, of what was taken back earlier too. LedgerError where there
    is nothing of that name."""
    with ledger.transaction(writes=True) as connection:
        known = {
            name
            for table in _ERASED
            for name in connection.execute(select(table.c.voter).distinct()).scalars()
        }
        if voter not in known:
            raise LedgerError(f'votes: there are none of "{voter}".{nearest(voter, sorted(known))}')
        theirs = own_answers.c.vote_id.in_(select(votes.c.id).where(votes.c.voter == voter))
        taken = Withdrawn(
            _withdraw(connection, votes, votes.c.voter == voter, erase),
            _withdraw(connection, ratings, ratings.c.voter == voter, erase),
            _withdraw(connection, own_answers, theirs | (own_answers.c.voter == voter), erase),
        )
    if erase:
        ledger.forget_overwritten()
    return taken


def withdraw_votes(ledger: Ledger, ids: Collection[int], *, erase: bool) -> Withdrawn:
    """Take back single votes by their numbers, all or none, and what was answered to them. LedgerError where one is not
    there."""
    with ledger.transaction(writes=True) as connection:
        missing = sorted(set(ids) - set(connection.execute(select(votes.c.id)).scalars()))
        if missing:
            raise LedgerError(
                f"votes: there is no vote {missing[0]}; nothing was taken back",
                hint='Every row of `nomoat votes export --all` has its number under "id".',
            )
        taken = Withdrawn(
            _withdraw(connection, votes, votes.c.id.in_(ids), erase),
            0,
            _withdraw(connection, own_answers, own_answers.c.vote_id.in_(ids), erase),
        )
    if erase:
        ledger.forget_overwritten()
    return taken


def _withdraw(connection: Connection, table: Table, which: ColumnElement[bool], erase: bool) -> int:
    standing = update(table).where(which, table.c.withdrawn_at.is_(None))
    count = connection.execute(standing.values(withdrawn_at=now_iso())).rowcount
    if erase:
        connection.execute(update(table).where(which).values(**_ERASED[table]))
    if erase and table is votes:
        # a draw stays, as one that nobody voted on: the others would not speak for the pool without it
        keys = select(votes.c.key).where(which)
        connection.execute(update(draws).where(draws.c.vote_key.in_(keys)).values(vote_key=None))
    return count


def _insert(connection: Connection, table: Table, values: dict[str, Any]) -> int:
    made = connection.execute(insert(table).values(made_at=now_iso(), **values)).inserted_primary_key
    assert made is not None
    return int(made[0])
