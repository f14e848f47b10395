"""Ratings of several models from votes between pairs of them: Bradley-Terry, Davidson's ties, online Elo.

Letters: N votes · M models · K free parameters · C clusters (prompts) · B resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy import stats as distributions
from scipy.special import expit

from nomoat.evaluate.stats.intervals import Floats
from nomoat.evaluate.stats.winrate import cluster_sums

Ints = npt.NDArray[np.int64]
Ties = Literal["half", "davidson"]

ELO = 400 / math.log(10)
"""Points of Elo's scale in a natural logarithm of odds."""
RIDGE_OF_A_RESAMPLE = 1e-6
"""In a resample a model may win every vote, and its rating has no end; this stops it, thousands of points away."""
_STEPS, _CLOSE = 100, 1e-10


@dataclass(frozen=True)
class Battles:
    """Votes between models 0..M-1: `score_N` is 1 where the left one won, 0 where the right one did, 1/2 for a tie.
    Votes of one cluster (a prompt) may depend on each other; by default each stands alone."""

    left_N: Ints
    right_N: Ints
    score_N: Floats
    cluster_N: Ints
    models: int

    @staticmethod
    def of(
        left: npt.ArrayLike,
        right: npt.ArrayLike,
        scores: npt.ArrayLike,
        *,
        models: int,
        clusters: npt.ArrayLike | None = None,
    ) -> Battles:
        """Check and number them. Raises ValueError for fewer than two votes, an unknown model, a score that is
        no win, tie or loss, and a vote of a model against itself."""
        left_N, right_N = np.asarray(left, dtype=np.int64), np.asarray(right, dtype=np.int64)
        score_N = np.asarray(scores, dtype=np.float64)
        cluster_N = np.arange(len(score_N)) if clusters is None else np.asarray(clusters)
        if not left_N.shape == right_N.shape == score_N.shape == cluster_N.shape or score_N.ndim != 1:
            raise ValueError(f"lengths differ: {left_N.shape}, {right_N.shape}, {score_N.shape}")
        if len(score_N) < 2:
            raise ValueError(f"got {len(score_N)} votes; expected at least 2")
        if not np.isin(score_N, (0.0, 0.5, 1.0)).all():
            raise ValueError("scores: expected win 1, tie 0.5 or loss 0 for the left model")
        if min(left_N.min(), right_N.min()) < 0 or max(left_N.max(), right_N.max()) >= models:
            raise ValueError(f"models: expected numbers from 0 to {models - 1}")
        if (left_N == right_N).any():
            raise ValueError("a vote between a model and itself says nothing of strength")
        numbered_N = np.unique(cluster_N, return_inverse=True)[1].astype(np.int64)
        return Battles(left_N, right_N, score_N, numbered_N, models)


@dataclass(frozen=True)
class Ratings:
    """Points above the anchor on Elo's scale (400 points are odds of 10 to 1), `low_M` and `high_M` their
    interval; the anchor's own are exactly 0. `tie` is Davidson's ν, None where ties are half wins."""

    points_M: Floats
    low_M: Floats
    high_M: Floats
    covariance_MM: Floats
    tie: float | None


def comparable(battles: Battles) -> Ints:
    """Which models can be rated together [M]: those with the same number have beaten (or tied) each other, directly
    or through others, in both directions. Across numbers a rating would be infinite or arbitrary.

    Source: the condition of Ford (1957), American Mathematical Monthly 64:28-33.
    """
    beaten = sparse.coo_array(
        (np.ones(2 * len(battles.score_N)), _edges(battles)), shape=(battles.models, battles.models)
    )
    return sparse.csgraph.connected_components(beaten, connection="strong")[1].astype(np.int64)


def bradley_terry(
    battles: Battles, *, anchor: int = 0, ties: Ties = "half", confidence: float = 0.95
) -> Ratings:
    """Ratings by maximum likelihood, with the sandwich's interval clustered by `cluster_N`, t on C - 1.

    `half`: P(left wins) = σ(θl - θr), a tie is half of each (Bradley and Terry 1952, Biometrika 39:324-345).
    `davidson`: P(left), P(right), P(tie) ∝ πl, πr, ν√(πl πr), π = exp θ (Davidson 1970, JASA 65:317-328).
    The sandwich is H⁻¹GH⁻¹ (White 1982, Econometrica 50:1-25), as lmarena's arena-rank uses it.
    Raises ValueError where the models are not all `comparable`, or all votes are of one cluster.
    """
    groups_M = comparable(battles)
    if len(np.unique(groups_M)) > 1:
        outside = int(np.flatnonzero(groups_M != groups_M[anchor])[0])
        raise ValueError(
            f"model {outside} has not both won and lost (or tied) against the group of model {anchor}: "
            "its rating has no end"
        )
    clusters = int(battles.cluster_N.max()) + 1
    if clusters < 2:
        raise ValueError("all votes are of one cluster; expected at least 2 for an error")
    design = _design(battles, anchor, ties)
    theta = _fit(battles, design, np.ones(len(battles.score_N)), ties)
    gradient_NK, hessian = _derivatives(battles, design, theta, np.ones(len(battles.score_N)), ties)
    sums = cluster_sums(gradient_NK, battles.cluster_N)
    bread = np.linalg.inv(hessian)
    covariance = bread @ (clusters / (clusters - 1) * sums.T @ sums) @ bread
    free = battles.models - 1
    points_M = _with_anchor(theta[:free], anchor)
    whole = np.insert(np.insert(covariance[:free, :free], anchor, 0.0, axis=0), anchor, 0.0, axis=1)
    half_M = float(distributions.t.ppf((1 + confidence) / 2, clusters - 1)) * np.sqrt(np.diag(whole))
    tie = math.exp(theta[free]) if ties == "davidson" else None
    return Ratings(ELO * points_M, ELO * (points_M - half_M), ELO * (points_M + half_M), ELO**2 * whole, tie)


def bootstrap_ratings(
    battles: Battles,
    *,
    anchor: int = 0,
    ties: Ties = "half",
    samples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> Ratings:
    """The ratings of `bradley_terry` with the percentile interval of B resamples of whole clusters.

    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13; of clusters, Davison and
    Hinkley (1997), Bootstrap Methods, section 3.8.
    """
    fitted = bradley_terry(battles, anchor=anchor, ties=ties, confidence=confidence)
    design, generator = _design(battles, anchor, ties), np.random.default_rng(seed)
    clusters, free = int(battles.cluster_N.max()) + 1, battles.models - 1
    draws_BC = generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=samples)
    points_BM = np.empty((samples, battles.models))
    for draw_C, points_M in zip(draws_BC, points_BM, strict=True):
        weight_N = draw_C[battles.cluster_N].astype(np.float64)
        theta = _fit(battles, design, weight_N, ties, ridge=RIDGE_OF_A_RESAMPLE)
        points_M[:] = ELO * _with_anchor(theta[:free], anchor)
    low_M, high_M = np.quantile(points_BM, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return Ratings(fitted.points_M, low_M, high_M, np.cov(points_BM.T), fitted.tie)


def elo(battles: Battles, *, k: float = 4.0, start: float = 1000.0) -> Floats:
    """Online Elo [M] after all votes in their order. It depends on that order and has no interval: for comparison
    with other arenas, not for decisions. Source: Elo (1978), The Rating of Chessplayers; K=4 as FastChat's.
    """
    points_M = np.full(battles.models, start)
    for left, right, score in zip(battles.left_N, battles.right_N, battles.score_N, strict=True):
        gain = k * (score - 1 / (1 + 10 ** ((points_M[right] - points_M[left]) / 400)))
        points_M[left] += gain
        points_M[right] -= gain
    return points_M


def _edges(battles: Battles) -> tuple[Ints, Ints]:
    """From each winner to its loser; a tie goes both ways."""
    won_N, lost_N = battles.score_N > 0, battles.score_N < 1
    left_N, right_N = battles.left_N, battles.right_N
    winners = np.concatenate([np.where(won_N, left_N, right_N), np.where(lost_N, right_N, left_N)])
    losers = np.concatenate([np.where(won_N, right_N, left_N), np.where(lost_N, left_N, right_N)])
    return winners, losers


def _design(battles: Battles, anchor: int, ties: Ties) -> Floats:
    """What multiplies the parameters in θl - θr [N, M-1], the anchor's column left out; with a column for ln ν."""
    n = len(battles.score_N)
    design = np.zeros((n, battles.models))
    design[np.arange(n), battles.left_N] = 1.0
    design[np.arange(n), battles.right_N] = -1.0
    design = np.delete(design, anchor, axis=1)
    return np.column_stack([design, np.zeros(n)]) if ties == "davidson" else design


def _fit(battles: Battles, design: Floats, weight_N: Floats, ties: Ties, ridge: float = 0.0) -> Floats:
    """Newton's method on the concave log-likelihood, with steps no longer than 2 in any parameter."""
    theta = np.zeros(design.shape[1])
    penalty = (ridge + 1e-12) * np.eye(
        len(theta)
    )  # 1e-12: no votes on ties, or a model left out of a resample
    for _ in range(_STEPS):
        gradient_NK, hessian = _derivatives(battles, design, theta, weight_N, ties)
        step = np.linalg.solve(hessian + penalty, gradient_NK.sum(axis=0) - ridge * theta)
        theta += step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
        if np.abs(step).max() < _CLOSE:
            break
    return theta


def _derivatives(
    battles: Battles, design: Floats, theta: Floats, weight_N: Floats, ties: Ties
) -> tuple[Floats, Floats]:
    """Each vote's gradient of the log-likelihood [N, K], and minus its Hessian [K, K]."""
    d_N = design @ theta
    if ties == "half":
        p_N = expit(d_N)
        gradient_NK = design * (weight_N * (battles.score_N - p_N))[:, None]
        return gradient_NK, (design * (weight_N * p_N * (1 - p_N))[:, None]).T @ design
    # a softmax over d/2, -d/2 and ln ν: the statistics are (left - right) / 2, which is score - 1/2, and the tie
    logits = np.stack([d_N / 2, -d_N / 2, np.full_like(d_N, theta[-1])])
    left_N, right_N, tie_N = np.exp(logits - np.logaddexp.reduce(logits, axis=0))
    lead_N = (left_N - right_N) / 2
    gradient_NK = design * (weight_N * (battles.score_N - 0.5 - lead_N))[:, None]
    gradient_NK[:, -1] = weight_N * ((battles.score_N == 0.5) - tie_N)
    spread_N = weight_N * ((left_N + right_N) / 4 - lead_N**2)
    hessian = (design * spread_N[:, None]).T @ design
    cross_K = -(design * (weight_N * lead_N * tie_N)[:, None]).sum(axis=0)
    hessian[:, -1] += cross_K
    hessian[-1, :] += cross_K
    hessian[-1, -1] += (weight_N * tie_N * (1 - tie_N)).sum()
    return gradient_NK, hessian


def _with_anchor(theta: Floats, anchor: int) -> Floats:
    return np.insert(theta, anchor, 0.0)
