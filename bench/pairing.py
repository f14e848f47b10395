"""What choosing the pairs saves: simulated voters in arenas of several models of known strength.

    python bench/pairing.py [--arenas N] [--models N] [--spread POINTS] [--votes N] [--ties SHARE] [--seed N]
        [--json FILE]

Each arena draws its models' strengths from a normal distribution. One voter is shown pairs by chance, the other the
pair whose vote narrows the intervals most. Prints the votes after which the mean width of the stated 95% intervals of
all differences to the first model is that of chance's last vote, and the share of intervals that hold the truth. The
intervals are those of `nomoat arena --standings`. Counts, no timings.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from nomoat.evaluate.stats.intervals import wilson
from nomoat.evaluate.stats.pairing import narrowing, planned_ratings
from nomoat.evaluate.stats.ratings import ELO, Battles, bradley_terry, comparable

# A arenas · V votes · M models
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Choose = Callable[[Floats, Floats, np.random.Generator], tuple[Ints, Ints]]
"""Wins of row over column [A, M, M] and planned ratings [A, M] -> the two models of each arena's next vote."""


@dataclass(frozen=True)
class Votes:
    """What each arena's voter was shown and said, [A, V] each."""

    left: Ints
    right: Ints
    score: Floats


@dataclass(frozen=True)
class Found:
    """One way to choose after so many votes: the mean width in points of the intervals, the share of them that hold
    the truth with Wilson's interval over arenas, and arenas that cannot be rated yet."""

    way: str
    votes: int
    width: float
    covered: float
    low: float
    high: float
    unrated: int


def by_chance(won: Floats, theta: Floats, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Every pair as likely as any other."""
    arenas, models = theta.shape
    left = rng.integers(models, size=arenas)
    right = (left + rng.integers(1, models, size=arenas)) % models
    return left, right


def by_narrowing(won: Floats, theta: Floats, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """The best pair; among equals by chance."""
    arenas, models = theta.shape
    gain = narrowing(won, theta, anchor=0) * (1 + 1e-9 * rng.random((arenas, models, models)))
    best = gain.reshape(arenas, -1).argmax(axis=1)
    return best // models, best % models


def cast(strength: Floats, votes: int, ties: float, choose: Choose, rng: np.random.Generator) -> Votes:
    """Votes of voters who prefer the stronger with Bradley-Terry's chance; `ties` is the share at equal strength."""
    arenas, models = strength.shape
    rows = np.arange(arenas)
    won, theta = np.zeros((arenas, models, models)), np.zeros((arenas, models))
    shown = Votes(*(np.zeros((arenas, votes), dtype=np.int64) for _ in range(2)), np.zeros((arenas, votes)))
    for number in range(votes):
        left, right = choose(won, theta, rng)
        rate = expit((strength[rows, left] - strength[rows, right]) / ELO)
        tied = 2 * ties * np.minimum(rate, 1 - rate)
        drawn = rng.random(arenas)
        score = np.where(drawn < rate - tied / 2, 1.0, np.where(drawn < rate + tied / 2, 0.5, 0.0))
        shown.left[:, number], shown.right[:, number], shown.score[:, number] = left, right, score
        won[rows, left, right] += score
        won[rows, right, left] += 1 - score
        theta = planned_ratings(won, theta)
    return shown


def measure(way: str, shown: Votes, strength: Floats, votes: int) -> Found:
    """What the leaderboard would say after the first votes."""
    arenas, models = strength.shape
    widths, holds, unrated = [], [], 0
    for at in range(arenas):
        battles = Battles.of(
            shown.left[at, :votes], shown.right[at, :votes], shown.score[at, :votes], models=models
        )
        if len(np.unique(comparable(battles))) > 1:
            unrated += 1
            continue
        rated = bradley_terry(battles, anchor=0)
        truth = strength[at] - strength[at, 0]
        widths.append((rated.high_M - rated.low_M)[1:].mean())
        holds.append(((rated.low_M <= truth) & (truth <= rated.high_M))[1:])
    covered = float(np.mean(holds))
    # intervals of one arena hang together: count arenas, not intervals
    share = wilson(round(covered * len(holds)), len(holds), 0.95)
    return Found(way, votes, float(np.mean(widths)), covered, share.low, share.high, unrated)


def simulate(*, arenas: int, models: int, spread: float, votes: int, ties: float, seed: int) -> list[Found]:
    """Chance at its last vote; the chosen pairs there, and where they reached the same width."""
    rng = np.random.default_rng(seed)
    strength = rng.normal(0, spread, (arenas, models))
    uniform = measure("by chance", cast(strength, votes, ties, by_chance, rng), strength, votes)
    chosen = cast(strength, votes, ties, by_narrowing, rng)

    def at(number: int) -> Found:
        return measure("chosen", chosen, strength, number)

    low, high = votes // 4, votes
    while high - low > max(1, votes // 200):  # the width falls with the votes
        middle = (low + high) // 2
        low, high = (low, middle) if at(middle).width <= uniform.width else (middle, high)
    return [uniform, at(high), at(votes)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--arenas", type=int, default=1000)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--spread", type=float, default=300.0)
    parser.add_argument("--votes", type=int, default=800)
    parser.add_argument("--ties", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    settings = {key: getattr(asked, key) for key in ("arenas", "models", "spread", "votes", "ties", "seed")}
    rows = simulate(**settings)
    print(f"{asked.arenas:,} arenas of {asked.models} models, strengths spread by {asked.spread:g} points")
    print(f"{'pairs':<10}{'votes':>7}{'mean width':>12}{'hold the truth':>26}{'not rated':>11}")
    for row in rows:
        held = f"{100 * row.covered:.1f}% ({100 * row.low:.1f} to {100 * row.high:.1f})"
        print(f"{row.way:<10}{row.votes:>7}{row.width:>12.1f}{held:>26}{row.unrated:>11}")
    print(f"fewer votes for the same width: {math.floor(100 * (1 - rows[1].votes / rows[0].votes))}%")
    if asked.json:
        asked.json.write_text(
            json.dumps({**settings, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
