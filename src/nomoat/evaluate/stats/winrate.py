"""Win rate of one model over another from votes: with ties, clustered by prompt, and freed of length and style.

Letters: N votes · C clusters (prompts) · F style features.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import optimize, special
from scipy import stats as distributions

from nomoat.evaluate.comparison import Estimate
from nomoat.evaluate.stats.intervals import Floats, finite, wilson

STYLE_RIDGE = 0.5
"""Penalty on the style coefficients: FastChat's (monitor/rating_systems.py), half its square times this."""


def cluster_sums(values: Floats, clusters_N: npt.ArrayLike) -> Floats:
    """Sums of the rows of `values` [N] or [N, K] over each cluster: [C] or [C, K]."""
    _, where_N = np.unique(np.asarray(clusters_N), return_inverse=True)
    sums = np.zeros((int(where_N.max()) + 1, *values.shape[1:]))
    np.add.at(sums, where_N, values)
    return sums


def standard_error(values: npt.ArrayLike, clusters: npt.ArrayLike | None = None) -> float:
    """Standard error of a mean of N values; those of one cluster (prompt, conversation) may depend on each other.

    Without clusters it is sd(n - 1) / sqrt(n). Source: Miller (2024), arXiv:2411.00640, section 2.2, with the
    factor C / (C - 1) of Cameron and Miller (2015), Journal of Human Resources 50:317-372.
    Raises ValueError where there are fewer than two values or fewer than two clusters.
    """
    values_N = finite("values", values)
    clusters_N = _clusters(clusters, len(values_N))
    sums_C = cluster_sums(values_N - values_N.mean(), clusters_N)
    return math.sqrt(len(sums_C) / (len(sums_C) - 1) * float((sums_C**2).sum())) / len(values_N)


def win_rate(scores: npt.ArrayLike, clusters: npt.ArrayLike | None = None, *, confidence: float) -> Estimate:
    """Mean score (win 1, tie 1/2, loss 0) with Student's t interval on C - 1 degrees of freedom, within [0, 1].

    Where all scores are alike there is no spread to take an error from; the interval is then Wilson's for C votes,
    and never of no width. Raises ValueError for a score outside [0, 1] and as `standard_error` does.
    """
    scores_N = _scores(scores)
    clusters_N = _clusters(clusters, len(scores_N))
    count, value = len(np.unique(clusters_N)), float(scores_N.mean())
    error = standard_error(scores_N, clusters_N)
    if error == 0:
        return wilson(value * count, count, confidence)
    half = float(distributions.t.ppf((1 + confidence) / 2, count - 1)) * error
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), count)


def style_difference(left: npt.ArrayLike, right: npt.ArrayLike) -> Floats:
    """How much longer (or richer in lists, headings ...) the left answer is than the right: (l - r) / (l + r + 1).

    Source: FastChat's style control (monitor/rating_systems.py).
    """
    left_N, right_N = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    return (left_N - right_N) / (left_N + right_N + 1)


def controlled_win_rate(
    scores: npt.ArrayLike,
    differences: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    confidence: float,
) -> Estimate:
    """The win rate that would be found between answers of the same length and style.

    A logistic regression of the score on style differences [N, F] (left minus right, scaled to spread 1 but not
    centred, so that 0 stays "alike"), predicted at no difference; its interval is the clustered sandwich's on the
    scale of the logit. Sources: the prediction at no difference is Dubois et al. (2024), arXiv:2404.04475; the
    features and the ridge (on the coefficients of style only) are FastChat's style control; ties as half a win are
    Papke and Wooldridge (1996), Journal of Applied Econometrics 11:619-632.
    Raises ValueError as `win_rate`, and where all scores are alike: style cannot be told from strength then.
    """
    scores_N = _scores(scores)
    style_NF = np.asarray(differences, dtype=np.float64).reshape(len(scores_N), -1)
    clusters_N = _clusters(clusters, len(scores_N))
    if not np.isfinite(style_NF).all():
        raise ValueError("differences: expected finite numbers only")
    if np.ptp(scores_N) == 0:
        raise ValueError(
            f"all {len(scores_N)} scores are {scores_N[0]:g}: style cannot be told from strength"
        )
    scale_F = np.sqrt((style_NF**2).mean(axis=0))
    design = np.column_stack([np.ones(len(scores_N)), style_NF / np.where(scale_F > 0, scale_F, 1.0)])
    ridge = np.full(design.shape[1], STYLE_RIDGE)
    ridge[0] = 0.0

    def loss(beta: Floats) -> tuple[float, Floats]:
        logits_N = design @ beta
        value = np.logaddexp(0, logits_N).sum() - scores_N @ logits_N + 0.5 * (ridge * beta) @ beta
        return float(value), design.T @ (special.expit(logits_N) - scores_N) + ridge * beta

    beta = optimize.minimize(loss, np.zeros(design.shape[1]), jac=True, method="BFGS", tol=1e-9).x
    rate_N = special.expit(design @ beta)
    bread = np.linalg.inv((design * (rate_N * (1 - rate_N))[:, None]).T @ design + np.diag(ridge))
    sums = cluster_sums(design * (scores_N - rate_N)[:, None], clusters_N)
    count = len(sums)
    covariance = bread @ (count / (count - 1) * sums.T @ sums) @ bread
    half = float(distributions.t.ppf((1 + confidence) / 2, count - 1)) * math.sqrt(covariance[0, 0])
    value, low, high = (float(special.expit(beta[0] + side)) for side in (0.0, -half, half))
    return Estimate(value, low, high, count)


def _scores(scores: npt.ArrayLike) -> Floats:
    scores_N = finite("scores", scores)
    if scores_N.min() < 0 or scores_N.max() > 1:
        wrong = scores_N[(scores_N < 0) | (scores_N > 1)][0]
        raise ValueError(f"scores: got {wrong:g}; expected win 1, tie 0.5, loss 0")
    return scores_N


def _clusters(clusters: npt.ArrayLike | None, n: int) -> npt.NDArray[np.generic]:
    clusters_N = np.arange(n) if clusters is None else np.asarray(clusters)
    if clusters_N.shape != (n,):
        raise ValueError(f"clusters: got shape {clusters_N.shape}; expected one for each of the {n} values")
    if len(np.unique(clusters_N)) < 2:
        raise ValueError(f"clusters: all {n} values are of one; expected at least 2 for an error")
    return clusters_N
