"""The one spelling of a moment in the ledger."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def now_iso(*, after_s: float = 0.0) -> str:
    """Now in UTC, or so many seconds after, to the millisecond: '2026-05-01T22:14:03.120Z'. Sorts as text."""
    moment = datetime.now(UTC) + timedelta(seconds=after_s)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
