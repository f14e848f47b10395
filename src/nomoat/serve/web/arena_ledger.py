"""The ledger as the arena reads it, and what the arena keeps in it."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from nomoat.data.split import asked_keys
from nomoat.evaluate.battle import Battle, Contestant, Question, arena_pool, counting, keep_draw
from nomoat.evaluate.gatebook import (
    conversation_of,
    evidence_of,
    held_out_asked,
    taught_prompts,
    wants_answer,
)
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.ledger.extent import extent
from nomoat.ledger.feedback import add_own_answer
from nomoat.ledger.judgements import vote_key
from nomoat.ledger.rows import Vote, VoteRow
from nomoat.ledger.store import Ledger


@dataclass(frozen=True)
class Nights:
    """What nights have left: the names of generations by their model, the prompts to draw from, and of each model the
    prompts, by their hash, on which its votes would not count."""

    names: tuple[tuple[str, str], ...] = ()
    pool: tuple[Question, ...] = ()
    taught: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """What the ledger says: all votes, those of them that tell who is better, and what nights have left."""

    votes: tuple[VoteRow, ...] = ()
    evidence: tuple[VoteRow, ...] = ()
    nights: Nights = Nights()

    def counting(self, one: str, other: str) -> list[Question]:
        """The prompts of the pool on which a vote between two models would count."""
        return counting(self.nights.pool, self.nights.taught, one, other)


@final
class ArenaLedger:
    """All methods are for worker threads, and raise LedgerError where the ledger cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._artifacts = ArtifactStore(path.parent.parent)
        self._reading = threading.Lock()
        self._seen = Seen()
        self._seen_at: tuple[Hashable, Hashable] = (None, None)

    def seen(self) -> Seen:
        """The ledger as it is now. It is read anew where it has grown, whoever wrote: of thousands of votes that takes
        most of a second, and every battle asks."""
        if not self._path.is_file():
            return Seen()
        with self._reading, Ledger.open(self._path) as ledger:
            # looked at first: what is added meanwhile is read again, and never missed
            now = extent(ledger)
            at = now.votes, (now.nights, self._artifacts_changed_at())
            if at != self._seen_at:
                had_nights = at[1] == self._seen_at[1]
                nights = self._seen.nights if had_nights else self._read_nights(ledger)
                votes = ledger.judgements.votes()
                evidence = evidence_of(ledger, votes, self._artifacts)
                self._seen, self._seen_at = Seen(votes, tuple(evidence), nights), at
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

    def _read_nights(self, ledger: Ledger) -> Nights:
        generations = [one for one in ledger.generations() if one.served_file]
        pools = (arena_pool(ledger, self._artifacts, one.night_id) for one in generations)
        pool = next(filter(None, pools), [])
        names = tuple((one.model, one.name) for one in generations)
        return Nights(names, tuple(pool), taught_prompts(ledger, pool, self._artifacts))

    def _artifacts_changed_at(self) -> int | None:
        """When a folder of rows came or went: what they ask makes votes evidence, or none."""
        try:
            return (self._path.parent / "artifacts").stat().st_mtime_ns
        except FileNotFoundError:
            return None
