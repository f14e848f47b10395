"""Intervals and tests for paired comparisons: numpy and scipy only, every method with its source.

Letters: N independent observations (prompts or rows), B resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize
from scipy import stats as distributions

from nomoat.evaluate.comparison import Estimate

Floats = npt.NDArray[np.float64]

MIN_UNLIKE = 10
"""Fewest prompts that must differ from the commonest outcome before the bootstrap of a pass rate is trusted:
below it, its interval holds the truth far less often than it says (shown in tests/evaluate/test_intervals.py)."""

_RESAMPLED_VALUES = 2_000_000  # values gathered at once: bounds memory to about 50 MB, whatever N and B are


@dataclass(frozen=True)
class PairedEstimates:
    """Both models and tuned minus base, from the same resamples."""

    base: Estimate
    tuned: Estimate
    difference: Estimate


def wilson(passes: float, n: int, confidence: float) -> Estimate:
    """Pass rate with Wilson's score interval; half a pass (a tie) may be among `passes`.

    Source: Wilson (1927), JASA 22:209-212; method 3 of Newcombe (1998), Statistics in Medicine 17:857-872.
    Raises ValueError where n < 1 or passes is not in 0..n.
    """
    if not 0 <= passes <= n or n < 1:
        raise ValueError(f"passes: got {passes:g} of {n}; expected 0 to n, and n at least 1")
    z, rate = normal_quantile(confidence), passes / n
    half = z * math.sqrt(z * z + 4 * n * rate * (1 - rate))
    low, high = ((2 * passes + z * z + side) / (2 * (n + z * z)) for side in (-half, half))
    # At the ends the bound is exactly 0 or 1; rounding must not say 1e-18.
    return Estimate(rate, 0.0 if passes == 0 else low, 1.0 if passes == n else high, n)


def paired_bootstrap_mean(
    difference_N: npt.ArrayLike, *, confidence: float, samples: int, seed: int
) -> Estimate:
    """Mean of per-prompt differences with its bootstrap interval (see `paired_bootstrap_ratio`).

    Raises ValueError where N < 2, or where all differences are equal: their spread cannot be estimated then,
    and an interval of no width would be a lie.
    """
    values_N = finite("difference_N", difference_N)
    ones_N = np.ones_like(values_N)
    (resampled_B,) = _resampled_ratios(values_N[None], ones_N, samples, seed)
    estimate = _interval(values_N, ones_N, resampled_B, confidence)
    if estimate is None:
        raise ValueError(f"all {len(values_N)} differences are {values_N[0]:g}: no spread to estimate from")
    return estimate


def paired_bootstrap_ratio(
    numerators_base: npt.ArrayLike,
    denominators: npt.ArrayLike,
    numerators_tuned: npt.ArrayLike,
    *,
    confidence: float,
    samples: int,
    seed: int,
) -> PairedEstimates:
    """Token-weighted mean loss of both models: sum of row losses over sum of row tokens, rows [N] resampled.

    Rows are the independent unit (tokens of one row are not), and one draw of rows serves both models, so
    what makes a row hard for both cancels in the difference.

    Interval: the expanded percentile bootstrap, Hesterberg (2015), The American Statistician 69:371-386,
    section 5.3. Preferred to BCa (Efron 1987), which is too narrow for few rows (shown in
    tests/evaluate/test_intervals.py). Under six rows (at 95 %) no percentile interval can reach its confidence;
    there it is Student's t on the linearised ratio (Cochran 1977, Sampling Techniques, section 6.4).

    Where every row differs by the same loss per token, the difference gets the interval that two unpaired
    samples would have: square-and-add, Zou and Donner (2008), Statistics in Medicine 27:1693-1702.

    Raises ValueError where N < 2, lengths differ, a value is not finite, a denominator is not positive, or
    all rows are alike for one model, so that there is no spread at all to estimate from.
    """
    base_N, tuned_N = (
        finite("numerators_base", numerators_base),
        finite("numerators_tuned", numerators_tuned),
    )
    tokens_N = finite("denominators", denominators)
    if not len(base_N) == len(tuned_N) == len(tokens_N):
        raise ValueError(
            f"lengths differ: {len(base_N)} base, {len(tuned_N)} tuned, {len(tokens_N)} denominators"
        )
    if tokens_N.min() <= 0:
        raise ValueError(f"denominators: got {tokens_N.min():g}; expected only positive numbers")
    columns = np.stack([base_N, tuned_N, tuned_N - base_N])
    resampled = _resampled_ratios(columns, tokens_N, samples, seed)
    base, tuned, difference = (
        _interval(column_N, tokens_N, resampled_B, confidence)
        for column_N, resampled_B in zip(columns, resampled, strict=True)
    )
    if base is None or tuned is None:
        raise ValueError(f"all {len(base_N)} rows have the same loss per token: no spread to estimate from")
    return PairedEstimates(base, tuned, difference or square_and_add(base, tuned))


def paired_difference_of_rates(
    only_base: int, only_tuned: int, n: int, *, confidence: float, samples: int, seed: int
) -> Estimate:
    """Difference of two pass rates on the same n prompts (tuned minus base), with its interval.

    The paired bootstrap where at least `MIN_UNLIKE` prompts differ from the commonest outcome (only base
    passes, only tuned passes, or both do alike); else, and at ceiling or floor, Tango's score interval.
    """
    alike = n - only_base - only_tuned
    if n - max(only_base, only_tuned, alike) < MIN_UNLIKE:
        return tango(only_base, only_tuned, n, confidence)
    difference_N = np.repeat([-1.0, 0.0, 1.0], [only_base, alike, only_tuned])
    return paired_bootstrap_mean(difference_N, confidence=confidence, samples=samples, seed=seed)


def tango(only_base: int, only_tuned: int, n: int, confidence: float) -> Estimate:
    """Score interval of a difference of paired proportions (tuned minus base): every difference that the
    score test does not reject. Never of zero width; with no discordant pair it is +-z^2/(n + z^2).

    Source: Tango (1998), Statistics in Medicine 17:891-908, equations 13-15.
    Raises ValueError where a count is negative, n < 1, or the counts exceed n.
    """
    if min(only_base, only_tuned) < 0 or n < 1 or only_base + only_tuned > n:
        raise ValueError(
            f"counts: got {only_base} and {only_tuned} of {n}; expected 0 or more, together at most n"
        )
    z, value = normal_quantile(confidence), (only_tuned - only_base) / n

    def score(delta: float) -> float:
        linear = -(only_base + only_tuned) + (2 * n - only_tuned + only_base) * delta
        constant = -only_base * delta * (1 - delta)
        only_base_rate = (math.sqrt(max(0.0, linear * linear - 8 * n * constant)) - linear) / (4 * n)
        variance = n * (2 * only_base_rate + delta * (1 - delta))
        return (only_tuned - only_base - n * delta) / math.sqrt(max(variance, 1e-300))

    nearly = 1 - 1e-12  # at exactly +-1 the variance is 0
    low = -1.0 if score(-nearly) < z else optimize.brentq(lambda delta: score(delta) - z, -nearly, value)
    high = 1.0 if score(nearly) > -z else optimize.brentq(lambda delta: score(delta) + z, value, nearly)
    return Estimate(value, float(low), float(high), n)


def square_and_add(base: Estimate, tuned: Estimate) -> Estimate:
    """Tuned minus base from their two intervals, as if unpaired: too wide for pairs, never too narrow."""
    value = tuned.value - base.value
    low = value - math.hypot(tuned.value - tuned.low, base.high - base.value)
    high = value + math.hypot(tuned.high - tuned.value, base.value - base.low)
    return Estimate(value, low, high, min(base.n, tuned.n))


def mcnemar_exact(only_base: int, only_tuned: int) -> float:
    """Two-sided p-value that the prompts which only one model passes fall evenly; 1 where there are none.

    Source: McNemar (1947), Psychometrika 12:153-157, in its exact conditional form.
    """
    discordant = only_base + only_tuned
    if discordant == 0:
        return 1.0
    return float(distributions.binomtest(only_tuned, discordant, 0.5).pvalue)


def normal_quantile(confidence: float) -> float:
    """How many standard deviations a two-sided interval of this confidence reaches. ValueError outside (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: got {confidence:g}; expected a number between 0 and 1")
    return float(distributions.norm.ppf((1 + confidence) / 2))


def finite(name: str, values: npt.ArrayLike) -> Floats:
    """The values as float64 [N]. ValueError where N < 2 or one is not finite: nothing has an error of zero."""
    array_N = np.asarray(values, dtype=np.float64)
    if array_N.ndim != 1 or len(array_N) < 2:
        raise ValueError(f"{name}: got shape {array_N.shape}; expected one dimension with at least 2 values")
    if not np.isfinite(array_N).all():
        raise ValueError(f"{name}[{int(np.argmin(np.isfinite(array_N)))}]: expected a finite number")
    return array_N


def _resampled_ratios(columns: Floats, denominators_N: Floats, samples: int, seed: int) -> Floats:
    """Ratio of sums of each column over B draws of N rows with replacement, shape [columns, B]."""
    n, generator = len(denominators_N), np.random.default_rng(seed)
    ratios = np.empty((len(columns), samples))
    step = max(1, _RESAMPLED_VALUES // n)
    for start in range(0, samples, step):
        rows = generator.integers(0, n, size=(min(step, samples - start), n))
        totals = denominators_N[rows].sum(axis=1)
        for column_N, ratio_B in zip(columns, ratios, strict=True):
            ratio_B[start : start + step] = column_N[rows].sum(axis=1) / totals
    return ratios


def _interval(
    numerators_N: Floats, denominators_N: Floats, resampled_B: Floats, confidence: float
) -> Estimate | None:
    """The ratio of sums with its interval; None where all rows have the same ratio."""
    n, value = len(numerators_N), float(numerators_N.sum() / denominators_N.sum())
    residual_N = numerators_N - value * denominators_N
    if np.abs(residual_N).max() <= 1e-12 * np.abs(numerators_N).max():
        return None
    # A bootstrap of n rows has the spread of n, not n - 1, and normal, not t, tails; this undoes both.
    t = float(distributions.t.ppf((1 + confidence) / 2, n - 1))
    if 2.0 ** (1 - n) > 1 - confidence:  # the whole range of n rows holds the median with 1 - 2^(1 - n)
        half = t * math.sqrt(float((residual_N**2).sum()) * n / (n - 1)) / float(denominators_N.sum())
        return Estimate(value, value - half, value + half, n)
    tail = float(distributions.norm.cdf(-math.sqrt(n / (n - 1)) * t))
    low, high = np.quantile(resampled_B, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), n)
