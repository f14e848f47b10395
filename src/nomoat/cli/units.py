"""Numbers as people read them. Everything below this room is seconds, bytes, joules and dollars."""

from __future__ import annotations

from datetime import datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_JOULES_PER_WH = 3600.0


def duration(seconds: float) -> str:
    """'0.4 s', '12 s', '6 min 30 s', '6 h 30 min', '2 d 3 h'."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, part_size, part_name in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= size:
            count, rest = divmod(round(whole / part_size), size // part_size)
            return f"{count} {name} {rest} {part_name}" if rest else f"{count} {name}"
    return f"{whole} s"


def size(count: float) -> str:
    """Bytes in decimal units: '980 bytes', '14.2 MB'."""
    if count < 1000:
        return f"{count:.0f} byte{'' if count == 1 else 's'}"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.5:
            return f"{count:.1f} {unit}" if count < 99.95 else f"{count:.0f} {unit}"
    return f"{count / 1000:.1f} TB"


def dollars(amount: float) -> str:
    """'$0', 'less than $0.01', '$1.25', '$1,250'."""
    if amount == 0:
        return "$0"
    if amount < 0.01:
        return "less than $0.01"
    return f"${amount:,.2f}" if amount < 1000 else f"${amount:,.0f}"


def energy(joules: float) -> str:
    """'0.35 Wh', '12.4 Wh', '1.20 kWh'."""
    wh = joules / _JOULES_PER_WH
    if wh >= 1000:
        return f"{wh / 1000:.2f} kWh"
    return f"{wh:.1f} Wh" if wh >= 1 else f"{wh:.2g} Wh"


def count(number: int, one: str, many: str | None = None) -> str:
    """'1 row', '1,204 rows'."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def share(part: float) -> str:
    """A share in [0, 1]: '42 %', and '0.4 %' where a whole per cent would hide it."""
    percent = 100 * part
    return f"{percent:.1f} %" if 0 < percent < 9.95 else f"{percent:.0f} %"


def local_time(moment: str) -> str:
    """The ledger's UTC moment on this machine's clock, to the minute: '2026-11-24 06:58'."""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M")


def one_line(text: str, most: int) -> str:
    """Text on one line of at most `most` characters, its cut marked."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"
