"""Seconds, bytes, joules and dollars as people read them."""

from __future__ import annotations

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_JOULES_PER_WH = 3600.0


def duration(seconds: float) -> str:
    """'0.4 s', '12 s', '6 min 30 s', '6 h 30 min', '2 d 3 h'."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size_s, name, part_s, part_name in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= size_s:
            count, rest = divmod(round(whole / part_s), size_s // part_s)
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


def energy(joules: float) -> str:
    """'0.35 Wh', '12.4 Wh', '1.20 kWh'."""
    wh = joules / _JOULES_PER_WH
    if wh >= 1000:
        return f"{wh / 1000:.2f} kWh"
    return f"{wh:.1f} Wh" if wh >= 1 else f"{wh:.2g} Wh"


def dollars(amount: float) -> str:
    """'$0', 'less than $0.01', '$1.25', '$1,250'."""
    if amount == 0:
        return "$0"
    if amount < 0.01:
        return "less than $0.01"
    return f"${amount:,.2f}" if amount < 1000 else f"${amount:,.0f}"
