"""From the owner's budget to seconds."""

from __future__ import annotations

import time
from datetime import datetime, timedelta


def seconds_allowed(until: str | None, hours: float | None, now: datetime) -> float | None:
    """Seconds from `now` until the earlier of the two; None without a limit. "07:00" is the next 07:00."""
    limits = []
    if until is not None:
        hour, minute = (int(part) for part in until.split(":"))
        then = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        limits.append(((then if then > now else then + timedelta(days=1)) - now).total_seconds())
    if hours is not None:
        limits.append(hours * 3600.0)
    return min(limits, default=None)


class Countdown:
    """How much of an allowance is left, from the moment it is made."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds left, below zero when it is over; None where there is no limit."""
        return None if self._end is None else self._end - time.monotonic()
