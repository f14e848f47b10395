"""How long a run will take, as measured, and how many more of its steps the time left affords."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from dataclasses import dataclass

# The first step is a warm-up: it is believed only where another like it would take half of the time left. The
# next ones are too few for a good mean: they shorten a run only where it is late by half.
WARM_UP_SHARE = 0.5
STEPS_TO_JUDGE_BY = 5
EARLY_SLACK = 1.5
# A run that was shortened is shortened again only when it is clearly late, or every step would move its end by
# a hair.
LANDED_SLACK = 1.05


@dataclass(frozen=True)
class Pace:
    """`step_s` is the mean of `steps` steps, checkpoints included; `held_out_s` is what a held-out loss takes,
    which is measured every `eval_steps` and after the last step."""

    steps: int
    step_s: float
    held_out_s: float
    eval_steps: int

    def seconds(self, step: int, last_step: int, *, evaluated: bool = False) -> float:
        """From the end of `step` to the end of `last_step`, held-out losses included; `evaluated` where that
        of `step` has been measured."""
        after = step if evaluated else step - 1
        held_outs = last_step // self.eval_steps - after // self.eval_steps
        if last_step > after:
            held_outs += last_step % self.eval_steps != 0
        return (last_step - step) * self.step_s + held_outs * self.held_out_s

    def affordable(self, step: int, last_step: int, left_s: float, *, landed: bool) -> int:
        """How many of the steps after `step` to make in `left_s`: all, unless they are late. `landed` says
        that the run was shortened before."""
        planned = last_step - step
        if left_s <= 0:
            return 0
        if self.seconds(step, last_step) <= left_s * self._slack(step, last_step, left_s, landed):
            return planned
        in_time = bisect_right(range(planned), left_s, key=lambda more: self.seconds(step, step + more))
        return max(0, in_time - 1)

    def _slack(self, step: int, last_step: int, left_s: float, landed: bool) -> float:
        """How many times the time left a forecast must exceed to be acted on."""
        if self.steps == 1 and self.seconds(step, min(last_step, step + 1)) <= WARM_UP_SHARE * left_s:
            return math.inf
        if self.steps < STEPS_TO_JUDGE_BY:
            return EARLY_SLACK
        return LANDED_SLACK if landed else 1.0


class StepClock:
    """Measures the mean seconds of a step since it was made, the first step left out as soon as there is
    another."""

    def __init__(self) -> None:
        self.steps = 0
        self._first_s = self._others_s = 0.0
        self._mark = time.monotonic()

    def step_done(self) -> None:
        """A step ends now, and with it whatever came between it and the one before."""
        now = time.monotonic()
        if self.steps == 0:
            self._first_s = now - self._mark
        else:
            self._others_s += now - self._mark
        self.steps += 1
        self._mark = now

    def leave_out(self, seconds: float) -> None:
        """So many of the seconds just past were no step's."""
        self._mark += seconds

    @property
    def step_s(self) -> float:
        """Mean seconds of a step."""
        return self._others_s / (self.steps - 1) if self.steps > 1 else self._first_s
