"""Intervals and tests against published values, scipy, and what simulated nights say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from nomoat.evaluate.comparison import Estimate
from nomoat.evaluate.stats.intervals import (
    MIN_UNLIKE,
    mcnemar_exact,
    paired_bootstrap_mean,
    paired_bootstrap_ratio,
    paired_difference_of_rates,
    square_and_add,
    tango,
    wilson,
)

BOOTSTRAP = {"confidence": 0.95, "samples": 2000, "seed": 7}


# Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 3.
@pytest.mark.parametrize(
    ("passes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_is_newcombes_table(passes: int, n: int, low: float, high: float) -> None:
    estimate = wilson(passes, n, 0.95)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (low, high)
    assert (estimate.value, estimate.n) == (passes / n, n)


@pytest.mark.parametrize(("passes", "n"), [(3, 7), (50, 50), (0, 1), (119, 120)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_is_scipys(passes: int, n: int, confidence: float) -> None:
    theirs = scipy_stats.binomtest(passes, n).proportion_ci(confidence, method="wilson")
    ours = wilson(passes, n, confidence)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_is_exact_at_floor_and_ceiling() -> None:
    assert wilson(0, 7, 0.95).low == 0.0
    assert wilson(7, 7, 0.95).high == 1.0


@pytest.mark.parametrize(("passes", "n"), [(1, 0), (0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(passes: int, n: int) -> None:
    expected = f"passes: got {passes} of {n}; expected 0 to n, and n at least 1"
    with pytest.raises(ValueError, match=expected):
        wilson(passes, n, 0.95)


def test_a_confidence_in_per_cent_is_refused() -> None:
    with pytest.raises(ValueError, match="confidence: got 95; expected a number between 0 and 1"):
        wilson(1, 2, 95)


# Fagerland, Lydersen and Laake (2017), Statistical Analysis of Contingency Tables, chapter 8 (Cavo et al. 2012:
# 59, 6, 16, 80), as printed by the authors' R package contingencytables: Tango -0.1240 to -0.0054, McNemar's
# exact conditional test P = 0.052479.
def test_tango_and_mcnemar_are_the_published_ones() -> None:
    estimate = tango(16, 6, 161, 0.95)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (-0.1240, -0.0054)
    assert round(estimate.value, 4) == -0.0621
    assert round(mcnemar_exact(16, 6), 6) == 0.052479


@pytest.mark.parametrize("n", [1, 2, 20, 500])
def test_tango_without_a_discordant_pair_has_the_width_that_theory_gives(n: int) -> None:
    z2 = scipy_stats.norm.ppf(0.975) ** 2
    estimate = tango(0, 0, n, 0.95)
    assert (estimate.low, estimate.high) == pytest.approx((-z2 / (n + z2), z2 / (n + z2)), abs=1e-9)


@pytest.mark.parametrize(
    ("only_base", "only_tuned", "n"), [(0, 5, 5), (5, 0, 5), (1, 0, 1), (3, 9, 40), (0, 1, 300)]
)
def test_tango_mirrors_and_holds_its_estimate(only_base: int, only_tuned: int, n: int) -> None:
    estimate, mirrored = tango(only_base, only_tuned, n, 0.95), tango(only_tuned, only_base, n, 0.95)
    assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.high - estimate.low > 0.01
    assert (mirrored.low, mirrored.high) == pytest.approx((-estimate.high, -estimate.low), abs=1e-8)


def test_tango_agrees_with_mcnemars_score_test_on_zero() -> None:
    # (c - b)^2 / (b + c) against 3.84: 3 against 11 rejects equality, 4 against 11 does not.
    assert tango(3, 11, 100, 0.95).low > 0
    assert tango(4, 11, 100, 0.95).low < 0


def test_tango_refuses_impossible_counts() -> None:
    with pytest.raises(ValueError, match="counts: got 3 and 4 of 6; expected 0 or more, together at most n"):
        tango(3, 4, 6, 0.95)


@pytest.mark.parametrize(("only_base", "only_tuned"), [(1, 9), (9, 1), (5, 5), (0, 30), (2, 3)])
def test_mcnemar_is_twice_the_smaller_binomial_tail(only_base: int, only_tuned: int) -> None:
    tail = scipy_stats.binom.cdf(min(only_base, only_tuned), only_base + only_tuned, 0.5)
    assert mcnemar_exact(only_base, only_tuned) == pytest.approx(min(1.0, 2 * tail), rel=1e-12)


def test_mcnemar_without_discordant_pairs_says_nothing() -> None:
    assert mcnemar_exact(0, 0) == 1.0


def _rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses of two models that share what makes a row hard: base nll [N], tokens [N], tuned nll [N]."""
    generator = np.random.default_rng(seed)
    tokens_N = generator.integers(5, 300, n)
    hard_N = generator.normal(2.5, 0.8, n)
    tuned_N = hard_N - 0.3 + generator.normal(0, 0.2, n)
    return hard_N * tokens_N, tokens_N, tuned_N * tokens_N


def test_bootstrap_of_a_mean_is_scipys_but_for_the_small_sample_expansion() -> None:
    difference_N = np.random.default_rng(3).exponential(1.0, 400)
    ours = paired_bootstrap_mean(difference_N, confidence=0.95, samples=20_000, seed=1)
    theirs = scipy_stats.bootstrap(
        (difference_N,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    # At N = 400 the expansion is sqrt(400/399) * 1.9659 / 1.9600 = 1.004 of a half-width of 0.1.
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.004)
    assert ours.value == pytest.approx(difference_N.mean(), rel=1e-12)


def test_a_small_sample_is_expanded_as_hesterberg_does() -> None:
    # His alpha'/2 = Phi(-sqrt(n/(n-1)) t(1-alpha/2, n-1)); for n = 8 at 95 % it is 0.0057 where alpha/2 is 0.025.
    difference_N = np.random.default_rng(4).normal(size=8)
    tail = scipy_stats.norm.cdf(-np.sqrt(8 / 7) * scipy_stats.t.ppf(0.975, 7))
    assert tail == pytest.approx(0.0057, abs=5e-5)
    ours = paired_bootstrap_mean(difference_N, confidence=0.95, samples=40_000, seed=1)
    theirs = scipy_stats.bootstrap(
        (difference_N,),
        np.mean,
        n_resamples=40_000,
        method="percentile",
        confidence_level=1 - 2 * tail,
        rng=np.random.default_rng(2),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.012 * width)


def test_bootstrap_of_a_ratio_with_equal_denominators_is_that_of_the_mean() -> None:
    base_N, _, tuned_N = _rows(40, 1)
    by_ratio = paired_bootstrap_ratio(base_N, np.full(40, 4.0), tuned_N, **BOOTSTRAP).difference
    by_mean = paired_bootstrap_mean((tuned_N - base_N) / 4.0, **BOOTSTRAP)
    assert (by_ratio.low, by_ratio.value, by_ratio.high) == pytest.approx(
        (by_mean.low, by_mean.value, by_mean.high), rel=1e-12
    )


def test_pairing_takes_away_what_makes_a_row_hard_for_both() -> None:
    base_N, tokens_N, tuned_N = _rows(100, 2)
    paired = paired_bootstrap_ratio(base_N, tokens_N, tuned_N, **BOOTSTRAP)
    assert paired.base.value == pytest.approx(base_N.sum() / tokens_N.sum(), rel=1e-12)
    assert paired.difference.value == pytest.approx(paired.tuned.value - paired.base.value, rel=1e-9)
    unpaired = square_and_add(paired.base, paired.tuned)
    assert paired.difference.high - paired.difference.low < 0.4 * (unpaired.high - unpaired.low)


def test_square_and_add_by_hand() -> None:
    # 0.5 -+ hypot(0.3, 0.4) and 0.5 + hypot(0.12, 0.05)
    joined = square_and_add(Estimate(0.2, 0.15, 0.6, 10), Estimate(0.7, 0.4, 0.82, 12))
    assert (joined.value, joined.low, joined.high, joined.n) == pytest.approx((0.5, 0.0, 0.63, 10), abs=1e-12)


def test_same_seed_same_interval_and_memory_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _rows(50, 3)
    first = paired_bootstrap_ratio(*rows, **BOOTSTRAP)
    assert paired_bootstrap_ratio(*rows, **BOOTSTRAP) == first
    monkeypatch.setattr("nomoat.evaluate.stats.intervals._RESAMPLED_VALUES", 50 * 64)
    assert paired_bootstrap_ratio(*rows, **BOOTSTRAP) == first
    assert paired_bootstrap_ratio(*rows, **{**BOOTSTRAP, "seed": 8}) != first


@pytest.mark.parametrize("kind", ["even rows", "uneven rows"])
@pytest.mark.parametrize("n", [3, 8, 30])
def test_the_interval_of_a_loss_holds_the_truth_as_often_as_it_says(kind: str, n: int) -> None:
    """400 nights: a rate under 0.90 has a chance below 1e-4 where coverage is 0.95."""
    generator, truth, held = np.random.default_rng([n, len(kind)]), -0.3, 0
    for night in range(400):
        if kind == "even rows":
            tokens_N = generator.integers(20, 200, n).astype(float)
            noise_N = generator.normal(0, 0.4, n)
        else:  # long rows are steadier
            tokens_N = np.exp(generator.normal(4, 1, n)).round() + 1
            noise_N = generator.normal(0, 0.5, n) / np.sqrt(tokens_N / 50)
        base_N = generator.normal(2.0, 0.5, n) * tokens_N
        tuned_N = base_N + (truth + noise_N) * tokens_N
        estimate = paired_bootstrap_ratio(
            base_N, tokens_N, tuned_N, confidence=0.95, samples=1000, seed=night
        ).difference
        held += estimate.low <= truth <= estimate.high
    assert 0.90 <= held / 400 <= 0.995


def test_bca_would_be_too_narrow_for_few_rows() -> None:
    """Why the expanded percentile: at 8 rows it holds the truth in about 94 nights of 100, BCa in about 87."""
    generator, ours_held, bca_held = np.random.default_rng(9), 0, 0
    for night in range(300):
        difference_N = generator.normal(0, 1, 8)
        ours = paired_bootstrap_mean(difference_N, confidence=0.95, samples=1000, seed=night)
        bca = scipy_stats.bootstrap(
            (difference_N,), np.mean, n_resamples=1000, method="BCa", rng=np.random.default_rng(night)
        ).confidence_interval
        ours_held += ours.low <= 0 <= ours.high
        bca_held += bca.low <= 0 <= bca.high
    assert bca_held / 300 < 0.90 < ours_held / 300


# Shares of prompts that both pass, only tuned, only base, neither.
TABLES = [(0.05, 0.6, 0.01, 0.34), (0.9, 0.04, 0.01, 0.05), (0.3, 0.02, 0.0, 0.68), (0.5, 0.1, 0.1, 0.3)]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("n", [20, 120])
def test_the_interval_of_a_pass_rate_holds_the_truth_as_often_as_it_says(
    table: tuple[float, ...], n: int
) -> None:
    generator, truth, held = np.random.default_rng(5), table[1] - table[2], 0
    for night in range(300):
        _, only_tuned, only_base, _ = map(int, generator.multinomial(n, table))
        estimate = paired_difference_of_rates(
            only_base, only_tuned, n, confidence=0.95, samples=1000, seed=night
        )
        held += estimate.low - 1e-9 <= truth <= estimate.high + 1e-9
    assert held / 300 >= 0.90


def test_a_bootstrap_of_few_discordant_pairs_would_not() -> None:
    """Why `paired_difference_of_rates` leaves the bootstrap below MIN_UNLIKE: a dated finding, kept true."""
    generator, held = np.random.default_rng(6), 0
    for night in range(300):
        only_tuned = int(generator.binomial(50, 0.02))
        if only_tuned == 0:
            continue  # the bootstrap says 0 to 0, which does not hold 0.02
        estimate = paired_bootstrap_mean(
            np.repeat([0.0, 1.0], [50 - only_tuned, only_tuned]), **BOOTSTRAP | {"seed": night}
        )
        held += estimate.low <= 0.02 <= estimate.high
    assert held / 300 < 0.75


@pytest.mark.parametrize(
    ("only_base", "only_tuned", "n", "by_bootstrap"),
    [
        (2, MIN_UNLIKE - 3, 100, False),
        (2, MIN_UNLIKE - 2, 100, True),
        (0, 95, 100, False),  # near the ceiling of the difference: only 5 prompts are unlike
        (0, 0, 100, False),
    ],
)
def test_which_interval_a_pass_rate_gets(only_base: int, only_tuned: int, n: int, by_bootstrap: bool) -> None:
    estimate = paired_difference_of_rates(only_base, only_tuned, n, **BOOTSTRAP)
    assert (estimate != tango(only_base, only_tuned, n, 0.95)) == by_bootstrap
    assert estimate.low < estimate.value < estimate.high


@pytest.mark.parametrize("rows", [2, 5])
def test_a_handful_of_rows_gets_students_interval(rows: int) -> None:
    difference_N = np.random.default_rng(rows).normal(size=rows)
    theirs = scipy_stats.ttest_1samp(difference_N, 0.0).confidence_interval(0.95)
    ours = paired_bootstrap_mean(difference_N, **BOOTSTRAP)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_one_observation_has_no_interval(values: list[float]) -> None:
    expected = rf"difference_N: got shape \({len(values)},\); expected one dimension with at least 2 values"
    with pytest.raises(ValueError, match=expected):
        paired_bootstrap_mean(values, **BOOTSTRAP)


def test_equal_differences_have_no_interval() -> None:
    with pytest.raises(ValueError, match="all 3 differences are 0.25: no spread to estimate from"):
        paired_bootstrap_mean([0.25, 0.25, 0.25], **BOOTSTRAP)


def test_equal_differences_of_losses_get_the_wider_unpaired_interval() -> None:
    base_N, tokens_N, _ = _rows(60, 4)
    same = paired_bootstrap_ratio(base_N, tokens_N, base_N, **BOOTSTRAP)
    assert same.difference == square_and_add(same.base, same.tuned)
    assert same.difference.value == 0
    assert same.difference.low < -0.05
    assert same.difference.high > 0.05


def test_rows_that_are_all_alike_are_refused() -> None:
    expected = "all 4 rows have the same loss per token: no spread to estimate from"
    with pytest.raises(ValueError, match=expected):
        paired_bootstrap_ratio([2.0, 4.0, 2.0, 6.0], [1, 2, 1, 3], [1.0, 1.5, 1.0, 2.0], **BOOTSTRAP)


@pytest.mark.parametrize(
    ("base", "tokens", "tuned", "expected"),
    [
        ([1.0, 2.0], [1, 1], [1.0, 2.0, 3.0], "lengths differ: 2 base, 3 tuned, 2 denominators"),
        ([1.0, 2.0], [1, 0], [1.0, 3.0], "denominators: got 0; expected only positive numbers"),
        ([1.0, float("nan")], [1, 1], [1.0, 3.0], r"numerators_base\[1\]: expected a finite number"),
    ],
)
def test_bad_rows_are_refused(
    base: list[float], tokens: list[int], tuned: list[float], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        paired_bootstrap_ratio(base, tokens, tuned, **BOOTSTRAP)
