"""Temperature and reliability against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from nomoat.evaluate.stats.calibration import COLDEST, HOTTEST, cross_fitted, reliability, temperature


@pytest.mark.parametrize(("difference", "wins"), [(3.0, 15), (0.5, 14), (2.0, 19)])
def test_one_difference_has_the_temperature_of_its_wins(difference: float, wins: int) -> None:
    """All pairs differ by a, and a share w of them is won: σ(a / T) = w, so T = a / log(w / (1 - w))."""
    outcomes = [1.0] * wins + [0.0] * (20 - wins)
    share = wins / 20
    assert temperature([difference] * 20, outcomes) == pytest.approx(
        difference / math.log(share / (1 - share)), rel=1e-3
    )


def test_ties_are_half_wins_and_nothing_is_certain() -> None:
    split = temperature([1.0, 1.0, 2.0, 2.0], [1, 0.5, 1, 0.5])
    assert split == pytest.approx(temperature([1.0] * 4 + [2.0] * 4, [1, 1, 1, 0] * 2), rel=1e-3)
    assert temperature([1.0, 2.0], [1, 1]) == pytest.approx(COLDEST, rel=0.05)
    assert temperature([1.0, 2.0], [0, 0]) == pytest.approx(HOTTEST, rel=0.05)


def test_a_temperature_is_found_again_and_mends_the_error() -> None:
    rng = np.random.default_rng(0)
    truth_P = rng.normal(0, 1.5, 20_000)
    wins_P = (rng.random(20_000) < special.expit(truth_P)).astype(float)
    told_P = 4.0 * truth_P
    assert temperature(told_P, wins_P) == pytest.approx(4.0, rel=0.03)
    before = reliability(special.expit(told_P), wins_P)
    after = reliability(cross_fitted(told_P, wins_P, np.arange(20_000)), wins_P)
    assert before.error > 0.1
    assert after.error < 0.015
    assert [each.pairs for each in after.bins] == [2000] * 10


def test_reliability_by_hand() -> None:
    """Two bins of two pairs: confidences .6 and .6 with one followed, .9 and .9 (one said of the second answer) with
    both: |.6 - .5| and |.9 - 1|."""
    found = reliability([0.6, 0.4, 0.9, 0.1], [1, 1, 1, 0], bins=2)
    assert [(each.confidence, each.followed) for each in found.bins] == [(0.6, 0.5), (0.9, 1.0)]
    assert found.error == pytest.approx(0.1)
