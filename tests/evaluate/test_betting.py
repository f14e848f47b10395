"""Votes beside a judge, and differences of two votes each: never misled, and worth what they should be."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from nomoat.evaluate.stats.betting import log_e_value_judged, log_e_value_of_differences
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


@pytest.mark.parametrize(
    "chances",
    [
        {-1.0: 0.3, 0.0: 0.4, 1.0: 0.3},
        {-1.0: 0.1, 0.0: 0.7, 0.5: 0.2},
        {-0.5: 0.8, 1.0: 0.2},  # below 0 in the mean
    ],
)
def test_differences_that_are_none_in_the_mean_are_bet_on_fairly(chances: dict[float, float]) -> None:
    """Over all sequences of four."""
    mean = sum(
        math.prod(chances[d] for d in drawn) * math.exp(log_e_value_of_differences(drawn))
        for drawn in product(chances, repeat=4)
    )
    assert mean <= 1 + 1e-9


def test_differences_of_whole_votes_are_the_votes_e_value() -> None:
    assert log_e_value_of_differences([]) == 0.0
    whole = [1.0] * 30 + [-1.0] * 12 + [0.0] * 9
    assert log_e_value_of_differences(whole) == pytest.approx(float(log_e_value(30, 12)), abs=2e-3)
    half = [d / 2 for d in whole]
    assert 0 < log_e_value_of_differences(half) < log_e_value_of_differences(whole)
    with pytest.raises(ValueError, match=r"got -1.5; expected -1 to 1"):
        log_e_value_of_differences([1, -1.5])
