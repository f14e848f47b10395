"""What else than a vote between the two speaks for a challenger: a third model, and a judge who spoke before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers.votes import VOTE
from nomoat.evaluate.ballots import judged, links
from nomoat.evaluate.gate import Link, Tally, decide
from nomoat.ledger.rows import JudgeVerdictRow, VoteRow, VoteVerdict

NEW, OLD, THIRD = "q-3/night.gguf", "q-2/night.gguf", "q-1/night.gguf"
PROMPTS = 10


def vote(
    number: int, left: str, right: str, verdict: VoteVerdict = "left", at: str = "T07", **more: object
) -> VoteRow:
    cast = replace(
        VOTE,
        left_model=left,
        right_model=right,
        left_name=left[:3],
        right_name=right[:3],
        verdict=verdict,
        cast_at=f"2026-11-24{at}:00:{number:02d}.000Z",
        source="pool",
        prompt_hash=str(number % PROMPTS),
        left_answer=f"{number}",
        **more,  # type: ignore[arg-type]
    )
    return VoteRow(**cast.__dict__, id=number, key=str(number), imported_at=None, withdrawn_at=None)


def verdicts(one: str = NEW, other: str = OLD, at: str = "2026-11-24T06:00:00.000Z") -> list[JudgeVerdictRow]:
    """The first six prompts for `one`, the others against it."""
    return [
        JudgeVerdictRow(
            judge="m",
            one_model=one,
            other_model=other,
            prompt_hash=str(n),
            forward=float(n < 6),
            backward=float(n < 6),
            id=n,
            judged_at=at,
        )
        for n in range(PROMPTS)
    ]


def foretold(count: int = 40, **more: object) -> list[VoteRow]:
    """Votes as the judge foretells them."""
    return [vote(n, NEW, OLD, "left" if n % PROMPTS < 6 else "right", **more) for n in range(count)]


def test_votes_of_both_against_a_third_are_a_link() -> None:
    own = [vote(n, NEW, THIRD, "right" if n == 2 else "left") for n in range(5)]
    rivals = [vote(n, THIRD, OLD, "tie" if n == 13 else "left") for n in range(10, 14)]
    between = [vote(20, NEW, OLD)]
    assert links([*own, *rivals, *between], NEW, OLD, names={}) == [Link("q-1", 2, 0, 3)]
    assert links([*own, *rivals], NEW, OLD, names={THIRD: "gen-0001"})[0].third == "gen-0001"
    assert links([*own, *between], NEW, OLD, names={}) == links(own, NEW, None, names={}) == []


def test_a_link_multiplies_the_evidence_and_is_said() -> None:
    def of(*found: Link) -> tuple[float, float, str]:
        verdict = decide([Tally("votes", 20, 10, 0)], [], found, challenger="new", rival="old", alpha=0.05)
        return verdict.e_value, verdict.e_against, verdict.said

    alone, against, _ = of()
    more, less, said = of(Link("gen-0001", 70, 40, 100))
    assert more > 10 * alone
    assert less < against
    assert "of 100 blind votes each against gen-0001 it won 70, the other 40" in said


def test_a_judge_counts_for_votes_that_came_after_it() -> None:
    votes = foretold()
    found = judged(votes, verdicts(), NEW, OLD)
    assert found is not None
    assert found.votes == 40
    turned = judged(votes, verdicts(OLD, NEW), NEW, OLD)
    assert turned is not None
    assert turned.log_for < found.log_for
    assert judged(votes, verdicts(at="2026-11-25T06:00:00.000Z"), NEW, OLD) is None
    assert judged(votes, verdicts(THIRD, OLD), NEW, OLD) is None
    half = judged(votes, verdicts(at="2026-11-24T07:00:19.500Z"), NEW, OLD)
    assert half is not None
    assert half.votes == 20


def test_for_and_against_change_places_with_the_models() -> None:
    one, other = (judged(foretold(), verdicts(), *pair) for pair in ((NEW, OLD), (OLD, NEW)))
    assert one is not None
    assert other is not None
    assert (one.log_for, one.log_against) == pytest.approx((other.log_against, other.log_for))


def test_typed_prompts_and_votes_from_elsewhere_stay_as_they_are() -> None:
    assert judged([replace(one, source="typed") for one in foretold()], verdicts(), NEW, OLD) is None
    elsewhere = [replace(one, imported_at="2026-11-25T07:00:00.000Z") for one in foretold()]
    assert judged(elsewhere, verdicts(), NEW, OLD) is None
    unknown = [replace(one, prompt_hash=f"x{one.prompt_hash}") for one in foretold()]
    assert judged(unknown, verdicts(), NEW, OLD) is None


def test_votes_on_another_pair_teach_what_the_judge_is_worth() -> None:
    earlier = [vote(n, OLD, THIRD, "left" if n % PROMPTS < 6 else "right", at="T06") for n in range(40)]
    taught = judged([*earlier, *foretold()], [*verdicts(OLD, THIRD, at=""), *verdicts()], NEW, OLD)
    alone = judged(foretold(), verdicts(), NEW, OLD)
    assert taught is not None
    assert alone is not None
    assert taught.votes == alone.votes
    assert taught.log_for != alone.log_for
    assert judged([*earlier, *foretold()], verdicts(), NEW, OLD) == alone, (
        "without verdicts they teach nothing"
    )
