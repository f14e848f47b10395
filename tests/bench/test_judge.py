"""The judge's benchmark measures what it says."""

from __future__ import annotations

from functools import partial

from judge import votes_until_promoted


def test_a_judge_that_knows_the_owner_is_worth_votes_and_without_one_it_is_the_plain_gate() -> None:
    of = partial(votes_until_promoted, 0.6, bias=0.0, votes=300, every=10, alpha=0.05, prompts=100)
    found = [of(0.95, seed=seed) for seed in range(20)]
    with_judge, without = (sum(number or 300 for number in side) for side in zip(*found, strict=True))
    assert with_judge < 0.7 * without
    assert [of(0.5, seed=seed)[1] for seed in range(5)] != [of(0.5, seed=seed)[0] for seed in range(5)]
