"""How far probabilities can be believed: the temperature that makes them so, and what is left.

Of pairs with d, the score of the first answer minus that of the second: the model says that the first is preferred
with probability σ(d / T). Letters: P pairs · B bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from nomoat.evaluate.stats.intervals import Floats

BINS = 10
COLDEST, HOTTEST = 0.02, 50.0


@dataclass(frozen=True)
class Bin:
    """Pairs of about the same confidence: how many, the mean confidence, and the share that was judged so."""

    pairs: int
    confidence: float
    followed: float


@dataclass(frozen=True)
class Reliability:
    """`error` is the expected calibration error, the mean of |confidence - followed| over pairs."""

    error: float
    bins: tuple[Bin, ...]


def temperature(differences: npt.ArrayLike, wins: npt.ArrayLike) -> float:
    """T > 0 that minimises the mean of -w·log σ(d/T) - (1-w)·log σ(-d/T), where w is 1 where the first answer was
    preferred, 0 where the second was, ½ for a tie (temperature scaling, Guo et al. 2017, arXiv:1706.04599, section
    4.2; convex in 1/T). Kept within `COLDEST` and `HOTTEST`: differences that all go the right way have no T.

    Raises ValueError where there is no pair.
    """
    d_P, w_P = np.asarray(differences, dtype=np.float64), np.asarray(wins, dtype=np.float64)
    if not len(d_P):
        raise ValueError("differences: got none; expected one pair at least")

    def loss(inverse: float) -> float:
        x_P = d_P * inverse
        return float(-(w_P * special.log_expit(x_P) + (1 - w_P) * special.log_expit(-x_P)).mean())

    found = optimize.minimize_scalar(loss, bounds=(1 / HOTTEST, 1 / COLDEST), method="bounded")
    return float(1 / found.x)


def reliability(probabilities: npt.ArrayLike, wins: npt.ArrayLike, *, bins: int = BINS) -> Reliability:
    """Confidence, max(p, 1-p), against how often the judgement was so, a tie being half, in `bins` of as many pairs
    each (Naeini et al. 2015, AAAI; equal counts as Nixon et al. 2019, arXiv:1904.01685)."""
    p_P, w_P = np.asarray(probabilities, dtype=np.float64), np.asarray(wins, dtype=np.float64)
    confidence_P = np.maximum(p_P, 1 - p_P)
    followed_P = np.where(p_P > 0.5, w_P, np.where(p_P < 0.5, 1 - w_P, 0.5))
    order = np.argsort(confidence_P, kind="stable")
    found = [
        Bin(len(part), float(confidence_P[part].mean()), float(followed_P[part].mean()))
        for part in np.array_split(order, min(bins, len(order)))
    ]
    error = sum(each.pairs * abs(each.confidence - each.followed) for each in found) / len(order)
    return Reliability(error, tuple(found))


def cross_fitted(differences: npt.ArrayLike, wins: npt.ArrayLike, groups: npt.ArrayLike) -> Floats:
    """Probabilities that the first answer is preferred [P], each with the temperature of the other half of the
    `groups` (of prompts), so that no pair is measured with a temperature that was fitted to it."""
    d_P, w_P = np.asarray(differences, dtype=np.float64), np.asarray(wins, dtype=np.float64)
    half_P = np.unique(np.asarray(groups), return_inverse=True)[1] % 2
    if half_P.min() == half_P.max():
        raise ValueError("groups: got one; expected two at least")
    found_P = np.empty_like(d_P)
    for half in (0, 1):
        own_P = half_P == half
        found_P[own_P] = special.expit(d_P[own_P] / temperature(d_P[~own_P], w_P[~own_P]))
    return found_P
