"""Rewards of sampled answers: sources that each give a number, and their weighted sum.

What a source cannot tell is a value too, with its name and reason: it is counted, its answer teaches nothing, and
only where most answers of a run go without a reward does the run end.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from nomoat.data.functions import ENOUGH_TO_JUDGE, MOST_FAILED, Asked, Failed, counted
from nomoat.errors import DataError


class Source(Protocol):
    """Something that judges answers."""

    @property
    def name(self) -> str:
        """As the owner knows it: "rules.py:polite"."""

    def score(self, asked: Asked) -> list[float | Failed]:
        """A finite number for every answer, in order, or why there is none. Never raises for an answer's sake."""

    def close(self) -> None:
        """End whatever runs beside."""


@dataclass
class Rewards:
    """Sources with their weights; `unbounded`: one of them gives log-odds, and not at most 1. What failed is counted in
    `failures`: "source: kind" -> how often; with `judged`, the number of answers, it goes through a checkpoint."""

    sources: Sequence[tuple[Source, float]]
    unbounded: bool = False
    failures: Counter[str] = field(default_factory=Counter)
    judged: int = 0
    unrewarded: int = 0
    examples: dict[str, str] = field(default_factory=dict)

    def as_share(self, reward: float) -> float:
        """A mean reward in place of a pass rate: as a share of what every source's 1 would make, or where there is no
        such bound, as the probability of these log-odds."""
        if self.unbounded:
            return 1 / (1 + math.exp(-max(-700.0, reward)))
        return reward / (sum(weight for _, weight in self.sources) or 1.0)

    def score(self, asked: Asked) -> list[float]:
        """The weighted sum for every answer; NaN where a source had none.

        Raises DataError with what failed how often when most answers so far went without a reward.
        """
        totals = [0.0] * len(asked)
        for source, weight in self.sources:
            for index, found in enumerate(source.score(asked)):
                if isinstance(found, Failed):
                    named = f"{source.name}: {found.kind}"
                    self.failures[named] += 1
                    self.examples.setdefault(named, found.detail)
                    totals[index] = math.nan
                else:
                    totals[index] += weight * found
        self.judged += len(asked)
        self.unrewarded += sum(map(math.isnan, totals))
        if self.judged >= ENOUGH_TO_JUDGE and self.unrewarded > MOST_FAILED * self.judged:
            raise DataError(
                f"reinforce.rewards: {self.unrewarded} of {self.judged} answers have no reward: {self.said()}",
                hint="Mend the source that fails, or take it out of reinforce.rewards; the night then goes on.",
            )
        return totals

    def said(self) -> str:
        """What failed, how often, with an example of each."""
        return "; ".join(counted(self.failures, self.examples))

    def close(self) -> None:
        """End what runs beside."""
        for source, _ in self.sources:
            source.close()
