"""Pairs of verdicts and the generalised SPRT against fastchess' own tests (Disservin/fastchess, MIT)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nomoat.evaluate.stats.ordered import elo_estimate, gsprt_llr, pair_counts, sprt_bounds


def penta(ll: int, ld: int, wl: int, dd: int, wd: int, ww: int) -> list[int]:
    return [ll, ld, wl + dd, wd, ww]


def wld(wins: int, losses: int, draws: int) -> list[int]:
    return [losses, draws, wins]


# app/tests/sprt_test.cpp, within its 1 %: ten of its twelve. The other two are below.
@pytest.mark.parametrize(
    ("counts", "elo0", "elo1", "model", "published"),
    [
        (wld(36433, 36027, 68692), 0, 2, "normalized", 0.92),
        (wld(10871, 10650, 20431), -1.75, 0.25, "normalized", 2.30),
        (wld(21404, 21184, 40708), 0.5, 2.5, "logistic", -1.57),
        (wld(57433, 57030, 106593), 0, 2, "logistic", -2.59),
        (wld(68965, 68526, 128429), 0, 2, "bayesian", -1.26),
        (wld(21629, 21484, 41111), 0.5, 2.5, "bayesian", -1.13),
        (penta(365, 16618, 36029, 200, 16974, 390), 0, 2, "normalized", 2.25),
        (penta(127, 4883, 10311, 401, 5150, 104), -1.75, 0.25, "normalized", 3.01),
        (penta(223, 9863, 20279, 1000, 10037, 246), 0.5, 2.5, "logistic", -3.07),
        (penta(871, 26175, 55003, 980, 26678, 821), 0, 2, "logistic", -4.98),
    ],
)
def test_likelihood_ratios_are_fastchess(
    counts: list[int], elo0: float, elo1: float, model: str, published: float
) -> None:
    assert gsprt_llr(counts, elo0, elo1, model=model) == pytest.approx(published, rel=0.01)  # type: ignore[arg-type]


def test_where_all_results_are_alike_fastchess_published_values_are_no_likelihood_ratios() -> None:
    """Published errors: sprt_test.cpp gives 2.97 for 16,700 draws and 2.94 for 104 pairs won, [0, 5] normalised (and
    in an earlier commit the same two values for 4,250 wins and 5,550 pairs: they follow the code, not the model)."""
    # Draws alone meet the null exactly, so nothing is likelier: the ratio cannot be positive. The likeliest with a
    # mean t deviations above 1/2 moves t² of all games from draws to wins, which costs N ln(1 - t²).
    t = 5 * math.log(10) / 800
    assert gsprt_llr(wld(0, 0, 16700), 0, 5) == pytest.approx(16700 * math.log(1 - t * t), rel=0.01)
    # Pairs that were all won can only be undone by pairs all lost: q to 1 - q with (q - 1/2) / sqrt(q (1 - q)) = t.
    t *= math.sqrt(2)
    q = 0.5 + t / (2 * math.sqrt(1 + t * t))
    assert gsprt_llr(penta(0, 0, 0, 0, 0, 104), 0, 5) == pytest.approx(104 * math.log(2 * q), rel=0.01)


# app/tests/elo_test.cpp: counts, Elo and error, normalised Elo and error, likelihood of superiority in %.
@pytest.mark.parametrize(
    ("counts", "elo", "error", "normalized", "normalized_error", "superiority"),
    [
        (wld(76, 89, 123), None, None, -20.76, 40.13, 15.53),
        (wld(136, 96, 111), 40.70, 30.43, 49.77, 36.77, 99.60),
        (wld(34, 356, 0), None, None, -508.44, 34.48, None),
        (penta(34, 54, 31, 32, 64, 75), 55.58, 27.65, 57.94, 28.28, 100.00),
        (penta(332, 433, 457, 41, 333, 334), -8.64, 10.33, -9.17, 10.96, 5.05),
        (penta(7895, 8757, 5485, 200, 568, 9999), -21.04, 2.95, -19.01, 2.65, None),
    ],
)
def test_elo_and_its_errors_are_fastchess(
    counts: list[int],
    elo: float | None,
    error: float | None,
    normalized: float,
    normalized_error: float,
    superiority: float | None,
) -> None:
    found = elo_estimate(counts)
    assert (found.normalized, found.normalized_error) == pytest.approx(
        (normalized, normalized_error), rel=0.01
    )
    if elo is not None:
        assert (found.elo, found.elo_error) == pytest.approx((elo, error), rel=0.01)
    if superiority is not None:
        assert 100 * found.superiority == pytest.approx(superiority, abs=0.006)


def test_pairs_are_counted_by_both_verdicts() -> None:
    first, second = [1, 1, 0.5, 0, 0, 1, 0.5], [1, 0, 0.5, 0, 0.5, 0.5, 1]
    assert pair_counts(first, second).tolist() == [1, 1, 2, 2, 1]


def test_folding_a_judge_who_always_takes_the_first_would_invent_certainty() -> None:
    # 90 of 100 pairs are one win a side (position bias): as pairs they have no spread, folded they have all of it.
    pairs, folded = elo_estimate([3, 0, 90, 0, 7]), elo_estimate([96, 0, 104])
    assert pairs.elo == pytest.approx(folded.elo)
    assert pairs.elo_error < 0.5 * folded.elo_error
    # and a judge who says the same in both orders has said it once, not twice
    pairs, folded = elo_estimate([40, 0, 0, 0, 60]), elo_estimate([80, 0, 120])
    assert pairs.elo_error > 1.3 * folded.elo_error


def test_wald_ends_where_he_said() -> None:
    assert sprt_bounds(0.05, 0.05) == pytest.approx((-math.log(19), math.log(19)))


def test_the_ratio_grows_with_the_evidence_and_changes_sign() -> None:
    ratios = [gsprt_llr([10, 20, 40, 20, 10 + more], 0, 50) for more in (0, 10, 30)]
    assert ratios == sorted(ratios)
    assert gsprt_llr([10, 20, 40, 20, 10], -25, 25) == pytest.approx(0.0, abs=1e-6)


def test_counts_that_say_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"counts: got 1 in all; expected at least 2"):
        elo_estimate([0, 1, 0])
    with pytest.raises(ValueError, match="all 5 results are alike: no spread to take an error from"):
        elo_estimate([0, 5, 0])
    with pytest.raises(
        ValueError, match=r"counts: got \[1.0, 2.0\]; expected 3 or 5 of them, 0 or more each"
    ):
        gsprt_llr([1, 2], 0, 5)
    with pytest.raises(ValueError, match="the bayesian model needs single games, with wins and losses among"):
        gsprt_llr([1, 2, 3, 2, 1], 0, 5, model="bayesian")
    with pytest.raises(ValueError, match=r"got \(1,\) and \(1,\) verdicts; expected at least 2 pairs"):
        pair_counts([1], [1])
    with pytest.raises(ValueError, match="verdicts: expected 1 for the challenger, 0.5 for a tie, 0 for the"):
        pair_counts(np.array([1, 2]), np.array([1, 0]))
