from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomoat.train import pace
from nomoat.train.pace import Pace, StepClock


def steady(steps: int = 100, *, step_s: float = 1.0, held_out_s: float = 0.0, eval_steps: int = 10) -> Pace:
    return Pace(steps, step_s, held_out_s, eval_steps)


@pytest.mark.parametrize(
    ("step", "last_step", "evaluated", "held_outs"),
    [
        (1, 30, False, 3),
        (1, 35, False, 4),  # 10, 20, 30 and the end
        (10, 30, False, 3),
        (10, 30, True, 2),
        (30, 30, False, 1),
        (30, 30, True, 0),
        (35, 35, False, 1),
        (35, 35, True, 0),
        (31, 35, True, 1),
    ],
)
def test_a_forecast_counts_steps_and_held_out_losses(
    step: int, last_step: int, evaluated: bool, held_outs: int
) -> None:
    expected = 2.0 * (last_step - step) + 7.0 * held_outs
    assert steady(step_s=2.0, held_out_s=7.0).seconds(step, last_step, evaluated=evaluated) == expected


@given(
    step=st.integers(1, 50),
    planned=st.integers(1, 200),
    step_s=st.floats(0.01, 10),
    held_out_s=st.floats(0, 100),
    eval_steps=st.integers(1, 60),
    left_s=st.floats(0.01, 500),
    landed=st.booleans(),
)
def test_what_is_affordable_fits_and_no_step_more_would(
    step: int,
    planned: int,
    step_s: float,
    held_out_s: float,
    eval_steps: int,
    left_s: float,
    landed: bool,
) -> None:
    measured = Pace(100, step_s, held_out_s, eval_steps)
    last_step = step + planned
    more = measured.affordable(step, last_step, left_s, landed=landed)
    if more == planned:
        assert measured.seconds(step, last_step) <= left_s * (pace.LANDED_SLACK if landed else 1.0)
        return
    assert 0 <= more < planned
    assert more == 0 or measured.seconds(step, step + more) <= left_s
    assert measured.seconds(step, step + more + 1) > left_s


@pytest.mark.parametrize("steps", [1, 2, 100])
def test_without_time_left_it_ends_now(steps: int) -> None:
    assert steady(steps, step_s=0.0).affordable(10, 20, 0.0, landed=True) == 0
    assert steady(steps).affordable(10, 20, -5.0, landed=False) == 0


@pytest.mark.parametrize(
    ("steps", "left_s", "affordable"),
    [
        (1, 20.0, 100),  # one step of 10 s, 20 s left: a second one is awaited
        (1, 19.0, 1),  # and here it is not: it might leave too little
        (2, 20.0, 2),
        (4, 700.0, 100),  # 1000 s to come are late by less than a half
        (4, 660.0, 66),
        (5, 999.0, 99),
        (5, 1000.0, 100),
    ],
)
def test_the_fewer_steps_the_larger_the_miss_must_be(steps: int, left_s: float, affordable: int) -> None:
    measured = steady(steps, step_s=10.0, eval_steps=1000)
    assert measured.affordable(3, 103, left_s, landed=False) == affordable


def test_a_landing_is_corrected_only_when_it_is_clearly_missed() -> None:
    measured = steady(step_s=10.0)
    assert measured.affordable(3, 13, 96.0, landed=True) == 10
    assert measured.affordable(3, 13, 96.0, landed=False) == 9
    assert measured.affordable(3, 13, 94.0, landed=True) == 9


def test_the_clock_leaves_out_the_first_step_and_what_was_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    clock = StepClock()
    now[0] += 50.0
    clock.step_done()
    assert (clock.steps, clock.step_s) == (1, 50.0)
    for seconds in (2.0, 4.0):
        now[0] += seconds + 30.0
        clock.leave_out(30.0)
        clock.step_done()
    assert (clock.steps, clock.step_s) == (3, 3.0)
