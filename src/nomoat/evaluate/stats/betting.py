"""Two more e-values, for what counts of wins and losses alone cannot say: votes beside which a judge's verdicts are
known, and votes against a third model.

Letters: N votes in the order in which they were cast · K stakes · D differences · M middles.
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
_MIDDLES = np.linspace(-3.0, 3.0, 25)
_DIFFERENCES = np.geomspace(0.1, 3.0, 12)


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


def log_e_value_of_two(wins: int, rival_wins: int, n: int) -> float:
    """Natural logarithm of the e-value for "wins against a third model more often than the rival does", from the first
    `n` decided votes of each.

    Source: Turner, Ly and Grünwald (2024), "Generic e-variables for exact sequential k-sample tests", Journal of
    Statistical Planning and Inference 230:106116, for blocks of one vote each: the likelihood under two rates over the
    likelihood under their mean, here averaged over pairs of rates a difference apart (on the scale of the logit). Its
    mean is at most 1 wherever the first rate is no greater than the second: with u and v what the true rates lie
    above that mean, and k ≥ 0, a block's is 1 + k(u - v) - k²uv, and k|u| ≤ 1, k|v| ≤ 1.
    Raises ValueError where wins are not in 0..n.
    """
    if not (0 <= wins <= n and 0 <= rival_wins <= n):
        raise ValueError(f"wins: got {wins} and {rival_wins} of {n}; expected 0 to n")
    half_D = _DIFFERENCES[:, None] / 2
    better_DM, worse_DM = special.expit(_MIDDLES + half_D), special.expit(_MIDDLES - half_D)
    mean_DM = (better_DM + worse_DM) / 2
    log_DM = _log_likelihood(wins, n, better_DM) + _log_likelihood(rival_wins, n, worse_DM)
    log_DM -= _log_likelihood(wins + rival_wins, 2 * n, mean_DM)
    return float(special.logsumexp(log_DM) - math.log(log_DM.size))


def _log_likelihood(wins: int, n: int, rate: Floats) -> Floats:
    return np.asarray(wins * np.log(rate) + (n - wins) * np.log1p(-rate))


def _stakes(best_at: float) -> Floats:
    """Equally likely λ from the Beta over (1 + λ)/2 above 1/2."""
    strength = beta_strength(0.25, best_at=best_at, one_sided=True)
    above_K = 0.5 + (np.arange(STAKES) + 0.5) / (2 * STAKES)
    return np.asarray(2 * special.betaincinv(2 * strength, 2 * strength, above_K) - 1)
