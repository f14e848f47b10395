"""Verdicts asked in both orders, kept as pairs, and game testing's sequential probability ratio test on them.

A judge who is asked twice, with the answers swapped, gives what a chess engine's match gives with colours swapped: a
pair whose two results depend on each other. Folded into wins and losses before the test, that dependence is lost and
the error is wrong; as one of LL, LD, WL, DD, WD, WW (loss, draw, win of the challenger) it is kept. A pair scores
0, 1/4, 1/2, 3/4 or 1: five outcomes, the "pentanomial".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize
from scipy import stats as distributions

from nomoat.evaluate.stats.intervals import Floats, normal_quantile

Model = Literal["logistic", "normalized", "bayesian"]

PAIR_SCORES = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
GAME_SCORES = np.array([0.0, 0.5, 1.0])
NELO = 800 / math.log(10)
"""Points of normalised Elo in a standard deviation of one game's score."""
_NONE_SEEN = 1e-3  # what an outcome that was never seen counts as: fishtest's and fastchess' choice


@dataclass(frozen=True)
class EloEstimate:
    """Elo difference with half its interval, the same normalised by the spread of scores, and the likelihood
    of superiority, 0 to 1."""

    elo: float
    elo_error: float
    normalized: float
    normalized_error: float
    superiority: float


def pair_counts(first: npt.ArrayLike, second: npt.ArrayLike) -> Floats:
    """Counts of the five pair scores [5] from the challenger's score (1, 1/2, 0) in each order, pair by pair.

    Raises ValueError where lengths differ, a score is none of the three, or fewer than two pairs are given.
    """
    first_N, second_N = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first_N.shape != second_N.shape or first_N.ndim != 1 or len(first_N) < 2:
        raise ValueError(f"got {first_N.shape} and {second_N.shape} verdicts; expected at least 2 pairs")
    if not (np.isin(first_N, GAME_SCORES).all() and np.isin(second_N, GAME_SCORES).all()):
        raise ValueError("verdicts: expected 1 for the challenger, 0.5 for a tie, 0 for the other")
    return np.bincount(np.rint(2 * (first_N + second_N)).astype(int), minlength=5).astype(np.float64)


def elo_estimate(counts: npt.ArrayLike, *, confidence: float = 0.95) -> EloEstimate:
    """Elo of the challenger from counts of losses, draws, wins [3] or of the five pair scores [5].

    Source: Van den Bergh, "Comments on normalized Elo" (cantate.be/Fishtest/normalized_elo_practical.pdf), with
    fastchess' symmetric half interval. Raises ValueError for fewer than two games or pairs, or where all came
    out alike: there is no spread to take an error from.
    """
    counts_K, scores_K = _counted(counts)
    total = float(counts_K.sum())
    mean, variance = _moments(counts_K / total, scores_K)
    if variance == 0:
        raise ValueError(f"all {total:g} results are alike: no spread to take an error from")
    half = normal_quantile(confidence) * math.sqrt(variance / total)
    spread = math.sqrt(variance * (2 if len(counts_K) == 5 else 1))  # of one game, not of a pair's mean
    low, high = (_elo(min(max(mean + side, 1e-12), 1 - 1e-12)) for side in (-half, half))
    return EloEstimate(
        _elo(mean),
        (high - low) / 2,
        (mean - 0.5) / spread * NELO,
        half / spread * NELO,
        float(distributions.norm.cdf((mean - 0.5) / math.sqrt(variance / total))),
    )


def gsprt_llr(counts: npt.ArrayLike, elo0: float, elo1: float, *, model: Model = "normalized") -> float:
    """Generalised log-likelihood ratio of "the challenger is elo1 stronger" against elo0, from counts [3] or [5].

    N Σ p̂ ln(p̂₁/p̂₀), p̂₀ and p̂₁ being the likeliest distributions that have the mean (logistic, bayesian) or the
    mean in standard deviations (normalized) of each hypothesis. Source: Van den Bergh, "Comments on normalized
    Elo", propositions 1.1 and section 4.1. Compare with `sprt_bounds`. Its error rates are approximate, unlike
    those of `sequential`: it is here for comparison. Raises ValueError for fewer than two games or pairs, and for
    the bayesian model of pairs or without both wins and losses.
    """
    counts_K, scores_K = _counted(counts)
    is_pairs = len(counts_K) == 5
    kept_K = np.where(counts_K == 0, _NONE_SEEN, counts_K)
    share_K = kept_K / kept_K.sum()
    if model == "normalized":
        per_game = math.sqrt(2) if is_pairs else 1.0
        fitted = [_with_t(share_K, scores_K, per_game * elo / NELO) for elo in (elo0, elo1)]
    else:
        if model == "bayesian" and (is_pairs or counts_K[0] == 0 or counts_K[2] == 0):
            raise ValueError("the bayesian model needs single games, with wins and losses among them")
        score = _bayesian_score(share_K) if model == "bayesian" else _score
        fitted = [_with_mean(share_K, scores_K, score(elo)) for elo in (elo0, elo1)]
    return float(kept_K.sum() * (share_K @ np.log(fitted[1] / fitted[0])))


def sprt_bounds(alpha: float, beta: float) -> tuple[float, float]:
    """Where Wald's test ends: at the first it keeps the champion, at the second it takes the challenger."""
    return math.log(beta / (1 - alpha)), math.log((1 - beta) / alpha)


def _counted(counts: npt.ArrayLike) -> tuple[Floats, Floats]:
    counts_K = np.asarray(counts, dtype=np.float64)
    if counts_K.shape not in ((3,), (5,)) or (counts_K < 0).any():
        raise ValueError(f"counts: got {counts_K.tolist()}; expected 3 or 5 of them, 0 or more each")
    if counts_K.sum() < 2:
        raise ValueError(f"counts: got {counts_K.sum():g} in all; expected at least 2")
    return counts_K, GAME_SCORES if len(counts_K) == 3 else PAIR_SCORES


def _elo(score: float) -> float:
    return 400 * math.log10(score / (1 - score))


def _score(elo: float) -> float:
    return 1 / (1 + 10 ** (-elo / 400))


def _bayesian_score(share_K: Floats) -> Callable[[float], float]:
    """Rao and Kupper's model: a draw is a difference that stays under `drawelo` points."""
    loss, _, win = share_K
    drawelo = 200 * math.log10((1 - loss) / loss * (1 - win) / win)

    def score(elo: float) -> float:
        win, loss = _score(elo - drawelo), _score(-elo - drawelo)
        return win + (1 - win - loss) / 2

    return score


def _moments(share_K: Floats, scores_K: Floats) -> tuple[float, float]:
    mean = float(share_K @ scores_K)
    return mean, float(share_K @ (scores_K - mean) ** 2)


def _with_mean(share_K: Floats, scores_K: Floats, mean: float) -> Floats:
    """The likeliest distribution with this mean: share / (1 + θ(score - mean)), θ from the constraint."""
    return share_K / (1 + _theta(share_K, scores_K - mean) * (scores_K - mean))


def _with_t(share_K: Floats, scores_K: Floats, t: float) -> Floats:
    """The likeliest distribution whose mean lies t of its standard deviations above 1/2: a fixed point."""
    fitted_K = np.full(len(share_K), 1 / len(share_K))
    for _ in range(100):
        mean, variance = _moments(fitted_K, scores_K)
        deviation = math.sqrt(variance)
        slope_K = scores_K - 0.5 - 0.5 * t * deviation * (1 + ((scores_K - mean) / deviation) ** 2)
        before_K, fitted_K = fitted_K, share_K / (1 + _theta(share_K, slope_K) * slope_K)
        if np.abs(fitted_K - before_K).max() < 1e-9:
            break
    return fitted_K


def _theta(share_K: Floats, slope_K: Floats) -> float:
    """The θ at which the mean of slope / (1 + θ slope) is 0: between the poles it falls from +∞ to -∞."""
    low, high = -1 / slope_K.max(), -1 / slope_K.min()
    margin = 1e-12 * (high - low)
    return float(
        optimize.brentq(
            lambda theta: float(share_K @ (slope_K / (1 + theta * slope_K))), low + margin, high - margin
        )
    )
