"""Who is champion when a night begins, after a day of votes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.votes import vote_on
from helpers.workspaces import ledger_path, start_night
from nomoat.errors import ArtifactError
from nomoat.evaluate.gatebook import verdict_on
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.ledger.rows import Evidence, GenerationRow
from nomoat.ledger.store import Ledger
from nomoat.night import succession


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Four generations, the first of them champion by the owner's word."""
    with Ledger.open(ledger_path(tmp_path)) as ledger:
        for number in range(1, 5):
            night = start_night(ledger)
            ledger.add_generation(
                night, base="base:x", served_file=f".nomoat/artifacts/quantize-{number}/night-Q8_0.gguf"
            )
            ledger.finish_night(night, status="done", seconds=1.0, energy_joules=None, dollars=None)
        ledger.judgements.crown(1, by="owner", said="the first")
        yield ledger


@pytest.fixture
def begin(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """A night that begins, with the files of `gone` gone; what it says."""

    def begin(gone: tuple[int, ...] = ()) -> list[str]:
        def find_rival(store: ArtifactStore, ledger: Ledger, generation_id: int) -> None:
            if generation_id in gone:
                raise ArtifactError("gone")

        monkeypatch.setattr(succession, "find_rival", find_rival)
        return succession.crown_by_votes(ledger, ArtifactStore(tmp_path), start_night(ledger))

    return begin


def people_prefer(ledger: Ledger, winner: int, loser: int, votes: int = 12) -> None:
    models = [ledger.generation(number).model for number in (winner, loser)]
    cast = []
    for number in range(votes):
        left, right = models if number % 2 else reversed(models)
        said = vote_on(f"{winner}, {loser}, {number}?", "yes", "no", left=bool(number % 2))
        cast.append(replace(said, left_model=left, right_model=right))
    assert ledger.judgements.add_votes(cast) == votes


def test_votes_in_doubt_wait_for_a_persons_word(ledger: Ledger, begin: Callable[..., list[str]]) -> None:
    better, worse = ledger.generation(2), ledger.generation(1)
    votes = [
        replace(vote_on(f"{n}?", "yes", "no"), left_model=better.model, right_model=worse.model)
        for n in range(12)
    ]
    ledger.judgements.add_votes(votes)
    assert begin() == [
        "gen-0002 is shown to be better than gen-0001 if you trust these votes: 12 of ada, who is flagged: always "
        "left. If so: nomoat promote gen-0002"
    ]
    assert champion(ledger).name == "gen-0001"


def test_a_champion_is_explained_against_whom_it_followed(
    ledger: Ledger, begin: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Not against whom its own night had measured it with: that was the base."""
    won = Evidence(kind="checks", suite="mine", item="p", challenger=0.0, rival=1.0)
    ledger.judgements.add_evidence(3, 3, None, [won] * 9)
    people_prefer(ledger, 3, 1)
    (said,) = begin()
    verdict = verdict_on(ledger, ledger.generation(3), ArtifactStore(tmp_path))
    assert (verdict.verdict, verdict.rival) == ("promote", "gen-0001")
    assert said.startswith(verdict.said)
    ledger.judgements.crown(4, by="owner", said="a better one")
    ledger.judgements.roll_back()
    again = verdict_on(ledger, ledger.generation(3), ArtifactStore(tmp_path))
    assert again == verdict, "as before it was left for another and came back"


def champion(ledger: Ledger) -> GenerationRow:
    row = ledger.judgements.champion()
    assert row is not None
    assert row.generation_id is not None
    return ledger.generation(row.generation_id)


def test_without_votes_nothing_changes(ledger: Ledger, begin: Callable[..., list[str]]) -> None:
    assert begin() == []
    assert len(ledger.judgements.champions()) == 1


def test_the_newest_that_votes_prefer_becomes_champion_once(
    ledger: Ledger, begin: Callable[..., list[str]]
) -> None:
    people_prefer(ledger, 2, 1)
    people_prefer(ledger, 3, 1)
    people_prefer(ledger, 4, 1, votes=2)
    (note,) = begin()
    assert note.startswith("gen-0003 replaces gen-0001. Evidence ")
    assert note.endswith(
        "12 blind votes for it, 0 against, 0 undecided. It is the champion since this night began."
    )
    row = ledger.judgements.champions()[-1]
    assert (champion(ledger).name, row.chosen_by, row.night_id) == ("gen-0003", "gate", 5)
    assert begin() == [], "gen-0002 is older than it and gen-0004 not shown to be better"


def test_what_was_taken_back_stays_so(ledger: Ledger, begin: Callable[..., list[str]]) -> None:
    people_prefer(ledger, 3, 1)
    assert len(begin()) == 1
    ledger.judgements.roll_back()
    assert begin() == []
    assert champion(ledger).name == "gen-0001"
    people_prefer(ledger, 2, 1)
    (note,) = begin()
    assert note.startswith("gen-0002 replaces gen-0001.")


def test_one_whose_files_are_gone_is_told_and_left_out(
    ledger: Ledger, begin: Callable[..., list[str]]
) -> None:
    people_prefer(ledger, 2, 1)
    people_prefer(ledger, 3, 1)
    gone, note = begin(gone=(3,))
    assert gone == (
        "gen-0003 is shown to be better than gen-0001, but its files are gone or damaged: run its night again to "
        "make it anew"
    )
    assert note.startswith("gen-0002 replaces gen-0001.")
