"""Which rows are kept out of training."""

from __future__ import annotations


def held_out(content_hash: str, share: float) -> bool:
    """Whether the row with this sha256 (hex) is held out, if `share` (0..1) of all rows are.

    It depends on the row alone: a row never crosses over when the file grows, and a larger share holds out
    the same rows and some more."""
    return place(content_hash) < share


def place(content_hash: str) -> float:
    """The hash as a number in [0, 1), evenly spread: the row is held out by every share above it."""
    return int(content_hash[:13], 16) / 16**13  # 52 bits, which a float64 holds exactly
