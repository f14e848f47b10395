"""What a judge lends to votes at the gate: simulated owners who ask one first, then vote and look now and again.

    python bench/judge.py [--owners N] [--votes N] [--every N] [--alpha A] [--prompts N] [--seed N] [--json FILE]

Each owner holds one of two answers to be better on every one of `--prompts` held-out prompts, and votes on prompts that
are drawn by chance. A judge has said which it prefers on all of them: it agrees with the owner on so many, and a biased
one says "the challenger" on half of the prompts whatever it has read. Prints for each judge and true win rate the share
of owners who are told to promote, and their mean number of votes, beside the same votes without a judge. Counts, no
timings.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nomoat.evaluate.stats.betting import log_e_value_judged
from nomoat.evaluate.stats.intervals import wilson

RATES = (0.5, 0.55, 0.6, 0.7)
JUDGES = ((0.5, 0.0), (0.65, 0.0), (0.75, 0.0), (0.85, 0.0), (0.95, 0.0), (0.75, 0.5))
"""How far they agree with the owner, and how biased they are."""


@dataclass(frozen=True)
class Row:
    """One judge at one true win rate: owners told to promote with Wilson's interval, and votes in the mean; `without`
    are the same of the same votes without the judge."""

    rate: float
    agrees: float
    bias: float
    promoted: float
    low: float
    high: float
    votes: float
    promoted_without: float
    votes_without: float


def votes_until_promoted(
    rate: float, agrees: float, bias: float, *, votes: int, every: int, alpha: float, prompts: int, seed: int
) -> tuple[int | None, int | None]:
    """After how many votes one owner is told to promote, with and without the judge; None where never."""
    chance = np.random.default_rng(seed)
    likes_P = np.arange(prompts) < round(rate * prompts)
    verdict_P = np.where(chance.random(prompts) < agrees, likes_P, ~likes_P) | (chance.random(prompts) < bias)
    leaning_P = verdict_P - verdict_P.mean()
    drawn_N = chance.integers(0, prompts, votes)
    reach_N, is_staked_N = np.full(votes, np.abs(leaning_P).max()), np.ones(votes, dtype=bool)

    def first(share: float) -> int | None:
        log_e_N = log_e_value_judged(
            likes_P[drawn_N].astype(float), share * leaning_P[drawn_N], share * reach_N, is_staked_N
        )
        looks = np.flatnonzero(log_e_N[every - 1 :: every] >= -math.log(alpha))
        return every * int(looks[0] + 1) if len(looks) else None

    return first(1.0), first(0.0)


def simulate(*, owners: int, votes: int, every: int, alpha: float, prompts: int, seed: int) -> list[Row]:
    """Every judge at every rate, on the same votes."""
    rows = []
    for rate in RATES:
        for agrees, bias in JUDGES:
            found = [
                votes_until_promoted(
                    rate,
                    agrees,
                    bias,
                    votes=votes,
                    every=every,
                    alpha=alpha,
                    prompts=prompts,
                    seed=seed + owner,
                )
                for owner in range(owners)
            ]
            (told, cast), (told_without, cast_without) = (
                (sum(number is not None for number in side), sum(number or votes for number in side) / owners)
                for side in zip(*found, strict=True)
            )
            share = wilson(told, owners, 0.95)
            rows.append(
                Row(
                    rate,
                    agrees,
                    bias,
                    share.value,
                    share.low,
                    share.high,
                    cast,
                    told_without / owners,
                    cast_without,
                )
            )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--owners", type=int, default=1000)
    parser.add_argument("--votes", type=int, default=500)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    settings = {key: getattr(asked, key) for key in ("owners", "votes", "every", "alpha", "prompts", "seed")}
    rows = simulate(**settings)
    print(
        f"{asked.owners:,} owners, a look after every {asked.every} of {asked.votes} votes, α = {asked.alpha:g}"
    )
    print(
        f"{'win rate':>8}  {'judge agrees':>12}  {'told to promote':>22}  {'votes':>5}  {'without a judge':>18}"
    )
    for row in rows:
        judge = f"{100 * row.agrees:g}%" + (", biased" if row.bias else "")
        told = f"{100 * row.promoted:.1f}% ({100 * row.low:.1f} to {100 * row.high:.1f})"
        without = f"{100 * row.promoted_without:.1f}%, {row.votes_without:.0f} votes"
        print(f"{100 * row.rate:>7g}%  {judge:>12}  {told:>22}  {row.votes:>5.0f}  {without:>18}")
    if asked.json:
        found = {**settings, "rows": [asdict(row) for row in rows]}
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
