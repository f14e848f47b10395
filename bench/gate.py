"""What the gate costs and keeps: simulated owners who look after every ten votes.

    python bench/gate.py [--owners N] [--looks N] [--every N] [--alpha A] [--ties SHARE] [--seed N] [--json FILE]

Each owner votes blindly between champion and challenger until the test says "promote" or "keep", or the looks are used
up. Prints for each true win rate the share of owners who were told to promote, and their mean number of votes, for four
tests: the gate's e-value, which never says "keep" for good; a binomial test of fixed size that is looked at the same
way (which is what people do, and misleads them); game testing's generalised sequential probability ratio test of 0 Elo
against a win rate of 55%; and Wald's with the true rate as its alternative (which nobody knows). Counts, no timings.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from nomoat.evaluate.stats.intervals import wilson
from nomoat.evaluate.stats.ordered import gsprt_llr, sprt_bounds
from nomoat.evaluate.stats.sequential import log_e_value

RATES = (0.5, 0.55, 0.6, 0.7)
# O owners · L looks
Counts = npt.NDArray[np.int64]
Test = Callable[[Counts, Counts, Counts], npt.NDArray[np.int64]]
"""Wins, losses and ties at each look [O, L] -> 1 where the test says promote, -1 keep, 0 go on [O, L]."""
ALTERNATIVE = 0.55
"""The win rate that a sequential test tells from none where the true one is not known, or none."""


@dataclass(frozen=True)
class Row:
    """One test at one true win rate (of decided votes); the share of owners told to promote with Wilson's interval."""

    test: str
    rate: float
    promoted: float
    low: float
    high: float
    votes: float


def look(owners: int, looks: int, every: int, rate: float, ties: float, seed: int) -> Counts:
    """Wins, losses and ties of each owner at each look, [3, O, L]."""
    shares = [(1 - ties) * rate, (1 - ties) * (1 - rate), ties]
    drawn = np.random.default_rng(seed).multinomial(every, shares, size=(owners, looks))
    return np.moveaxis(drawn.cumsum(axis=1), -1, 0)


def tests_at(rate: float, alpha: float) -> Mapping[str, Test]:
    """The tests; Wald's takes the true rate, and `ALTERNATIVE` where there is no difference."""
    keep, promote = sprt_bounds(alpha, alpha)
    assumed = max(rate, ALTERNATIVE)

    def ended(ratio: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        return np.where(ratio >= promote, 1, np.where(ratio <= keep, -1, 0))

    def wald(wins: Counts, losses: Counts, ties: Counts) -> npt.NDArray[np.int64]:
        return ended(wins * math.log(2 * assumed) + losses * math.log(2 * (1 - assumed)))

    def gsprt(wins: Counts, losses: Counts, ties: Counts) -> npt.NDArray[np.int64]:
        elo = 400 * math.log10(ALTERNATIVE / (1 - ALTERNATIVE))
        counts = np.stack([losses, ties, wins], axis=-1).reshape(-1, 3)
        met, where = np.unique(counts, axis=0, return_inverse=True)  # few counts, met often
        ratios = np.array([gsprt_llr(each, 0, elo, model="logistic") for each in met])
        return ended(ratios[where].reshape(wins.shape))

    return {
        "e-value": lambda wins, losses, _: (log_e_value(wins, losses) >= -math.log(alpha)).astype(int),
        "fixed-n": lambda wins, losses, _: (stats.binom.sf(wins - 1, wins + losses, 0.5) <= alpha).astype(
            int
        ),
        "gsprt": gsprt,
        "wald": wald,
    }


def simulate(*, owners: int, looks: int, every: int, alpha: float, ties: float, seed: int) -> list[Row]:
    """Every test at every rate, on the same votes."""
    rows = []
    for rate in RATES:
        seen = look(owners, looks, every, rate, ties, seed)
        for name, test in tests_at(rate, alpha).items():
            says = test(*seen)
            first = (says != 0).argmax(axis=1)
            verdict = says[np.arange(owners), first]  # the first one ends it; 0 where there was none
            votes = every * np.where(verdict != 0, first + 1, looks)
            share = wilson(int((verdict > 0).sum()), owners, 0.95)
            rows.append(Row(name, rate, share.value, share.low, share.high, float(votes.mean())))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--owners", type=int, default=2000)
    parser.add_argument("--looks", type=int, default=50)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--ties", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    settings = {key: getattr(asked, key) for key in ("owners", "looks", "every", "alpha", "ties", "seed")}
    rows = simulate(**settings)
    print(
        f"{asked.owners:,} owners, a look after every {asked.every} votes, {asked.looks} looks, α = {asked.alpha:g}"
    )
    print(f"{'true win rate':>13}  {'test':<8}  {'told to promote':>22}  {'mean votes':>10}")
    for row in rows:
        told = f"{100 * row.promoted:.1f}% ({100 * row.low:.1f} to {100 * row.high:.1f})"
        print(f"{100 * row.rate:>12g}%  {row.test:<8}  {told:>22}  {row.votes:>10.0f}")
    if asked.json:
        asked.json.write_text(
            json.dumps({**settings, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
