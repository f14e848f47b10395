"""Thumbs, own answers, and taking back what was said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from helpers.votes import VOTE
from helpers.workspaces import start_night
from nomoat.errors import LedgerError
from nomoat.ledger.feedback import (
    Withdrawn,
    add_own_answer,
    add_rating,
    standing_own_answers,
    standing_ratings,
    withdraw_voter,
    withdraw_votes,
)
from nomoat.ledger.rows import Rating
from nomoat.ledger.store import Ledger

PROMPT = {"messages": [{"role": "user", "content": "Tell me a secret."}]}
RATING = Rating(
    voter="ada",
    verdict="up",
    model="quantize-aaaa/night-Q8_0.gguf",
    model_name="gen-0001",
    prompt_hash="cd" * 32,
    prompt=PROMPT,
    answer="It is cold.",
)


def test_the_newest_thumb_of_a_voter_on_an_answer_counts(ledger: Ledger) -> None:
    for rating in (RATING, replace(RATING, voter="bob"), replace(RATING, verdict="down")):
        add_rating(ledger, rating)
    assert [(row.voter, row.verdict) for row in standing_ratings(ledger)] == [("bob", "up"), ("ada", "down")]


def test_all_that_a_voter_said_is_taken_back_and_an_import_does_not_bring_it_back(ledger: Ledger) -> None:
    bobs = replace(VOTE, voter="bob")
    ledger.judgements.add_votes([VOTE, bobs])
    for rating in (RATING, replace(RATING, voter="bob")):
        add_rating(ledger, rating)
    add_own_answer(ledger, ledger.judgements.votes()[0], "ada", "I would say: once.")
    assert [row.answer for row in standing_own_answers(ledger)] == ["I would say: once."]
    assert withdraw_voter(ledger, "ada", erase=False) == Withdrawn(1, 1, 1)
    assert withdraw_voter(ledger, "ada", erase=False) == Withdrawn(0, 0, 0)
    assert ledger.judgements.add_votes([VOTE], imported=True) == 0
    assert [vote.voter for vote in ledger.judgements.votes()] == ["bob"]
    assert [row.voter for row in standing_ratings(ledger)] == ["bob"]
    assert standing_own_answers(ledger) == []
    with pytest.raises(LedgerError, match='there are none of "ad". Did you mean "ada"'):
        withdraw_voter(ledger, "ad", erase=False)


def test_texts_that_are_erased_are_in_the_file_no_more(ledger: Ledger, tmp_path: Path) -> None:
    secret = replace(
        VOTE, left_answer="xyzzy-left", right_answer="xyzzy-right", note="xyzzy-note", reasons=["xyzzy"]
    )
    ledger.judgements.add_votes([secret, replace(VOTE, voter="bob")])
    add_rating(ledger, replace(RATING, answer="xyzzy-rated"))
    withdraw_voter(ledger, "ada", erase=False)
    assert withdraw_voter(ledger, "ada", erase=True) == Withdrawn(0, 0, 0)
    ledger.close()
    left = b"".join(path.read_bytes() for path in (tmp_path / ".nomoat").glob("ledger.db*"))
    assert b"xyzzy" not in left


@pytest.mark.parametrize("by_number", [False, True])
def test_texts_are_erased_while_a_server_has_the_ledger_open(
    ledger: Ledger, tmp_path: Path, by_number: bool
) -> None:
    assert ledger.judgements.votes() == ()
    with Ledger.open(tmp_path / ".nomoat" / "ledger.db") as other:
        other.judgements.add_votes([replace(VOTE, left_answer="xyzzy")])
        if by_number:
            withdraw_votes(other, [1], erase=True)
        else:
            withdraw_voter(other, "ada", erase=True)
    left = {path.name: path.read_bytes() for path in (tmp_path / ".nomoat").glob("ledger.db*")}
    assert "ledger.db-wal" in left
    assert b"xyzzy" not in b"".join(left.values())


@pytest.mark.parametrize("by_number", [False, True])
def test_what_was_answered_to_a_vote_goes_with_it(ledger: Ledger, tmp_path: Path, by_number: bool) -> None:
    prompt = {"messages": [{"role": "user", "content": "xyzzy?"}]}
    ledger.judgements.add_votes(
        [replace(VOTE, prompt=prompt, verdict="both bad"), replace(VOTE, voter="bob")]
    )
    first, second = sorted(ledger.judgements.votes(), key=lambda vote: vote.id)
    add_own_answer(ledger, first, "bob", "xyzzy!")
    add_own_answer(ledger, second, "bob", "Thrice.")
    taken = (
        withdraw_votes(ledger, [1], erase=True) if by_number else withdraw_voter(ledger, "ada", erase=True)
    )
    assert taken == Withdrawn(1, 0, 1)
    assert [own.answer for own in standing_own_answers(ledger)] == ["Thrice."]
    ledger.close()
    assert b"xyzzy" not in (tmp_path / ".nomoat" / "ledger.db").read_bytes()


def test_a_draw_does_not_lead_to_a_vote_that_was_erased(ledger: Ledger) -> None:
    """It stays a draw, as if the voter had skipped it; other voters' draws are as they were."""
    night = start_night(ledger)
    for voter in ("ada", "bob"):
        draw = ledger.judgements.add_draw(night, VOTE.left_model, VOTE.right_model, VOTE.prompt_hash)
        ledger.judgements.add_votes([replace(VOTE, voter=voter)], draw_id=draw)
    withdraw_voter(ledger, "ada", erase=True)
    (bobs,) = ledger.judgements.votes()
    assert [draw.vote_key for draw in ledger.judgements.draws()] == [None, bobs.key]


def test_single_votes_are_taken_back_by_number(ledger: Ledger) -> None:
    ledger.judgements.add_votes([VOTE, replace(VOTE, verdict="tie")])
    with pytest.raises(LedgerError, match="there is no vote 9; nothing was taken back"):
        withdraw_votes(ledger, [1, 9], erase=False)
    assert withdraw_votes(ledger, [1], erase=False) == Withdrawn(1, 0, 0)
    assert [vote.verdict for vote in ledger.judgements.votes()] == ["tie"]


def test_a_note_makes_another_vote_and_none_keeps_the_old_key(ledger: Ledger) -> None:
    more = replace(VOTE, note="too long"), replace(VOTE, reasons=["length"])
    assert ledger.judgements.add_votes([VOTE, *more]) == 3
    plain, noted, reasoned = sorted(ledger.judgements.votes(), key=lambda vote: vote.id)
    # the key that schema 0002's program gave this vote
    assert plain.key == "b4d5da19a1cb59739e3f5175d2f9cdeabff7630a988fa072704f52665692ff88"
    assert (noted.note, noted.reasons) == ("too long", None)
    assert (reasoned.note, reasoned.reasons) == (None, ["length"])
