"""A judge (or a voter) against others: agreement beyond chance, favourite side, favourite length, and what many
judge's votes and few human votes say together. Labels are numbers or texts.

Letters: N items · R raters · L labels · B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats as distributions

from nomoat.evaluate.comparison import Estimate
from nomoat.evaluate.stats.intervals import Floats, finite, normal_quantile, wilson
from nomoat.evaluate.stats.winrate import standard_error

LONGEST, FIRST, COIN = "longest", "always first", "coin"
"""The baselines that stand beside every judge: a judge who does not beat them has read nothing."""
_ROUNDING = 1e-12  # no variance, but for rounding


def agreement(a: npt.ArrayLike, b: npt.ArrayLike, confidence: float) -> Estimate:
    """Share of items on which two raters say the same, with Wilson's interval: of a judge asked twice with the answers
    swapped, its consistency. ValueError where N < 2."""
    a_N, b_N = _labels(a, b)
    return wilson(int((a_N == b_N).sum()), len(a_N), confidence)


def cohens_kappa(a: npt.ArrayLike, b: npt.ArrayLike, confidence: float) -> Estimate:
    """Agreement of two raters beyond chance: 1 is always, 0 no more often than their labels' shares would give.

    Sources: Cohen (1960), Educational and Psychological Measurement 20:37-46; the standard error is that of
    Fleiss, Cohen and Everitt (1969), Psychological Bulletin 72:323-327.
    Raises ValueError where N < 2, both always give one and the same label (chance alone agrees then), or there is no
    spread to take an error from: one of them always gives the same, or they agree on everything.
    """
    a_N, b_N = _labels(a, b)
    labels = np.unique(np.concatenate([a_N, b_N]))
    table = np.zeros((len(labels), len(labels)))
    np.add.at(table, (np.searchsorted(labels, a_N), np.searchsorted(labels, b_N)), 1 / len(a_N))
    rows_L, columns_L = table.sum(axis=1), table.sum(axis=0)
    observed, expected = float(np.trace(table)), float(rows_L @ columns_L)
    if len(labels) == 1:
        raise ValueError(f"both raters always say {labels[0]!s}: nothing is left beyond chance")
    kappa, doubt = (observed - expected) / (1 - expected), 1 - (observed - expected) / (1 - expected)
    agree_L = np.diag(table)
    crossed = (columns_L[:, None] + rows_L[None, :]) ** 2
    variance = float((agree_L * (1 - (rows_L + columns_L) * doubt) ** 2).sum())
    variance += doubt**2 * float((table * crossed).sum() - (agree_L * np.diag(crossed)).sum())
    variance = (variance - (kappa - expected * doubt) ** 2) / (len(a_N) * (1 - expected) ** 2)
    if variance < _ROUNDING:
        raise ValueError(
            "one rater always says the same, or they agree on everything: an error cannot be told"
        )
    half = normal_quantile(confidence) * math.sqrt(variance)
    return Estimate(kappa, max(-1.0, kappa - half), min(1.0, kappa + half), len(a_N))


def krippendorffs_alpha(
    ratings: Sequence[Sequence[object | None]], *, confidence: float, samples: int = 2000, seed: int = 0
) -> Estimate:
    """Agreement of any number of raters beyond chance, on nominal labels [R, N]; None where a rater said nothing.

    Sources: Krippendorff (2019), Content Analysis, 4th edition, chapter 12; the interval is the percentile
    bootstrap of items (Zapf et al. 2016, BMC Medical Research Methodology 16:93), not Krippendorff's own of
    coincidences, which takes the answers of one item for independent.
    Raises ValueError where fewer than two items have two labels, all labels are the same, or the raters agree on
    everything: resampled, that has no spread.
    """
    if len({len(row) for row in ratings}) != 1:
        raise ValueError("ratings: expected as many labels of every rater, None where there is none")
    labels = sorted({label for row in ratings for label in row if label is not None}, key=str)
    counts = np.array([[column.count(label) for label in labels] for column in zip(*ratings, strict=True)])
    counts = counts[counts.sum(axis=1) >= 2].astype(np.float64) if labels else np.empty((0, 0))
    if len(counts) < 2:
        raise ValueError(f"got {len(counts)} items with two labels; expected at least 2")
    if (counts.sum(axis=0) > 0).sum() == 1:
        raise ValueError("all labels are the same: nothing is left beyond chance")
    value = _alpha(counts)
    draws = np.random.default_rng(seed).integers(0, len(counts), size=(samples, len(counts)))
    resampled = np.array([_alpha(counts[draw]) for draw in draws])
    low, high = np.nanquantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    if high - low < _ROUNDING:
        raise ValueError("the raters agree on everything: an error cannot be told")
    return Estimate(value, float(low), float(high), len(counts))


def position_bias(first_scores: npt.ArrayLike, confidence: float) -> Estimate:
    """How much oftener than half the first answer is preferred, -1/2 to 1/2, from the score of the answer shown
    first (1, 1/2, 0). Of votes asked in both orders, or with sides drawn at random, so that strength cancels."""
    scores_N = finite("first_scores", first_scores)
    found = wilson(float(scores_N.sum()), len(scores_N), confidence)
    return Estimate(found.value - 0.5, found.low - 0.5, found.high - 0.5, found.n)


def verbosity_bias(
    judge: npt.ArrayLike, human: npt.ArrayLike, longer: npt.ArrayLike, confidence: float
) -> Estimate:
    """How much oftener than people the judge prefers the longer answer, paired by item, -1 to 1.

    All three hold the score of the same (say the left) answer; `longer` is 1 where it is the longer one, 0 where
    the other is. Source: the idea of Saito et al. (2023), arXiv:2310.10076, as a paired difference.
    Raises ValueError where N < 2, or judge and people differ nowhere: there is no spread to take an error from.
    """
    judge_N, human_N, longer_N = (
        finite(name, values) for name, values in (("judge", judge), ("human", human), ("longer", longer))
    )
    sign_N = 2 * longer_N - 1
    difference_N = sign_N * (judge_N - human_N)
    error = standard_error(difference_N)
    if error == 0:
        raise ValueError("judge and people differ on every item alike: no spread to take an error from")
    value = float(difference_N.mean())
    half = float(distributions.t.ppf((1 + confidence) / 2, len(difference_N) - 1)) * error
    return Estimate(value, value - half, value + half, len(difference_N))


def baselines(human: npt.ArrayLike, first_is_longer: npt.ArrayLike, confidence: float) -> dict[str, Estimate]:
    """Share of decided human votes that each baseline agrees with. `human`: score of the answer shown first;
    `first_is_longer`: 1, 1/2 (alike) or 0. Ties of people are left out; where lengths are alike, longest is a coin.

    Raises ValueError where fewer than two votes are decided.
    """
    human_N, longer_N = finite("human", human), finite("first_is_longer", first_is_longer)
    decided_N = human_N != 0.5
    n = int(decided_N.sum())
    if n < 2:
        raise ValueError(f"got {n} decided votes; expected at least 2")
    human_N, longer_N = human_N[decided_N], longer_N[decided_N]
    agrees = {
        LONGEST: float((1 - np.abs(human_N - longer_N)).sum()),
        FIRST: float(human_N.sum()),
        COIN: n / 2,
    }
    return {name: wilson(count, n, confidence) for name, count in agrees.items()}


def prediction_powered(
    human: npt.ArrayLike, judge_on_same: npt.ArrayLike, judge_alone: npt.ArrayLike, confidence: float
) -> Estimate:
    """Mean human score from few human votes and many judge's: λ·mean(judge alone) + mean(human - λ·judge on the same).

    Unbiased whatever the judge says, if the human votes are a random part of all; λ in [0, 1] is estimated so that a
    useless judge gets no weight. Sources: Angelopoulos et al. (2023), Science 382:669-674; λ is that of Angelopoulos,
    Duchi and Zrnic (2023), arXiv:2311.01453 (power tuning). `n` is the number of human votes.
    Raises ValueError where there are fewer than two of either, or no spread at all.
    """
    human_N, same_N = finite("human", human), finite("judge_on_same", judge_on_same)
    alone_N = finite("judge_alone", judge_alone)
    if len(human_N) != len(same_N):
        raise ValueError(
            f"lengths differ: {len(human_N)} human votes, {len(same_N)} of the judge on the same"
        )
    n, many = len(human_N), len(alone_N)
    spread = float(np.concatenate([same_N, alone_N]).var(ddof=1))
    weight = 0.0
    if spread > 0:
        weight = float(np.cov(human_N, same_N)[0, 1]) / ((1 + n / many) * spread)
    weight = min(1.0, max(0.0, weight))
    rest_N = human_N - weight * same_N
    variance = weight**2 * float(alone_N.var(ddof=1)) / many + float(rest_N.var(ddof=1)) / n
    if variance == 0:
        raise ValueError("all votes are alike: no spread to take an error from")
    value = weight * float(alone_N.mean()) + float(rest_N.mean())
    half = float(distributions.t.ppf((1 + confidence) / 2, n - 1)) * math.sqrt(variance)
    return Estimate(value, value - half, value + half, n)


def _alpha(counts_NL: Floats) -> float:
    """1 - observed / expected disagreement; NaN where a resample holds one label only."""
    said_N = counts_NL.sum(axis=1)
    same = (counts_NL * (counts_NL - 1) / (said_N - 1)[:, None]).sum()
    total, totals_L = said_N.sum(), counts_NL.sum(axis=0)
    expected = total - (totals_L * (totals_L - 1)).sum() / (total - 1)
    return float("nan") if expected == 0 else float(1 - (total - same) / expected)


def _labels(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]:
    a_N, b_N = np.asarray(a), np.asarray(b)
    if a_N.shape != b_N.shape or a_N.ndim != 1 or len(a_N) < 2:
        raise ValueError(f"got {a_N.shape} and {b_N.shape} labels; expected as many of both, at least 2")
    return a_N, b_N
