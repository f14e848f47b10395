"""Pairs that are decided or open, and voters who cannot be counted on."""

from __future__ import annotations

from dataclasses import replace

from helpers.votes import VOTE
from nomoat.evaluate.head_to_head import head_to_head, voters
from nomoat.ledger.rows import VoteRow, VoteVerdict

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


def test_a_model_against_itself_is_no_pair() -> None:
    selves = [vote(n, "tie", right_model=VOTE.left_model) for n in range(3)]
    assert head_to_head(selves, NAMES, alpha=0.05) == []
    (voter,) = voters([*selves, vote(7, "right", right_model=VOTE.left_model)], confidence=0.95)
    assert (voter.selves, voter.self_ties, voter.votes) == (4, 3, 4)


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
