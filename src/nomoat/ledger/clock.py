"""The one spelling of a moment in the ledger."""

from __future__ import annotations

from datetime import UTC, datetime


def now_iso() -> str:
    """Now in UTC, to the millisecond: '2026-05-01T22:14:03.120Z'. Sorts as text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
