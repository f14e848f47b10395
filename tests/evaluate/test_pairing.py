"""Which pair to vote on next: against the inverse computed outright, and against what must hold."""

from __future__ import annotations

import numpy as np
import pytest

from nomoat.evaluate.stats.pairing import _information, narrowing, planned_ratings
from nomoat.evaluate.stats.ratings import Battles, bradley_terry

M = 5


def some_votes(seed: int, votes: int = 400) -> tuple[np.ndarray, list[int], list[int], list[float]]:
    rng = np.random.default_rng(seed)
    won = np.zeros((M, M))
    left = rng.integers(M, size=votes)
    right = (left + rng.integers(1, M, size=votes)) % M
    score = rng.choice([0.0, 0.5, 1.0], size=votes)
    np.add.at(won, (left, right), score)
    np.add.at(won, (right, left), 1 - score)
    return won, left.tolist(), right.tolist(), score.tolist()


def test_planned_ratings_are_bradley_terrys_but_for_the_prior() -> None:
    won, left, right, score = some_votes(0, 20_000)
    rated = bradley_terry(Battles.of(left, right, score, models=M)).points_M * np.log(10) / 400
    planned = planned_ratings(won)
    assert planned.mean() == pytest.approx(0, abs=1e-9)
    assert planned - planned[0] == pytest.approx(rated, abs=1e-3)


def test_what_a_vote_narrows_is_what_the_new_inverse_says() -> None:
    won = np.stack([some_votes(seed)[0] for seed in (1, 2)])
    theta = planned_ratings(won)
    found = narrowing(won, theta, anchor=2)
    assert found == pytest.approx(found.swapaxes(1, 2))
    free = [0, 1, 3, 4]
    for one in range(2):
        before = _information(won[one] + won[one].T, theta[one])
        errors = np.sqrt(np.diag(np.linalg.inv(before[np.ix_(free, free)])))
        for i, j in ((0, 1), (2, 4), (3, 2)):
            p = 1 / (1 + np.exp(theta[one][j] - theta[one][i]))
            x = np.zeros(M)
            x[i], x[j] = 1, -1
            after = before + p * (1 - p) * np.outer(x, x)
            left = np.sqrt(np.diag(np.linalg.inv(after[np.ix_(free, free)])))
            assert found[one, i, j] == pytest.approx((errors - left).sum(), rel=1e-9)


def test_before_any_vote_all_meet_the_anchor_and_votes_that_are_asked_for_count() -> None:
    none = np.zeros((M, M))
    gain = narrowing(none, planned_ratings(none), anchor=0)
    assert gain[0, 1:] == pytest.approx(gain[0, 1])
    assert gain[0, 1] > gain[1, 2] > 0
    assert (np.diag(gain) == 0).all()
    pending = none.copy()
    pending[0, 1] = pending[1, 0] = 1
    after = narrowing(none, planned_ratings(none), anchor=0, pending_MM=pending)
    assert after[0, 1] < after[0, 2]
