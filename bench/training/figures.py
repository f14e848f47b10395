"""From passes and losses to the figures that are printed. Pure functions over numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from training.cases import Flops
from training.process import Pass

TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-3}
"""Largest relative difference of two losses of one step."""


@dataclass(frozen=True)
class Spread:
    """The median of some rounds, and how far they lie apart."""

    median: float
    min: float
    max: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Curves:
    """The losses of all sides at the same steps. `worst` is the largest relative difference between two sides,
    at step `at_step`."""

    losses: dict[str, list[float]]
    tolerance: float
    worst: float
    at_step: int

    @property
    def agree(self) -> bool:
        """False where a loss is not finite, too."""
        return self.worst <= self.tolerance

    @staticmethod
    def of(losses: dict[str, list[float]], tolerance: float) -> Curves:
        """ValueError where two sides made different numbers of steps."""
        apart = [_apart(values) for values in zip(*losses.values(), strict=True)]
        worst = max(apart)
        return Curves(losses, tolerance, worst, apart.index(worst))

    def to_dict(self) -> dict[str, Any]:
        return {"agree": self.agree, **asdict(self)}

    def said(self) -> str:
        """One line."""
        steps = len(next(iter(self.losses.values())))
        return (
            f"loss curves {'agree' if self.agree else 'DIFFER'}: {steps} steps on the same batches, largest relative "
            f"difference {self.worst:.1e} (step {self.at_step}; tolerance {self.tolerance:g})"
        )


def _apart(losses: Sequence[float]) -> float:
    if not all(map(math.isfinite, losses)):
        return math.inf
    return (max(losses) - min(losses)) / max(map(abs, losses))


def side_figures(warm_up: Pass, rounds: list[Pass], flops: Flops | None, peak_flops: float) -> dict[str, Any]:
    """Speed, memory and share of the peak of one side; rates a second of wall time."""
    return {
        "warm_up_seconds": warm_up.seconds,
        "steps_a_pass": len(rounds[0].losses),
        "seconds": [done.seconds for done in rounds],
        "cpu_seconds": [done.cpu_seconds for done in rounds],
        "real_tokens_per_second": asdict(_rate([done.real_tokens for done in rounds], rounds)),
        "supervised_tokens_per_second": asdict(_rate([done.supervised_tokens for done in rounds], rounds)),
        "peak_bytes": max(done.peak_bytes for done in rounds),
        "mfu": flops and _rate([flops.everywhere] * len(rounds), rounds).median / peak_flops,
        "mfu_needed": flops and _rate([flops.needed] * len(rounds), rounds).median / peak_flops,
    }


def _rate(amounts: Sequence[float], rounds: list[Pass]) -> Spread:
    return Spread.of([amount / done.seconds for amount, done in zip(amounts, rounds, strict=True)])


def ratio(ours: list[Pass], theirs: list[Pass]) -> dict[str, Any]:
    """How many times as fast we are, round by round, and our peak memory as a share of theirs."""
    times = [their.seconds / our.seconds for our, their in zip(ours, theirs, strict=True)]
    memory = max(done.peak_bytes for done in ours) / max(done.peak_bytes for done in theirs)
    return {"speed": asdict(Spread.of(times)), "memory": memory}
