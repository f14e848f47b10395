from __future__ import annotations

import pytest

from nomoat.train.schedule import Schedule


def test_warm_up_then_cosine_to_zero() -> None:
    rate = Schedule("cosine", 1.0, total_steps=110, warmup_steps=10)
    assert [rate(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert rate(60) == pytest.approx(0.5)
    assert rate(109) < 0.001


def test_linear_and_constant() -> None:
    assert Schedule("linear", 2.0, total_steps=100, warmup_steps=0)(50) == pytest.approx(1.0)
    assert Schedule("constant", 2.0, total_steps=100, warmup_steps=0)(99) == 2.0


def test_landing_falls_from_the_height_it_has_to_zero() -> None:
    rate = Schedule("constant", 1.0, total_steps=100, warmup_steps=0).land(40, 60)
    assert rate.last_step == 60
    assert [rate(step) for step in (39, 40, 50, 60)] == pytest.approx([1.0, 1.0, 0.5, 0.0])


def test_a_second_landing_begins_where_the_first_has_come() -> None:
    rate = Schedule("constant", 1.0, total_steps=100, warmup_steps=0).land(40, 60).land(50, 55)
    assert rate.last_step == 55
    assert [rate(step) for step in (50, 54)] == pytest.approx([0.5, 0.1])


def test_landing_within_the_warm_up_shrinks_the_whole_schedule() -> None:
    rate = Schedule("cosine", 1.0, total_steps=1000, warmup_steps=100).land(10, 100)
    assert (rate.total_steps, rate.warmup_steps, rate.last_step) == (100, 10, 100)
    assert max(rate(step) for step in range(100)) == pytest.approx(1.0)
