from __future__ import annotations

from datetime import datetime

import pytest

from nomoat.night.deadline import Countdown, seconds_allowed

EVENING = datetime(2026, 11, 24, 23, 30)


@pytest.mark.parametrize(
    ("until", "hours", "seconds"),
    [
        (None, None, None),
        ("07:00", None, 7.5 * 3600),
        ("23:45", None, 15 * 60),
        ("23:30", None, 24 * 3600),
        (None, 2.0, 7200),
        ("07:00", 2.0, 7200),
        ("00:30", 2.0, 3600),
    ],
)
def test_the_earlier_of_time_of_day_and_hours(
    until: str | None, hours: float | None, seconds: float | None
) -> None:
    assert seconds_allowed(until, hours, EVENING) == seconds


def test_a_countdown_counts_and_no_limit_is_no_limit() -> None:
    assert Countdown(None).left() is None
    left = Countdown(100.0).left()
    assert left is not None
    assert 99.0 < left <= 100.0
    gone = Countdown(-1.0).left()
    assert gone is not None
    assert gone < 0
