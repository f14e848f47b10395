"""Win rates: with ties, clustered by prompt, and freed of length."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from nomoat.evaluate.stats.intervals import wilson
from nomoat.evaluate.stats.winrate import controlled_win_rate, standard_error, style_difference, win_rate


def test_without_clusters_the_error_is_that_of_a_mean() -> None:
    scores = np.array([1, 0, 0.5, 1, 1, 0, 0.5])
    assert standard_error(scores) == pytest.approx(scores.std(ddof=1) / np.sqrt(7), rel=1e-12)


def test_votes_on_one_prompt_count_once() -> None:
    scores = np.array([1, 0, 1, 1, 0, 0.5])
    tripled, prompts = np.repeat(scores, 3), np.repeat(np.arange(6), 3)
    assert standard_error(tripled, prompts) == pytest.approx(standard_error(scores), rel=1e-12)
    assert standard_error(tripled) < 0.6 * standard_error(scores)
    assert win_rate(tripled, prompts, confidence=0.95) == win_rate(scores, confidence=0.95)


def test_the_interval_holds_the_truth_although_prompts_are_asked_often() -> None:
    held, unclustered, runs = 0, 0, 500
    for seed in range(runs):
        generator = np.random.default_rng(seed)
        liked = np.clip(0.6 + 0.35 * generator.choice([-1, 1], 40), 0, 1)  # each prompt has its own win rate
        prompts = np.repeat(np.arange(40), 5)
        scores = (generator.random(200) < liked[prompts]).astype(float)
        truth = 0.6
        clustered, alone = (win_rate(scores, which, confidence=0.95) for which in (prompts, None))
        held += int(clustered.low <= truth <= clustered.high)
        unclustered += int(alone.low <= truth <= alone.high)
    assert 0.92 <= held / runs <= 0.98
    assert unclustered / runs < 0.88  # why clusters matter


def test_all_alike_is_no_certainty() -> None:
    assert win_rate([1, 1, 1, 1], confidence=0.95) == wilson(4, 4, 0.95)
    tied = win_rate([0.5] * 4, confidence=0.95)
    assert tied.low < 0.2
    assert tied.high > 0.8


def votes(strength: float, length: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Votes of somebody who likes strength and length; the left model writes longer. Scores [N], differences [N, 1]."""
    generator = np.random.default_rng(seed)
    left, right = generator.gamma(4, 60, n), generator.gamma(4, 30, n)
    difference = style_difference(left, right)
    won = generator.random(n) < expit(strength + length * difference)
    return won.astype(float), difference[:, None]


def test_length_is_taken_out() -> None:
    scores, difference = votes(0.0, 3.0, 4000, 1)
    assert scores.mean() > 0.65  # longer, not better
    found = controlled_win_rate(scores, difference, confidence=0.95)
    assert found.low < 0.5 < found.high
    assert found.value == pytest.approx(0.5, abs=0.05)


def test_the_controlled_interval_holds_the_truth() -> None:
    held = 0
    for seed in range(300):
        found = controlled_win_rate(*votes(0.4, 1.5, 400, seed), confidence=0.95)
        held += int(found.low <= expit(0.4) <= found.high)
    assert 0.92 <= held / 300 <= 0.98


def test_sides_do_not_matter_and_without_differences_nothing_is_taken_out() -> None:
    scores, difference = votes(0.4, 1.5, 300, 2)
    one, other = (
        controlled_win_rate(s, d, confidence=0.9)
        for s, d in ((scores, difference), (1 - scores, -difference))
    )
    assert (other.value, other.low, other.high) == pytest.approx((1 - one.value, 1 - one.high, 1 - one.low))
    alike = controlled_win_rate(scores, np.zeros((300, 2)), confidence=0.9)
    assert alike.value == pytest.approx(scores.mean(), abs=1e-7)


@pytest.mark.parametrize(
    ("scores", "clusters", "message"),
    [
        ([1.0], None, "scores: got shape .* at least 2 values"),
        ([1.0, 2.0], None, "scores: got 2; expected win 1, tie 0.5, loss 0"),
        ([1.0, 0.0], [3, 3], "clusters: all 2 values are of one; expected at least 2 for an error"),
        ([1.0, 0.0], [3], "clusters: got shape .* expected one for each of the 2 values"),
    ],
)
def test_too_little_is_refused(scores: list[float], clusters: list[int] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        win_rate(scores, clusters, confidence=0.95)


def test_style_cannot_be_told_from_strength_where_all_win() -> None:
    with pytest.raises(ValueError, match="all 3 scores are 1: style cannot be told from strength"):
        controlled_win_rate([1, 1, 1], [[0.1], [0.2], [-0.1]], confidence=0.95)
