"""Two more e-values, for what counts of wins and losses alone cannot say: votes beside which a judge's verdicts are
known, and differences of two votes each.

Letters: N votes in the order in which they were cast, or differences · K stakes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from nomoat.evaluate.stats.intervals import Floats
from nomoat.evaluate.stats.sequential import BEST_AT, beta_strength

STAKES = 128
_UNTAUGHT = 2.5
"""Votes, in units of the judge's squared leaning, for which its slope is held near 0 before it has shown itself: ten
votes on verdicts that are half wins, half losses."""


def log_e_value_judged(
    scores: npt.ArrayLike,
    leanings: npt.ArrayLike,
    reaches: npt.ArrayLike,
    is_staked: npt.ArrayLike,
    *,
    best_at: float = BEST_AT,
) -> Floats:
    """Natural logarithm, after each vote [N], of the e-value for "wins more often than it loses", the noise of the
    prompts taken out.

    `scores` [N] are 1, 1/2 or 0. A vote's leaning is the judge's verdict on its prompt less the mean verdict on all
    prompts that could have been drawn, of which the largest in size is its reach; both are 0 where the judge had said
    nothing before the vote. As the prompt is drawn by chance, leanings have the mean 0, whatever the judge is like; so
    has a share of them, which is taken off the score: a win on a prompt that suits the challenger counts less. The
    share is the slope of scores over leanings among all votes before this one, and 0 for a judge of no use. Votes with
    `is_staked` False (on another pair of models) only teach it.

    The bet on a vote is 1 + λ(2x - 1), x being what is left of its score, with λ from the Beta of `log_e_value`, but no
    more than keeps the bet from falling below 0. Sources: Waudby-Smith and Ramdas (2024), JRSS B 86:1-27, section 4;
    the correction by predictions is Angelopoulos et al. (2023), Science 382:669-674, tuned as in their
    arXiv:2311.01453, here with a mean that is known.
    """
    scores_N, leanings_N, reaches_N = (
        np.asarray(values, dtype=np.float64) for values in (scores, leanings, reaches)
    )
    taught = np.cumsum((scores_N - 0.5) * leanings_N) - (scores_N - 0.5) * leanings_N
    seen = np.cumsum(leanings_N**2) - leanings_N**2
    slope_N = np.clip(taught / (seen + _UNTAUGHT), 0.0, 1.0)
    edge_N = 2 * (scores_N - slope_N * leanings_N) - 1
    most_N = 1 / (1 + 2 * slope_N * reaches_N)
    bets_KN = np.minimum(_stakes(best_at)[:, None], most_N) * np.asarray(is_staked, dtype=bool)
    with np.errstate(divide="ignore"):  # a bet that takes all and is lost
        log_KN = np.log1p(np.maximum(bets_KN * edge_N, -1.0)).cumsum(axis=1)
    return np.asarray(special.logsumexp(log_KN, axis=0) - math.log(len(log_KN)))


def log_e_value_of_differences(differences: npt.ArrayLike, *, best_at: float = BEST_AT) -> float:
    """Natural logarithm of the e-value for "above 0 in the mean", of differences [N] in [-1, 1].

    The bet on each is 1 + λd, with λ from the Beta of `log_e_value`: of differences that all are 1 or -1 it is that
    e-value. Source: Waudby-Smith and Ramdas (2024), JRSS B 86:1-27, section 4, for means of bounded values. Raises
    ValueError where a difference lies outside.
    """
    differences_N = np.asarray(differences, dtype=np.float64)
    if (np.abs(differences_N) > 1).any():
        raise ValueError(
            f"differences: got {differences_N[np.abs(differences_N).argmax()]:g}; expected -1 to 1"
        )
    log_K = np.log1p(_stakes(best_at)[:, None] * differences_N).sum(axis=1)
    return float(special.logsumexp(log_K) - math.log(len(log_K)))


def _stakes(best_at: float) -> Floats:
    """Equally likely λ from the Beta over (1 + λ)/2 above 1/2."""
    strength = beta_strength(0.25, best_at=best_at, one_sided=True)
    above_K = 0.5 + (np.arange(STAKES) + 0.5) / (2 * STAKES)
    return np.asarray(2 * special.betaincinv(2 * strength, 2 * strength, above_K) - 1)
