"""Which two models a voter should see next: the pair whose vote narrows the intervals of the ratings most.

Letters: M models. Every function takes leading dimensions too, one for each of many arenas at once.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from nomoat.evaluate.stats.intervals import Floats

_PRIOR = 0.1
"""Wins that every model is given over every other before the first vote, so that a pair nobody voted on has an end."""
_STEPS = 4


def planned_ratings(won_MM: Floats, start_M: Floats | None = None) -> Floats:
    """Ratings [..., M] in natural units from `won_MM`, the wins of row over column with ties half: Bradley-Terry with
    `_PRIOR`, the mean rating 0. For planning only: `ratings.bradley_terry` is what is told. `start_M` is where Newton's
    method begins; from a fit of some votes before, its few steps are enough."""
    played_MM = won_MM + np.swapaxes(won_MM, -1, -2)
    models = won_MM.shape[-1]
    prior_MM = _PRIOR * (1 - np.eye(models))
    theta_M = np.zeros(won_MM.shape[:-1]) if start_M is None else start_M
    for _ in range(_STEPS if start_M is not None else 5 * _STEPS):
        p_MM = _chances(theta_M)
        expected_MM = (played_MM + 2 * prior_MM) * p_MM
        gradient_M = (won_MM + prior_MM - expected_MM).sum(axis=-1)
        step_M = np.linalg.solve(
            _information(played_MM, theta_M) + 1 / models, gradient_M[..., None]
        )  # 1/M: only differences are known, so the mean is held at 0
        theta_M = theta_M + np.clip(step_M[..., 0], -2, 2)
    return theta_M


def narrowing(won_MM: Floats, theta_M: Floats, anchor: int, pending_MM: Floats | float = 0.0) -> Floats:
    """By how much [..., M, M] one more vote on a pair is expected to shorten the standard errors of all models'
    differences to the anchor, summed, in natural units; 0 for a model and itself. `pending_MM` are votes that are
    asked for already, counted on both sides.

    The vote adds p(1 - p) (ei - ej)(ei - ej)' to the information, whose inverse then changes by a matrix of rank one
    (Sherman and Morrison 1950, Annals of Mathematical Statistics 21:124-127). Chiang et al. (2024), "Chatbot Arena",
    arXiv:2403.04132, section 5, sample pairs by the same reduction of a pair's own error; here it is that of all
    differences to the anchor, and the best pair is taken.
    """
    played_MM = won_MM + np.swapaxes(won_MM, -1, -2) + pending_MM
    models = won_MM.shape[-1]
    free = np.delete(np.arange(models), anchor)
    covariance_MM = np.zeros(played_MM.shape)
    inverse = np.linalg.inv(_information(played_MM, theta_M)[..., free[:, None], free])
    covariance_MM[..., free[:, None], free] = inverse
    variance_M = np.diagonal(covariance_MM, axis1=-2, axis2=-1)
    p_MM = _chances(theta_M)
    spread_MM = p_MM * (1 - p_MM)
    # how each difference moves with the pair's: [..., M, i, j]
    moved_MMM = covariance_MM[..., :, :, None] - covariance_MM[..., :, None, :]
    of_pair_MM = variance_M[..., :, None] + variance_M[..., None, :] - 2 * covariance_MM
    weight_MM = spread_MM / (1 + spread_MM * of_pair_MM)
    left_MMM = variance_M[..., :, None, None] - weight_MM[..., None, :, :] * moved_MMM**2
    shorter_MM: Floats = np.sqrt(variance_M).sum(axis=-1)[..., None, None] - np.sqrt(
        np.maximum(left_MMM, 0)
    ).sum(axis=-3)
    return shorter_MM * (1 - np.eye(models))


def _chances(theta_M: Floats) -> Floats:
    """Chance that row beats column."""
    found: Floats = expit(theta_M[..., :, None] - theta_M[..., None, :])
    return found


def _information(played_MM: Floats, theta_M: Floats) -> Floats:
    """Of the votes and the prior on the ratings: a graph's Laplacian, weighted by p(1 - p)."""
    models = theta_M.shape[-1]
    p_MM = _chances(theta_M)
    weight_MM = (played_MM + 2 * _PRIOR) * p_MM * (1 - p_MM) * (1 - np.eye(models))
    return weight_MM.sum(axis=-1)[..., None] * np.eye(models) - weight_MM
