"""The simulation of chosen pairs: what it must show, in fewer arenas than the benchmark has."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pairing import by_chance, by_narrowing, cast, simulate


@pytest.mark.slow
def test_chosen_pairs_need_fewer_votes_and_intervals_still_hold_the_truth() -> None:
    chance, same_width, _ = simulate(arenas=100, models=8, spread=300, votes=800, ties=0.2, seed=0)
    assert same_width.votes <= 0.75 * chance.votes, "a quarter fewer at least"
    assert same_width.width <= chance.width
    assert same_width.covered > 0.9


def test_votes_follow_bradley_terry_with_ties_as_halves() -> None:
    strength = np.tile([0.0, 200.0], (400, 1))
    shown = cast(strength, 50, 0.3, by_chance, np.random.default_rng(0))
    second = np.where(shown.left == 1, shown.score, 1 - shown.score)
    assert second.mean() == pytest.approx(1 / (1 + 10 ** (-200 / 400)), abs=0.01)
    assert (shown.left != shown.right).all()


def test_among_equals_all_pairs_with_the_anchor_come_up() -> None:
    rng = np.random.default_rng(0)
    left, right = by_narrowing(np.zeros((200, 4, 4)), np.zeros((200, 4)), rng)
    assert (np.minimum(left, right) == 0).all()
    assert set(np.maximum(left, right).tolist()) == {1, 2, 3}


def test_it_runs_and_prints_its_figures(bench: Callable[..., str]) -> None:
    said = bench("pairing.py", "--arenas=5", "--models=3", "--votes=80")
    assert "5 arenas of 3 models" in said
    assert "fewer votes for the same width" in said
