"""Always-valid tests against confseq's published values; power against the figures everybody can recompute."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nomoat.evaluate.stats.power import sprt_votes, votes_needed, votes_still_needed
from nomoat.evaluate.stats.sequential import confidence_sequence, log_e_value, log_mixture


# gostevehoward/confseq, test/uniform_boundaries_unittest.cpp (MIT): BetaBinomialMixture(v_opt 100, alpha 0.05, g 0.2,
# h 0.8).log_superMG(s 10, v 100), "from a reference implementation in R". Its v = n g h and s = k - n g, so n = 625.
@pytest.mark.parametrize(("one_sided", "published"), [(False, -0.6941012), (True, -0.07134019)])
def test_the_mixture_is_confseqs(one_sided: bool, published: float) -> None:
    found = log_mixture(135, 625, 0.2, best_at=625, one_sided=one_sided)
    assert float(found) == pytest.approx(published, abs=1e-5)


# The same package's bernoulli_confidence_interval.
@pytest.mark.parametrize(
    ("k", "n", "best_at", "low", "high"),
    [
        (700, 1000, 100, 0.651629, 0.745949),
        (15, 50, 50, 0.129556, 0.511896),
        (5, 50, 50, 0.013021, 0.269264),
        (1, 50, 50, 0.0, 0.13489),
    ],
)
def test_the_confidence_sequence_is_confseqs(k: int, n: int, best_at: int, low: float, high: float) -> None:
    found = confidence_sequence(k, n, confidence=0.95, best_at=best_at)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-5)
    assert (found.value, found.n) == (k / n, n)


def test_the_e_value_is_the_average_of_the_gamblers_who_bet_each_share() -> None:
    # By quadrature over λ with the Beta of (1 + λ)/2, truncated to λ >= 0: the closed form must be that.
    scale = 2 * math.log(10) + math.log(1 + 2 * math.log(10))
    prior = 2 * (100 * 0.25 / scale - 0.25)
    share = (np.arange(200_000) + 0.5) / 200_000
    weight = ((1 + share) * (1 - share)) ** (prior - 1)
    owned = (weight * (1 + share) ** 30 * (1 - share) ** 12).sum() / weight.sum()
    assert float(log_e_value(30, 12, best_at=100)) == pytest.approx(math.log(owned), abs=1e-6)


def test_nothing_seen_nothing_owned_and_losses_cost() -> None:
    assert float(log_e_value(0, 0)) == 0.0
    assert log_e_value([5, 5, 5], [0, 5, 50]).tolist() == sorted(
        log_e_value([5, 5, 5], [0, 5, 50]), reverse=True
    )
    assert float(log_e_value(0, 100_000)) < -5


@pytest.mark.parametrize("ties", [0.0, 0.4])
def test_an_owner_who_looks_after_every_vote_is_misled_no_oftener_than_alpha(ties: float) -> None:
    generator = np.random.default_rng(3)
    scores = generator.choice([0.0, 0.5, 1.0], p=[(1 - ties) / 2, ties, (1 - ties) / 2], size=(1500, 300))
    wins, losses = ((scores == value).cumsum(axis=1) for value in (1.0, 0.0))
    misled = (log_e_value(wins, losses) >= math.log(1 / 0.05)).any(axis=1).mean()
    assert 0.005 < misled <= 0.05


def test_a_confidence_sequence_holds_the_truth_at_all_looks_at_once() -> None:
    generator = np.random.default_rng(4)
    wins = (generator.random((2000, 300)) < 0.6).cumsum(axis=1)
    outside = log_mixture(wins, np.arange(1, 301), 0.6, one_sided=False) > math.log(1 / 0.05)
    assert 0.005 < outside.any(axis=1).mean() <= 0.05


@pytest.mark.parametrize("n", [2, 10, 3000])
def test_never_and_always_have_an_interval_too(n: int) -> None:
    never, always = (confidence_sequence(k, n, confidence=0.95) for k in (0, n))
    assert (never.low, always.high) == (0.0, 1.0)
    assert never.high == pytest.approx(1 - always.low, abs=1e-8)
    assert 0 < never.high <= 1


@pytest.mark.parametrize(("k", "n"), [(1, 1), (3, 2), (-1, 5)])
def test_one_vote_has_no_interval(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"successes: got {k} of {n}; expected 0 to n, and n at least 2"):
        confidence_sequence(k, n, confidence=0.95)
    with pytest.raises(ValueError, match="wins and losses: expected 0 or more"):
        log_e_value(-1, 2)


# The usual table: one-sided 5 %, power 80 %; Wald's expectation at 5 % and 5 %.
@pytest.mark.parametrize(
    ("rate", "fixed", "sequential"), [(0.55, 618, 529), (0.60, 155, 132), (0.65, 69, 58), (0.70, 39, 32)]
)
def test_votes_needed(rate: float, fixed: int, sequential: int) -> None:
    assert votes_needed(rate) == pytest.approx(fixed, abs=1)
    assert sprt_votes(rate) == pytest.approx(sequential, abs=0.5)


def test_a_rate_of_a_half_needs_votes_for_ever() -> None:
    with pytest.raises(ValueError, match=r"rate: got 0.5; expected a number between 0.5 and 1"):
        votes_needed(0.5)
    assert votes_still_needed(10, 10, alpha=0.05) is None
    assert votes_still_needed(3, 9, alpha=0.05) is None


def test_the_votes_still_needed_are_enough_and_one_fewer_is_not() -> None:
    more = votes_still_needed(12, 8, alpha=0.05)
    assert more is not None
    rate = 13 / 22
    reached = [
        float(log_e_value(12 + rate * m, 8 + (1 - rate) * m)) >= math.log(20) for m in (more - 1, more)
    ]
    assert reached == [False, True]
    assert votes_still_needed(12, 8, log_have=2.0, alpha=0.05) < more
    assert votes_still_needed(60, 8, alpha=0.05) == 0
