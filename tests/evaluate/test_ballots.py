"""What else than a vote between the two speaks for a challenger: a third model, and a judge who spoke before."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from helpers.votes import VOTE
from nomoat.evaluate.ballots import judged, links
from nomoat.evaluate.gate import GateVerdict, Link, Tally, decide
from nomoat.evaluate.stats.betting import log_e_value_of_differences
from nomoat.ledger.rows import DrawRow, JudgeVerdictRow, VoteRow, VoteVerdict

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


def test_votes_of_both_against_a_third_are_matched_by_voter_and_prompt() -> None:
    own = [vote(0, NEW, THIRD), vote(1, NEW, THIRD, "tie"), vote(2, THIRD, NEW), vote(3, NEW, THIRD)]
    rivals = [vote(10, THIRD, OLD), vote(11, THIRD, OLD), vote(12, THIRD, OLD), vote(20, THIRD, OLD, "right")]
    found = [Link("q-1", (1.0, 0.5, 0.0))]  # the rival's second vote on prompt 0 has no partner
    assert links([*own, *rivals, vote(21, NEW, OLD)], NEW, OLD, names={}) == found
    assert links([*own, *rivals], NEW, OLD, names={THIRD: "gen-0001"})[0].third == "gen-0001"
    for other in ({"voter": "bob"}, {"source": "typed"}, {"imported_at": "2026-11-25T07:00:00.000Z"}):
        assert links([*own, *(replace(one, **other) for one in rivals)], NEW, OLD, names={}) == []  # type: ignore[arg-type]
    assert links(own, NEW, OLD, names={}) == links(own, NEW, None, names={}) == []


Votes = Callable[[np.random.Generator], tuple[list[float], list[int]]]
"""Scores against a third model, and the prompts that they were given on."""


def promoted_by_links(challenger: Votes, rival: Votes, owners: int = 100) -> float:
    """Share of owners who are told to promote by votes against a third alone, and look three times."""
    said: dict[float, VoteVerdict] = {1.0: "left", 0.0: "right", 0.5: "tie"}
    some = {model: vote(0, model, THIRD) for model in (NEW, OLD)}

    def cast(chance: np.random.Generator, model: str, of: Votes, begins: int) -> list[VoteRow]:
        return [
            replace(some[model], verdict=said[score], prompt_hash=str(prompt), left_answer=str(begins + n))
            for n, (score, prompt) in enumerate(zip(*of(chance), strict=True))
        ]

    promoted = 0
    for seed in range(owners):
        chance = np.random.default_rng(seed)
        own, rivals = cast(chance, NEW, challenger, 0), cast(chance, OLD, rival, 10_000)
        promoted += any(
            sum(log_e_value_of_differences(one.differences) for one in found) >= math.log(20)
            for n in range(len(own) // 3, len(own) + 1, len(own) // 3)
            for found in (links([*rivals, *own[:n]], NEW, OLD, names={}),)
        )
    return promoted / owners


def drawn(win: float, lose: float, n: int = 120, prompts: int = 20) -> Votes:
    """Votes on prompts drawn by chance."""

    def votes(chance: np.random.Generator) -> tuple[list[float], list[int]]:
        scores = chance.choice([1.0, 0.0, 0.5], p=[win, lose, max(0.0, 1 - win - lose)], size=n)
        return scores.tolist(), chance.integers(0, prompts, n).tolist()

    return votes


def test_neither_ties_nor_another_mix_of_prompts_promote_by_a_third_model() -> None:
    often_tied, never_tied = drawn(0.2, 0.1), drawn(0.55, 0.45)  # as many points
    assert promoted_by_links(often_tied, never_tied) <= 0.05

    def mixed(easy: float) -> Votes:
        """Both win on easy prompts, below 10, and lose on the others."""

        def votes(chance: np.random.Generator) -> tuple[list[float], list[int]]:
            is_easy = chance.random(120) < easy
            scores = (chance.random(120) < np.where(is_easy, 0.8, 0.2)).astype(float)
            return scores.tolist(), (np.where(is_easy, 0, 10) + chance.integers(0, 10, 120)).tolist()

        return votes

    assert promoted_by_links(mixed(0.7), mixed(0.3)) <= 0.05


def test_who_does_better_against_a_third_model_is_promoted_by_it() -> None:
    assert promoted_by_links(drawn(0.65, 0.3), drawn(0.35, 0.6), owners=20) >= 0.9


def test_a_link_speaks_for_the_challenger_alone_and_is_said() -> None:
    def of(*found: Link) -> GateVerdict:
        return decide([Tally("votes", 20, 10, 0)], [], found, challenger="new", rival="old", alpha=0.05)

    alone, linked = of(), of(Link("gen-0001", (1.0,) * 40 + (-1.0,) * 10 + (0.5,) * 5 + (0.0,) * 45))
    assert linked.e_value == pytest.approx(alone.e_value * linked.links[0].e_value)
    assert linked.e_value > 10 * alone.e_value
    assert (
        "against gen-0001, by the same voter on the same prompt, it did better 45 times, worse 10"
        in linked.said
    )
    losing = of(Link("gen-0001", (-1.0,) * 80))
    assert (losing.links[0].better, losing.links[0].worse, losing.links[0].alike) == (0, 80, 0)
    assert losing.e_value < alone.e_value
    assert losing.e_against == alone.e_against


def draws(votes: Sequence[VoteRow], one: str = NEW, other: str = OLD) -> list[DrawRow]:
    """What each vote came of, drawn when it was cast."""
    return [
        DrawRow(
            id=vote.id,
            drawn_at=vote.cast_at,
            night_id=1,
            one_model=one,
            other_model=other,
            prompt_hash=vote.prompt_hash,
            vote_key=vote.key,
        )
        for vote in votes
    ]


POOLS = {1: Counter(str(n) for n in range(PROMPTS))}


def test_a_judge_counts_for_prompts_that_were_drawn_after_it() -> None:
    votes = foretold()
    found = judged(votes, verdicts(), draws(votes), POOLS, NEW, OLD)
    assert found is not None
    assert found.votes == 40
    turned = judged(votes, verdicts(OLD, NEW), draws(votes), POOLS, NEW, OLD)
    assert turned is not None
    assert turned.log_for < found.log_for
    assert judged(votes, verdicts(at="2026-11-25T06:00:00.000Z"), draws(votes), POOLS, NEW, OLD) is None
    assert judged(votes, verdicts(THIRD, OLD), draws(votes), POOLS, NEW, OLD) is None
    assert judged(votes, verdicts(), [], POOLS, NEW, OLD) is None, "of typed prompts nothing is known"
    assert judged([], verdicts(), draws(votes), POOLS, NEW, OLD) is None
    half = judged(votes, verdicts(at="2026-11-24T07:00:19.500Z"), draws(votes), POOLS, NEW, OLD)
    assert half is not None
    assert half.votes == 20


def test_for_and_against_change_places_with_the_models() -> None:
    votes = foretold()
    one, other = (judged(votes, verdicts(), draws(votes), POOLS, *pair) for pair in ((NEW, OLD), (OLD, NEW)))
    assert one is not None
    assert other is not None
    assert (one.log_for, one.log_against) == pytest.approx((other.log_against, other.log_for))


def test_draws_that_end_without_a_vote_mislead_nobody() -> None:
    """The voter leaves half of the prompts, which the judge gives to the challenger. On the others they are even, and
    of one mind with the judge."""
    pool = {1: Counter(str(n) for n in range(100))}
    scores = [float(n < 75) for n in range(100)]
    said = [
        replace(verdicts()[0], prompt_hash=str(n), forward=score, backward=score)
        for n, score in enumerate(scores)
    ]

    def is_promoted(seed: int, *, forgets: bool) -> bool:
        generator, votes, drawn = np.random.default_rng(seed), list[VoteRow](), list[DrawRow]()
        for number, prompt in enumerate(generator.integers(100, size=300).tolist()):
            at = f"2026-11-24T08:00:00.{number:03d}Z"
            verdict: VoteVerdict = "left" if prompt < 75 else "right"
            cast = replace(
                vote(0, NEW, OLD, verdict), key=str(number), left_answer=str(number), cast_at=at, id=number
            )
            cast = replace(cast, prompt_hash=str(prompt))
            if prompt >= 50:
                votes.append(cast)
            if prompt >= 50 or not forgets:
                drawn += draws([cast])
        found = judged(votes, said, drawn, pool, NEW, OLD)
        assert found is not None
        return found.log_for >= math.log(20)

    assert sum(is_promoted(seed, forgets=False) for seed in range(40)) <= 2
    assert sum(is_promoted(seed, forgets=True) for seed in range(40)) > 4, "which is why draws are kept"


def test_votes_on_another_pair_teach_what_the_judge_is_worth() -> None:
    earlier = [
        replace(
            vote(n, OLD, THIRD, "left" if n % PROMPTS < 6 else "right", at="T06"), id=100 + n, key=f"e{n}"
        )
        for n in range(40)
    ]
    votes = [*earlier, *foretold()]
    drawn = [*draws(earlier, OLD, THIRD), *draws(foretold())]
    taught = judged(votes, [*verdicts(OLD, THIRD, at=""), *verdicts()], drawn, POOLS, NEW, OLD)
    alone = judged(foretold(), verdicts(), draws(foretold()), POOLS, NEW, OLD)
    assert taught is not None
    assert alone is not None
    assert taught.votes == alone.votes
    assert taught.log_for != alone.log_for
    assert judged(votes, verdicts(), drawn, POOLS, NEW, OLD) == alone, "without verdicts they teach nothing"
