"""The ledger as the arena reads it, and what the arena keeps in it."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from nomoat.data.split import asked_keys
from nomoat.evaluate.battle import Battle, Contestant, Question, held_out_pool, keep_draw
from nomoat.evaluate.gatebook import conversation_of, evidence_of, held_out_asked, wants_answer
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.ledger.extent import extent
from nomoat.ledger.feedback import add_own_answer
from nomoat.ledger.judgements import vote_key
from nomoat.ledger.rows import Vote, VoteRow
from nomoat.ledger.store import Ledger


@dataclass(frozen=True)
class Seen:
    """What the ledger says: all votes, those of them that tell who is better, the names of generations by their model,
    and the prompts to draw from."""

    votes: tuple[VoteRow, ...] = ()
    evidence: tuple[VoteRow, ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    pool: tuple[Question, ...] = ()


@final
class ArenaLedger:
    """All methods are for worker threads, and raise LedgerError where the ledger cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._workspace = path.parent.parent
        self._reading = threading.Lock()
        self._seen = Seen()
        self._seen_at: Hashable = None

    def seen(self) -> Seen:
        """The ledger as it is now. It is read anew where it has grown, whoever wrote: of thousands of votes that takes
        most of a second, and every battle asks."""
        if not self._path.is_file():
            return Seen()
        with self._reading, Ledger.open(self._path) as ledger:
            # looked at first: what is added meanwhile is read again, and never missed
            now = extent(ledger), self._artifacts_changed_at()
            if now != self._seen_at:
                self._seen, self._seen_at = self._read(ledger), now
            return self._seen

    def keep_draw(self, question: Question, one: Contestant, other: Contestant) -> int | None:
        """As `evaluate.battle.keep_draw`."""
        with Ledger.open(self._path) as ledger:
            return keep_draw(ledger, question, one, other)

    def keep(self, battle: Battle, vote: Vote) -> bool:
        """Keep a vote; whether the night could learn from the voter's own answer."""
        with Ledger.open(self._path) as ledger:
            ledger.judgements.add_votes([vote], draw_id=battle.draw_id)
            return wants_answer(vote) and held_out_asked(ledger).isdisjoint(asked_keys(conversation_of(vote)))

    def keep_answer(self, vote: Vote, text: str) -> bool:
        """Keep what the voter would have answered; False where the vote was taken back meanwhile."""
        key = vote_key(vote)
        row = next((row for row in self.seen().votes if row.key == key), None)
        if row is None:
            return False
        with Ledger.open(self._path) as ledger:
            add_own_answer(ledger, row, vote.voter, text)
        return True

    def _read(self, ledger: Ledger) -> Seen:
        generations = [one for one in ledger.generations() if one.served_file]
        pool = next((found for one in generations if (found := held_out_pool(ledger, one.night_id))), [])
        names = tuple((one.model, one.name) for one in generations)
        votes = ledger.judgements.votes()
        evidence = evidence_of(ledger, votes, ArtifactStore(self._workspace))
        return Seen(votes, tuple(evidence), names, tuple(pool))

    def _artifacts_changed_at(self) -> int | None:
        """When a folder of rows came or went: what they ask makes votes evidence, or none."""
        try:
            return (self._path.parent / "artifacts").stat().st_mtime_ns
        except FileNotFoundError:
            return None
