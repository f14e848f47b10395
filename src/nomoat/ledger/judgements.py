"""Champions, the evidence for them, and votes: the part of the ledger that decides who is served.

Got by `Ledger.judgements`; each call is one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Select, insert, select, update

from nomoat.errors import LedgerError
from nomoat.ledger.canonical import canonical_key, check_json
from nomoat.ledger.clock import now_iso
from nomoat.ledger.rows import (
    ChampionRow,
    ChosenBy,
    DrawRow,
    Evidence,
    EvidenceRow,
    Json,
    JudgeVerdict,
    JudgeVerdictRow,
    Vote,
    VoteRow,
)
from nomoat.ledger.schema import champions, draws, evidence, verdicts, votes

Row = TypeVar("Row")
_LATER = ("note", "better", "turns", "reasons")


class _Reader(Protocol):
    def __call__(self, row: type[Row], query: Select[Any]) -> tuple[Row, ...]: ...


@dataclass(frozen=True)
class Judgements:
    """`write` begins a transaction, `read` gives the rows of a query."""

    place: str
    write: Callable[[], AbstractContextManager[Connection]]
    read: _Reader

    # ---- champions

    def champions(self) -> tuple[ChampionRow, ...]:
        """The whole history, oldest first."""
        return self.read(ChampionRow, select(champions).order_by(champions.c.id))

    def champion(self) -> ChampionRow | None:
        """Who is served now; None where nobody was ever chosen."""
        history = self.champions()
        return history[-1] if history else None

    def crown(
        self,
        generation_id: int | None,
        *,
        by: ChosenBy,
        said: str,
        night_id: int | None = None,
        verdict: Json | None = None,
    ) -> ChampionRow:
        """Make a generation (None: the base) the champion from now on."""
        check_json(verdict, "champions.verdict")
        values = {
            "generation_id": generation_id,
            "since": now_iso(),
            "chosen_by": by,
            "night_id": night_id,
            "said": said,
            "verdict": verdict,
        }
        with self.write() as connection:
            connection.execute(insert(champions).values(**values))
        return self.champions()[-1]

    def roll_back(self) -> ChampionRow:
        """Serve again what was served before the present champion: an earlier generation, or the base.

        Rolled back once more it goes one further. Raises LedgerError where there is nothing before.
        """
        standing = _standing(self.champions())
        if not standing:
            raise LedgerError(
                f"ledger {self.place}: there is no champion to take back",
                hint="See which generations there are: nomoat status",
            )
        before = standing[-2] if len(standing) > 1 else None
        name = "the base" if before is None else f"gen-{before:04d}"
        return self.crown(before, by="rollback", said=f"gen-{standing[-1]:04d} was taken back for {name}")

    # ---- evidence

    def add_evidence(
        self, night_id: int, generation_id: int, rival_id: int | None, found: Iterable[Evidence]
    ) -> None:
        """Keep what a night measured of a challenger and its rival, all or none."""
        ids = {"night_id": night_id, "generation_id": generation_id, "rival_id": rival_id}
        values = [ids | asdict(item) for item in found]
        check_json(values, "evidence")
        if values:
            with self.write() as connection:
                connection.execute(insert(evidence), values)

    def evidence(self, generation_id: int) -> tuple[EvidenceRow, ...]:
        """All that was measured of a generation as a challenger, in the order in which it was added."""
        query = select(evidence).where(evidence.c.generation_id == generation_id).order_by(evidence.c.id)
        return self.read(EvidenceRow, query)

    # ---- votes

    def add_votes(
        self,
        cast: Sequence[Vote],
        *,
        imported: bool = False,
        made_of: Sequence[str] | None = None,
        draw_id: int | None = None,
    ) -> int:
        """Keep votes that are not there yet, and give how many those were. One that was taken back is there, and
        stays taken back. `made_of`: the keys of the votes that these were before another format lost a part of them;
        where such a one is there, so is the vote. `draw_id`: the draw that a single vote came of."""
        values = [asdict(vote) | {"key": vote_key(vote)} for vote in cast]
        at = now_iso() if imported else None
        added = 0
        with self.write() as connection:
            known = set(connection.execute(select(votes.c.key)).scalars())
            for value, before in zip(values, made_of or [""] * len(values), strict=True):
                if value["key"] not in known and before not in known:
                    connection.execute(insert(votes).values(**value, imported_at=at))
                    known.add(value["key"])
                    added += 1
            if draw_id is not None:
                (value,) = values
                settled = update(draws).where(draws.c.id == draw_id).values(vote_key=value["key"])
                connection.execute(settled)
        return added

    def votes(self) -> tuple[VoteRow, ...]:
        """All votes that nobody has taken back, in the order in which they were cast."""
        standing = select(votes).where(votes.c.withdrawn_at.is_(None))
        return self.read(VoteRow, standing.order_by(votes.c.cast_at, votes.c.id))

    # ---- draws

    def add_draw(self, night_id: int, one_model: str, other_model: str, prompt_hash: str) -> int:
        """Keep that a held-out prompt was drawn for two models, before either answers; its id."""
        values = {
            "drawn_at": now_iso(),
            "night_id": night_id,
            "one_model": one_model,
            "other_model": other_model,
            "prompt_hash": prompt_hash,
        }
        with self.write() as connection:
            (key,) = connection.execute(insert(draws).values(**values)).inserted_primary_key or (0,)
        return int(key)

    def draws(self) -> tuple[DrawRow, ...]:
        """All prompts that were drawn for two models, in order."""
        return self.read(DrawRow, select(draws).order_by(draws.c.id))

    # ---- a judge's verdicts

    def add_verdicts(self, found: Sequence[JudgeVerdict]) -> None:
        """Keep what a judge has said of two models in one run, all or none; nothing where that is what was said last of
        these two."""
        at = now_iso()
        values = [asdict(verdict) | {"judged_at": at} for verdict in found]
        if values:
            pair = {found[0].one_model, found[0].other_model}
            known = [row for row in self.verdicts() if {row.one_model, row.other_model} == pair]
            last = {_as_said(row) for row in known if row.judged_at == known[-1].judged_at}
            if last != set(found):
                with self.write() as connection:
                    connection.execute(insert(verdicts), values)

    def verdicts(self) -> tuple[JudgeVerdictRow, ...]:
        """All that judges have said, in the order in which it was."""
        return self.read(JudgeVerdictRow, select(verdicts).order_by(verdicts.c.id))


def _as_said(row: JudgeVerdictRow) -> JudgeVerdict:
    return JudgeVerdict(**{field.name: getattr(row, field.name) for field in fields(JudgeVerdict)})


def vote_key(vote: Vote) -> str:
    """The hash of all a vote says. What came later to votes and is not there is no part of it: those of before keep
    their keys."""
    said = {name: value for name, value in asdict(vote).items() if name not in _LATER or value is not None}
    return canonical_key(said)


def _standing(history: Iterable[ChampionRow]) -> list[int]:
    """Generations that a rollback can go back through, the present champion last."""
    standing: list[int] = []
    for row in history:
        if row.chosen_by == "rollback":
            standing.pop()
        elif row.generation_id is not None:
            standing.append(row.generation_id)
    return standing
