"""How good each generation was, by the day and by what had been spent until then: from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from nomoat.evaluate.compare import LOSS, PASS_RATE
from nomoat.evaluate.comparison import Estimate
from nomoat.evaluate.gatebook import base_model, evidence_of
from nomoat.evaluate.standings import standings
from nomoat.evaluate.stats.intervals import wilson
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.ledger.peers import peer_scores
from nomoat.ledger.rows import GenerationRow, ScoreRow
from nomoat.ledger.store import Ledger


@dataclass(frozen=True)
class Spent:
    """All nights until then together, those that failed too; running ones count nothing yet."""

    seconds: float
    dollars: float
    energy_joules: float


@dataclass(frozen=True)
class Point:
    """One generation on one measure; `value` None where it was not measured."""

    generation: str
    made_at: datetime
    spent: Spent
    is_champion: bool
    value: Estimate | None


@dataclass(frozen=True)
class Peer:
    """An outside model on one measure, and what asking it had cost."""

    name: str
    measured_at: datetime
    dollars: float
    value: Estimate


@dataclass(frozen=True)
class Course:
    """One measure over all generations, oldest first. `base` is what the newest measured generation's base has, None
    where there is none."""

    measure: str
    unit: str
    higher_is_better: bool
    base: Estimate | None
    points: tuple[Point, ...]
    peers: tuple[Peer, ...] = ()


def courses(ledger: Ledger, store: ArtifactStore, *, confidence: float) -> list[Course]:
    """Votes first, where the base was voted on, then pass rates and losses; a measure that no generation has is not
    there."""
    generations = ledger.generations()[::-1]
    scores = {one.id: ledger.scores(one.night_id) for one in generations}
    found = _voted(ledger, store, generations, confidence)
    kinds = {
        (score.suite, score.metric)
        for rows in scores.values()
        for score in rows
        if score.metric in (PASS_RATE, LOSS)
    }
    peers = _peers(ledger, confidence)
    for suite, metric in sorted(kinds, key=lambda kind: (kind[1] == LOSS, kind[0])):
        tuned = {one.id: _score(scores[one.id], suite, metric, "tuned") for one in generations}
        bases = [_score(scores[one.id], suite, metric, "base") for one in generations]
        found.append(
            Course(
                f"{metric}, {suite}",
                "share" if metric == PASS_RATE else "nats a token",
                metric == PASS_RATE,
                next((base for base in reversed(bases) if base), None),
                _points(ledger, generations, tuned),
                tuple(peers.get(suite, ())) if metric == PASS_RATE else (),
            )
        )
    return [course for course in found if any(point.value for point in course.points)]


def _peers(ledger: Ledger, confidence: float) -> dict[str, list[Peer]]:
    """Outside models by suite."""
    found: dict[str, list[Peer]] = {}
    for row in peer_scores(ledger):
        measured_at, rate = datetime.fromisoformat(row.measured_at), wilson(row.passed, row.n, confidence)
        found.setdefault(row.suite, []).append(Peer(row.name, measured_at, row.dollars, rate))
    return found


def _voted(
    ledger: Ledger, store: ArtifactStore, generations: Sequence[GenerationRow], confidence: float
) -> list[Course]:
    """Points above the newest base by blind votes."""
    served = [one for one in generations if one.served_file]
    base = next((found for one in reversed(served) if (found := base_model(ledger, one))), None)
    votes = ledger.judgements.votes() if base else ()
    rated = standings(evidence_of(ledger, votes, store), {}, anchor=base, confidence=confidence)
    by_model = {one.model: one.points for one in rated}
    if base not in by_model:
        return []
    values = {one.id: by_model.get(one.model) for one in served}
    return [
        Course("blind votes", "points", True, by_model[base], _points(ledger, generations, values)),
    ]


def _points(
    ledger: Ledger, generations: Sequence[GenerationRow], values: dict[int, Estimate | None]
) -> tuple[Point, ...]:
    champion = ledger.judgements.champion()
    champion_id = champion.generation_id if champion else None
    nights = ledger.nights()
    found = []
    for one in generations:
        until = [night for night in nights if night.id <= one.night_id]
        spent = Spent(
            sum(night.seconds or 0.0 for night in until),
            sum(night.dollars or 0.0 for night in until),
            sum(night.energy_joules or 0.0 for night in until),
        )
        made_at = datetime.fromisoformat(one.created_at)
        found.append(Point(one.name, made_at, spent, one.id == champion_id, values.get(one.id)))
    return tuple(found)


def _score(rows: Sequence[ScoreRow], suite: str, metric: str, subject: str) -> Estimate | None:
    for row in rows:
        if (row.suite, row.metric, row.subject) == (suite, metric, subject):
            low, high = (row.value if end is None else end for end in (row.low, row.high))
            return Estimate(row.value, low, high, row.n)
    return None
