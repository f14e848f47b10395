"""The learning rate of a step: warm-up, then cosine, linear or constant; and the early landing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Schedule:
    """`landing` = (step, last step, rate): from that step and rate on it falls in a straight line to zero,
    because the night has less time than was planned."""

    kind: str
    learning_rate: float
    total_steps: int
    warmup_steps: int
    landing: tuple[int, int, float] | None = None

    def __call__(self, step: int) -> float:
        if self.landing is not None and step >= self.landing[0]:
            start, end, rate = self.landing
            return rate * (end - step) / max(1, end - start)
        return self._planned(step)

    def _planned(self, step: int) -> float:
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.kind == "constant":
            return self.learning_rate
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return self.learning_rate * (
            0.5 * (1 + math.cos(math.pi * done)) if self.kind == "cosine" else 1 - done
        )

    @property
    def last_step(self) -> int:
        """How many steps the run will have when it ends."""
        return self.total_steps if self.landing is None else self.landing[1]

    def land(self, step: int, last_step: int) -> Schedule:
        """The schedule that ends at `last_step`, from `step` on.

        Within the warm-up there is no height to land from: the whole schedule shrinks instead.
        """
        if step < self.warmup_steps and self.landing is None:
            shrunk = round(self.warmup_steps * last_step / self.total_steps)
            return replace(self, total_steps=last_step, warmup_steps=max(step, shrunk))
        return replace(self, landing=(step, last_step, self(step)))
