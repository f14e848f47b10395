"""Champions and their history, evidence, votes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from helpers.votes import VOTE
from nomoat.errors import LedgerError
from nomoat.ledger.rows import Evidence, Vote
from nomoat.ledger.store import Ledger


@pytest.fixture
def generations(ledger: Ledger, begin: Callable[..., int]) -> list[int]:
    """Three generations of one night."""
    night = begin()
    return [
        ledger.add_generation(
            night, base="base:x", served_file=f".nomoat/artifacts/quantize-{n}/night-F16.gguf"
        ).id
        for n in range(3)
    ]


def test_a_rollback_goes_back_through_everyone_who_was_champion(
    ledger: Ledger, generations: list[int]
) -> None:
    kept = ledger.judgements
    assert kept.champion() is None
    for generation in generations:
        kept.crown(
            generation, by="gate", said=f"{generation} is better", night_id=1, verdict={"e_value": 30.0}
        )
    seen = [kept.roll_back().generation_id, kept.roll_back().generation_id]
    assert seen == [generations[1], generations[0]]
    kept.crown(generations[2], by="owner", said="I like it")
    assert kept.roll_back().generation_id == generations[0]
    assert kept.roll_back().generation_id is None  # the base
    champion = kept.champion()
    assert champion is not None
    assert (champion.generation_id, champion.chosen_by) == (None, "rollback")
    assert champion.said == "gen-0001 was taken back for the base"
    assert [row.chosen_by for row in kept.champions()] == [
        *["gate"] * 3,
        *["rollback"] * 2,
        "owner",
        *["rollback"] * 2,
    ]
    with pytest.raises(
        LedgerError, match="there is no champion to take back\n  See which generations there are"
    ):
        kept.roll_back()


def test_evidence_is_kept_by_generation(ledger: Ledger, generations: list[int]) -> None:
    first, second, _ = generations
    passed = Evidence(kind="checks", suite="heldout", item="p1", challenger=1.0, rival=0.0)
    ledger.judgements.add_evidence(1, first, None, [passed])
    ledger.judgements.add_evidence(1, second, first, [passed, replace(passed, item="p2", challenger=0.0)])
    ledger.judgements.add_evidence(1, second, first, [])
    (alone,) = ledger.judgements.evidence(first)
    assert (alone.rival_id, alone.item, alone.challenger, alone.rival) == (None, "p1", 1.0, 0.0)
    assert [(row.rival_id, row.item) for row in ledger.judgements.evidence(second)] == [
        (first, "p1"),
        (first, "p2"),
    ]


def test_a_vote_is_kept_once_and_given_back_as_it_was(ledger: Ledger) -> None:
    later = replace(VOTE, cast_at="2026-11-24T06:00:00.000Z", verdict="both bad", seconds=None)
    assert ledger.judgements.add_votes([VOTE, later, VOTE]) == 2
    assert ledger.judgements.add_votes([VOTE], imported=True) == 0
    earlier, vote = ledger.judgements.votes()
    assert (earlier.verdict, earlier.seconds, vote.imported_at) == ("both bad", None, None)
    fields: dict[str, Any] = {name: getattr(vote, name) for name in VOTE.__dataclass_fields__}
    assert Vote(**fields) == VOTE
    assert ledger.judgements.add_votes([replace(VOTE, voter="bob")], imported=True) == 1
    assert ledger.judgements.votes()[-1].imported_at is not None


def test_a_verdict_that_is_none_is_refused(ledger: Ledger) -> None:
    with pytest.raises(IntegrityError, match="verdict"):  # a fault of ours: the import has checked it
        ledger.judgements.add_votes([replace(VOTE, verdict="maybe")])  # type: ignore[arg-type]
    assert ledger.judgements.votes() == ()


def test_a_generation_names_its_model_as_votes_do(ledger: Ledger, generations: list[int]) -> None:
    assert ledger.generation(generations[0]).model == "quantize-0/night-F16.gguf"
