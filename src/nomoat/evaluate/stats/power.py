"""How many votes a difference takes."""

from __future__ import annotations

import math

from scipy import stats as distributions

from nomoat.evaluate.stats.sequential import BEST_AT, log_e_value

MOST_VOTES = 1_000_000


def votes_needed(rate: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Decided votes that a one-sided test of fixed size needs to find a true win rate `rate`.

    Source: the normal approximation, Fleiss, Levin and Paik (2003), Statistical Methods for Rates and Proportions,
    section 2.5, with the null's variance on both sides: ((z(1-α) + z(power)) / (2 rate - 1))².
    Raises ValueError where the rate is not above 1/2.
    """
    _check(rate)
    z = distributions.norm.ppf(1 - alpha) + distributions.norm.ppf(power)
    return math.ceil((float(z) / (2 * rate - 1)) ** 2)


def sprt_votes(rate: float, *, alpha: float = 0.05, beta: float = 0.05) -> float:
    """Decided votes that Wald's sequential probability ratio test of 1/2 against `rate` takes on average where
    `rate` is true. Source: Wald (1945), Annals of Mathematical Statistics 16:117-186.
    """
    _check(rate)
    accept, reject = math.log(beta / (1 - alpha)), math.log((1 - beta) / alpha)
    information = rate * math.log(2 * rate) + (1 - rate) * math.log(2 * (1 - rate))
    return ((1 - beta) * reject + beta * accept) / information


def votes_still_needed(
    wins: float,
    losses: float,
    *,
    log_have: float = 0.0,
    alpha: float,
    rate: float | None = None,
    best_at: float = BEST_AT,
) -> int | None:
    """Further decided votes until the e-value reaches 1/α, if they come as they came so far; None where they
    never would. `log_have` is the logarithm of evidence from elsewhere that multiplies it.

    `rate` is how they come from now on; without it Laplace's (w + 1) / (n + 2): three wins of three do not promise a
    hundred of a hundred.
    """
    if rate is None:
        rate = (wins + 1) / (wins + losses + 2)
    wanted = -math.log(alpha) - log_have

    def is_enough(more: int) -> bool:
        return bool(log_e_value(wins + rate * more, losses + (1 - rate) * more, best_at=best_at) >= wanted)

    if is_enough(0):
        return 0
    if rate <= 0.5 or not is_enough(MOST_VOTES):
        return None
    low, high = 0, 1
    while not is_enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _check(rate: float) -> None:
    if not 0.5 < rate < 1:
        raise ValueError(f"rate: got {rate:g}; expected a number between 0.5 and 1")
