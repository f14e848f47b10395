"""What a month of nights and votes comes to: simulated owners, a new generation each night, votes on it by day.

    python bench/nights.py [--owners N] [--nights N] [--votes N ...] [--alpha A] [--seed N] [--json FILE]

Every night makes a generation whose strength differs from the champion's by a normal draw, and by day the owner votes
on the two so often, without ties. When the next night begins the gate decides, as `nomoat run` does, and what it does
not promote is not voted on again. Three kinds of luck: `none`, where every generation is exactly as good as the
champion; `worse`, 20 points below it in the mean, with a standard deviation of 40 points; and `better`, 20 above it.
Prints the share of generations that were promoted, of those that are better and of those that are not, the share of
owners who were ever misled, and how far the champion has come, in points (400 being odds of 10 to 1), beside what
promoting every generation comes to. Counts, no timings.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from nomoat.evaluate.stats.intervals import wilson
from nomoat.evaluate.stats.ratings import ELO
from nomoat.evaluate.stats.sequential import log_e_value

LUCK = {"none": (0.0, 0.0), "worse": (-20.0, 40.0), "better": (20.0, 40.0)}
"""Mean and standard deviation of a generation's points above the champion."""
# O owners · N nights
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One kind of luck at so many votes a day.

    Attributes:
        better: the share of better generations that were promoted; None where there are none.
        no_better: the share of the others that were, and Wilson's interval.
        misled: the share of owners who promoted one that is no better, once or more often.
        points: how far the champion has come in the mean; `always`: where every generation is promoted.
    """

    luck: str
    votes: int
    better: float | None
    no_better: float
    low: float
    high: float
    misled: float
    points: float
    always: float


def month(luck: str, votes: int, *, owners: int, nights: int, alpha: float, seed: int) -> Row:
    """All owners' nights."""
    rng = np.random.default_rng(seed)
    mean, spread = LUCK[luck]
    gains: Floats = rng.normal(mean, spread, size=(owners, nights))
    wins = rng.binomial(votes, expit(gains / ELO))
    promoted = log_e_value(wins, votes - wins) >= -math.log(alpha)
    is_better = gains > 0
    missed = int((promoted & ~is_better).sum())
    share = wilson(missed, int((~is_better).sum()), 0.95)
    return Row(
        luck,
        votes,
        float(promoted[is_better].mean()) if is_better.any() else None,
        share.value,
        share.low,
        share.high,
        float((promoted & ~is_better).any(axis=1).mean()),
        float((gains * promoted).sum(axis=1).mean()),
        float(gains.sum(axis=1).mean()),
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--owners", type=int, default=2000)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--votes", type=int, nargs="+", default=[10, 30, 100])
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    settings = {key: getattr(asked, key) for key in ("owners", "nights", "alpha", "seed")}
    rows = [month(luck, votes, **settings) for luck in LUCK for votes in asked.votes]
    print(f"{asked.owners:,} owners of {asked.nights} nights each, alpha {asked.alpha:g}")
    print(
        "luck    votes a day  better: promoted        no better: promoted  misled  points  every one promoted"
    )
    for row in rows:
        better = "-" if row.better is None else f"{row.better:.1%}"
        no_better = f"{row.no_better:.2%} ({100 * row.low:.2f} to {100 * row.high:.2f})"
        print(
            f"{row.luck:<6}  {row.votes:>11}  {better:>16}  {no_better:>25}  {row.misled:>6.1%}"
            f"  {row.points:>+6.0f}  {row.always:>+18.0f}"
        )
    if asked.json:
        asked.json.write_text(
            json.dumps({**settings, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
