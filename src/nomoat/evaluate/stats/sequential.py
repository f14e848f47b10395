"""Tests and intervals that stay true although the owner looks after every vote.

An e-value is what a gambler would own who began with 1 and bet against the null hypothesis: were that true, the
chance that it ever reaches 1/α is at most α, whenever one looks (Ville's inequality; Ramdas et al. 2023,
"Game-theoretic statistics and safe anytime-valid inference", Statistical Science 38:576-601). Functions of counts take
numbers or arrays, and broadcast.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from nomoat.evaluate.comparison import Estimate
from nomoat.evaluate.stats.intervals import Floats

BEST_AT = 100
"""Decided votes at which the test is about strongest; it is valid at every number. 60 to 200 do about as well for true
win rates of 55 to 70% (bench/gate.py)."""
_ALPHA_AT_BEST = 0.05


def log_mixture(
    successes: npt.ArrayLike,
    n: npt.ArrayLike,
    null: float,
    *,
    best_at: float = BEST_AT,
    one_sided: bool,
) -> Floats:
    """Natural logarithm of the e-value against "successes come with probability `null`" (two-sided) or "at most
    `null`" (one-sided): the likelihood ratio averaged over a Beta distribution of alternatives.

    It is valid for any observations in [0, 1], successes being their sum. Source: Howard, Ramdas, McAuliffe and
    Sekhon (2021), Annals of Statistics 49:1055-1080, the beta-binomial mixtures; the Beta is theirs, chosen to be
    tightest at `best_at` observations.
    """
    k, count = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    strength = beta_strength(null * (1 - null), best_at=best_at, one_sided=one_sided)
    a, b = strength / (1 - null), strength / null  # prior successes and failures; their mean is `null`
    log_e = special.betaln(a + k, b + count - k) - special.betaln(a, b)
    log_e = log_e - k * math.log(null) - (count - k) * math.log(1 - null)
    if one_sided:
        log_e = log_e + _log_upper(a + k, b + count - k, null) - _log_upper(a, b, null)
    return np.asarray(log_e)


def beta_strength(variance: float, *, best_at: float, one_sided: bool) -> float:
    """How narrow the Beta of `log_mixture` is: its two parameters times 1 - `null` and times `null`."""
    alpha = 2 * _ALPHA_AT_BEST if one_sided else _ALPHA_AT_BEST
    scale = 2 * math.log(1 / alpha) + math.log(1 + 2 * math.log(1 / alpha))
    return max(best_at * variance / scale - variance, 1e-3 * variance)


def log_e_value(wins: npt.ArrayLike, losses: npt.ArrayLike, *, best_at: float = BEST_AT) -> Floats:
    """Natural logarithm of the e-value for "wins more often than it loses". Ties are no bet: they change nothing.

    The bet on vote i is 1 + λ(2x - 1), x being 1, 1/2 or 0, averaged over λ in [0, 1]: whatever comes before, its
    mean is at most 1 where the mean of x is at most 1/2. So it is valid with ties, for votes in any order, and for
    voters who stop when they like. Source: Waudby-Smith and Ramdas (2024), JRSS B 86:1-27, section 4; with the Beta
    of `log_mixture` over (1 + λ)/2 it has that closed form.
    """
    w, lost = np.asarray(wins, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if (w < 0).any() or (lost < 0).any():
        raise ValueError("wins and losses: expected 0 or more")
    return log_mixture(w, w + lost, 0.5, best_at=best_at, one_sided=True)


def confidence_sequence(successes: float, n: int, *, confidence: float, best_at: float = BEST_AT) -> Estimate:
    """Win rate (ties are half a success) with an interval that holds the truth at every n at once.

    It is all rates that `log_mixture`, two-sided, does not reject. Source: Howard et al. (2021), as their package
    confseq computes it. Raises ValueError where n < 2 or successes are not in 0..n.
    """
    if n < 2 or not 0 <= successes <= n:
        raise ValueError(f"successes: got {successes:g} of {n}; expected 0 to n, and n at least 2")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: got {confidence:g}; expected a number between 0 and 1")
    rate, threshold = successes / n, -math.log(1 - confidence)

    def excess(null: float) -> float:
        return float(log_mixture(successes, n, null, best_at=best_at, one_sided=False)) - threshold

    edge = 1e-9
    middle = min(max(rate, edge), 1 - edge)  # the likeliest rate, which no e-value rejects
    low, high = 0.0, 1.0
    if rate > 0 and excess(edge) > 0:
        low = optimize.brentq(excess, edge, middle, xtol=1e-12)
    if rate < 1 and excess(1 - edge) > 0:
        high = optimize.brentq(excess, middle, 1 - edge, xtol=1e-12)
    return Estimate(rate, float(low), float(high), n)


def _log_upper(a: npt.ArrayLike, b: npt.ArrayLike, x: float) -> Floats:
    """Logarithm of a Beta's mass above x; far in the tail it is -inf, an e-value of 0, which only errs to caution."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(special.betaincc(a, b, x)))
