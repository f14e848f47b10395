"""Pairs that are decided or open, and voters who cannot be counted on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from helpers.votes import VOTE
from nomoat.evaluate.ballots import Why, count_votes
from nomoat.evaluate.gate import Tally
from nomoat.evaluate.head_to_head import Day, by_day, head_to_head, voters
from nomoat.evaluate.standings import standings
from nomoat.ledger.rows import VoteRow, VoteVerdict
from nomoat.serve.web.arena_view import matrix, pairings

NAMES = {VOTE.left_model: "new", VOTE.right_model: "base"}


def vote(number: int, verdict: VoteVerdict = "left", **more: object) -> VoteRow:
    known = replace(VOTE, verdict=verdict, prompt_hash=str(number), **more).__dict__  # type: ignore[arg-type]
    return VoteRow(**known, id=number, key=str(number), imported_at=None, withdrawn_at=None)


def test_a_pair_is_open_until_the_votes_show_it() -> None:
    (pair,) = head_to_head([vote(n) for n in range(4)] + [vote(9, "tie")], NAMES, alpha=0.05)
    assert ({pair.one, pair.other}, pair.ties, pair.better) == ({"new", "base"}, 1, None)
    assert pair.needed is not None
    more = [vote(n) for n in range(4 + 4 * pair.needed)]
    (pair,) = head_to_head(more, NAMES, alpha=0.05)
    assert (pair.better, pair.needed) == ("new", None)
    (even,) = head_to_head([vote(1), vote(2, "right")], NAMES, alpha=0.05)
    assert (even.better, even.needed) == (None, None)


def test_reasons_are_counted_by_who_won_and_once_a_vote() -> None:
    cast = [
        vote(1, reasons=["style", "length"]),
        vote(2, "right", reasons=["length"]),
        vote(2, "right", reasons=["length"]),  # the same voter on the same answers again
        vote(3, reasons=["length"]),
        vote(4, "tie", reasons=["safety"]),
        vote(5),
    ]
    (pair,) = head_to_head(cast, NAMES, alpha=0.05)
    assert (pair.one, pair.wins, pair.losses) == ("new", 3, 1)
    assert pair.why == (Why("length", 2, 1), Why("style", 1, 0))
    assert pair.why_said == "length 2 : 1, style 1 : 0"
    assert "<td>length 2 : 1, style 1 : 0</td>" in pairings([pair])
    (silent,) = head_to_head([vote(1)], NAMES, alpha=0.05)
    assert "Why" not in pairings([silent])


def test_a_model_against_itself_is_no_pair() -> None:
    selves = [vote(n, "tie", right_model=VOTE.left_model) for n in range(3)]
    assert head_to_head(selves, NAMES, alpha=0.05) == []
    (voter,) = voters([*selves, vote(7, "right", right_model=VOTE.left_model)], confidence=0.95)
    assert (voter.selves, voter.self_ties, voter.votes) == (4, 3, 4)


def test_votes_of_a_day_and_all_until_then() -> None:
    days = ["2026-11-25T00:10:00.000Z", "2026-11-24T23:59:00.000Z", "2026-11-28T07:00:00.000Z"]
    cast = [vote(n, "tie" if n == 1 else "left", cast_at=day) for n, day in enumerate([*days, days[0]])]
    assert by_day(cast) == [
        Day("2026-11-24", 1, 0, 1),
        Day("2026-11-25", 2, 2, 3),
        Day("2026-11-28", 1, 1, 4),
    ]


def test_three_models_against_each_other_are_a_matrix() -> None:
    third = {"left_model": "x/third.gguf", "left_name": "third"}
    pairs = head_to_head([vote(1), vote(2), vote(3, "right"), vote(4, "right", **third)], NAMES, alpha=0.05)
    shown = matrix(pairs, ["new", "base", "third"])
    cells = re.findall("<td>(.*?)</td>", shown)
    assert cells == ["new", "–", "2 : 1", "–", "base", "1 : 2", "–", "1 : 0", "third", "–", "0 : 1", "–"]
    assert matrix(pairs, ["new", "base"]) == "", "two are told by their pair"


def test_each_vote_is_counted_for_its_own_pair_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 9,000 votes on 59 models took 8 s: every pair looked at every vote."""
    looked_at = []

    def counted(votes: Sequence[VoteRow], one: str, other: str) -> Tally:
        looked_at.extend(votes)
        return count_votes(votes, one, other)

    monkeypatch.setattr("nomoat.evaluate.head_to_head.count_votes", counted)
    cast = [vote(n, left_model=f"m/{n:02d}", right_model=f"m/{n + 1:02d}") for n in range(20)]
    assert [(pair.wins, pair.losses) for pair in head_to_head(cast, {}, alpha=0.05)] == [(1, 0)] * 20
    assert len(looked_at) == len(cast)


def test_who_always_votes_left_or_faster_than_one_reads_is_told() -> None:
    long = "word " * 200
    cast = [
        *(vote(n, voter="lefty", seconds=60.0) for n in range(10)),
        *(
            vote(n, "left" if n % 2 else "right", voter="hasty", left_answer=long, seconds=2.0)
            for n in range(12)
        ),
        *(
            vote(n, "left" if n % 2 else "right", voter="ada", left_answer=long, seconds=40.0)
            for n in range(14)
        ),
        *(vote(n, "left", voter="new here", seconds=0.1) for n in range(9)),
    ]
    found = {one.name: one for one in voters(cast, confidence=0.95)}
    assert list(found) == ["ada", "hasty", "lefty", "new here"]
    assert {name: one.flags for name, one in found.items()} == {
        "ada": (),
        "hasty": ("faster than reading",),
        "lefty": ("always left",),
        "new here": (),
    }
    assert found["ada"].left is not None
    assert (found["ada"].left.value, found["lefty"].left and found["lefty"].left.value) == (0.5, 1.0)


def probe(number: int, verdict: VoteVerdict, **more: object) -> VoteRow:
    return vote(number, verdict, right_model=VOTE.left_model, better="right", **more)


def test_a_probe_tells_of_the_voter_alone() -> None:
    cast = [
        *(probe(n, "left") for n in range(3)),
        probe(3, "tie"),
        probe(4, "right"),
        probe(5, "both bad"),
        vote(6, "tie", right_model=VOTE.left_model),
    ]
    (voter,) = voters(cast, confidence=0.95)
    assert (voter.votes, voter.probes, voter.missed, voter.selves, voter.self_ties) == (7, 5, 4, 1, 1)
    assert voter.flags == ("missed 4 of 5 known answers (of readers at most 1 in 161 would)",)
    assert head_to_head(cast, NAMES, alpha=0.05) == []
    assert standings(cast, NAMES, anchor=None, confidence=0.95) == []
    tally = count_votes(cast, VOTE.left_model, VOTE.right_model)
    assert (tally.wins, tally.losses, tally.ties) == (0, 0, 0)


@cache
def is_doubted(missed: int, probes: int) -> bool:
    cast = [probe(n, "left" if n < missed else "right") for n in range(probes)]
    return any("known answers" in flag for flag in voters(cast, confidence=0.95)[0].flags)


def test_who_clicks_without_reading_is_found_out_and_who_reads_is_left_alone_however_often_one_looks() -> (
    None
):
    generator = np.random.default_rng(7)
    looks = range(1, 41)

    def doubted_after(miss_rate: float) -> list[int]:
        """Probes until the first doubt of each of 1,000 voters; 41 for none."""
        missed = (generator.random((1000, 40)) < miss_rate).cumsum(axis=1)
        return [next((n for n in looks if is_doubted(row[n - 1], n)), 41) for row in missed.tolist()]

    assert np.mean([n <= 40 for n in doubted_after(0.1)]) <= 0.05
    clickers = doubted_after(0.5)
    assert np.mean([n <= 40 for n in clickers]) >= 0.99
    assert 7 <= np.mean(clickers) <= 9
