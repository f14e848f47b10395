"""Numbers as people read them. Everything below this room is seconds, bytes, joules and dollars."""

from __future__ import annotations

from datetime import datetime

from nomoat.night.units import dollars, duration, energy, size

__all__ = ["count", "dollars", "duration", "energy", "local_time", "one_line", "share", "size"]


def count(number: int, one: str, many: str | None = None) -> str:
    """'1 row', '1,204 rows'."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def share(part: float) -> str:
    """A share in [0, 1]: '42%', and '0.4%' where a whole per cent would hide it."""
    percent = 100 * part
    return f"{percent:.1f}%" if 0 < percent < 9.95 else f"{percent:.0f}%"


def local_time(moment: str) -> str:
    """The ledger's UTC moment on this machine's clock, to the minute: '2026-11-24 06:58'."""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M")


def one_line(text: str, most: int) -> str:
    """Text on one line of at most `most` characters, its cut marked."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"
