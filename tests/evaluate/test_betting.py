"""Votes beside a judge, and votes against a third model: never misled, and worth what they should be."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from nomoat.evaluate.stats.betting import log_e_value_judged, log_e_value_of_two
from nomoat.evaluate.stats.sequential import log_e_value


def owner(
    generator: np.random.Generator, rate: float, agrees: float, *, bias: float = 0.0, n: int = 300
) -> tuple[np.ndarray, np.ndarray, float]:
    """An owner whose judge agrees with them on so many of 100 prompts, but says "challenger" on a share of all whatever
    they hold: scores, leanings and reach."""
    likes_P = np.arange(100) < round(100 * rate)
    verdict_P = np.where(generator.random(100) < agrees, likes_P, ~likes_P) | (generator.random(100) < bias)
    prompt_N = generator.integers(0, 100, n)
    leaning_P = verdict_P - verdict_P.mean()
    return likes_P[prompt_N].astype(float), leaning_P[prompt_N], float(np.abs(leaning_P).max())


def promoted_at(scores: np.ndarray, leanings: np.ndarray, reach: float) -> int:
    """Votes after which an owner who looks after every ten is told to promote; 310 where they never are."""
    log_e_N = log_e_value_judged(scores, leanings, np.full(len(scores), reach), np.ones(len(scores)))
    looks = np.flatnonzero(log_e_N[9::10] >= math.log(20))
    return 10 * int(looks[0] + 1) if len(looks) else 310


def test_without_a_judge_it_is_the_votes_e_value() -> None:
    scores = np.random.default_rng(0).permutation([1.0] * 30 + [0.0] * 12 + [0.5] * 9)
    nothing = np.zeros(len(scores))
    found = log_e_value_judged(scores, nothing, nothing, nothing == 0)
    assert found[-1] == pytest.approx(float(log_e_value(30, 12)), abs=2e-3)


@pytest.mark.parametrize(("agrees", "bias"), [(0.5, 0.0), (0.8, 0.0), (0.5, 0.6), (0.9, 0.4), (0.2, 0.3)])
def test_a_judge_misleads_nobody_whatever_it_is_like(agrees: float, bias: float) -> None:
    generator = np.random.default_rng(7)
    told = [promoted_at(*owner(generator, 0.5, agrees, bias=bias)) <= 300 for _ in range(200)]
    assert sum(told) <= 0.05 * len(told)


def test_a_judge_who_knows_the_owner_saves_votes_and_one_who_does_not_costs_none() -> None:
    def mean_votes(agrees: float) -> tuple[float, float]:
        generator = np.random.default_rng(11)
        owners = [owner(generator, 0.6, agrees) for _ in range(60)]
        alone = [promoted_at(scores, 0 * leanings, 0.0) for scores, leanings, _ in owners]
        return float(np.mean([promoted_at(*one) for one in owners])), float(np.mean(alone))

    good, alone = mean_votes(0.9)
    assert good < 0.7 * alone
    useless, alone = mean_votes(0.5)
    assert useless < 1.05 * alone


def test_votes_on_others_teach_and_are_not_counted() -> None:
    generator = np.random.default_rng(5)
    scores, leanings, reach = owner(generator, 0.6, 0.95, n=160)
    reaches, is_staked = np.full(160, reach), np.arange(160) >= 80
    taught = log_e_value_judged(scores, leanings, reaches, is_staked)
    alone = log_e_value_judged(scores[80:], leanings[80:], reaches[80:], is_staked[80:])
    assert taught[-1] > alone[-1]
    assert (taught[:80] == 0.0).all()


# Turner, Ly and Grünwald's e-variable for one block, by its definition; the mixture is checked with one pair of rates.
def test_a_third_model_is_the_block_e_variable_of_the_two_sample_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nomoat.evaluate.stats.betting._MIDDLES", np.array([0.4]))
    monkeypatch.setattr("nomoat.evaluate.stats.betting._DIFFERENCES", np.array([0.8]))
    better, worse = 1 / (1 + math.exp(-0.8)), 0.5
    mean = (better + worse) / 2

    def density(won: int, rate: float) -> float:
        return rate if won else 1 - rate

    own, rivals = [1, 1, 0, 1, 1], [0, 1, 0, 0, 1]
    expected = math.prod(
        density(a, better) * density(b, worse) / (density(a, mean) * density(b, mean))
        for a, b in zip(own, rivals, strict=True)
    )
    assert math.exp(log_e_value_of_two(4, 2, 5)) == pytest.approx(expected)


@pytest.mark.parametrize("rival_rate", [0.05, 0.3, 0.5, 0.8, 0.99])
def test_a_third_model_bets_fairly_wherever_the_challenger_is_no_better(rival_rate: float) -> None:
    n = 12
    for rate in np.linspace(0.0, rival_rate, 6):
        mean = sum(
            stats.binom.pmf(won, n, rate)
            * stats.binom.pmf(rivals, n, rival_rate)
            * math.exp(log_e_value_of_two(won, rivals, n))
            for won, rivals in product(range(n + 1), repeat=2)
        )
        assert mean <= 1 + 1e-9


def test_a_third_model_tells_who_is_better_and_nothing_tells_nothing() -> None:
    assert log_e_value_of_two(0, 0, 0) == 0.0
    assert log_e_value_of_two(120, 80, 200) > math.log(20) > log_e_value_of_two(12, 8, 20)
    assert log_e_value_of_two(80, 120, 200) < 0
    with pytest.raises(ValueError, match="got 3 and 0 of 2"):
        log_e_value_of_two(3, 0, 2)
