"""Signs that a model has learned to please its rewards and not their owner: read from the curve, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WINDOW = 3
"""Steps whose mean counts: one batch of answers is noise."""
LEAST_ROOM_TOKENS = 8


def sign_of_hacking(
    steps: Sequence[dict[str, Any]],
    held_out: Sequence[dict[str, Any]],
    *,
    max_kl: float,
    max_length_growth: float,
    max_pass_drop: float,
) -> str | None:
    """Why a run should end now, or None.

    The KL to the reference, in nats a token, is beyond its budget; answers have grown to `max_length_growth` times
    their first length; or the held-out pass rate has been `max_pass_drop` below its best twice in a row.
    """
    if len(steps) >= WINDOW:
        kl = _mean(steps[-WINDOW:], "kl")
        if kl > max_kl:
            return (
                f"the KL to the reference is {kl:.3f} nats a token, beyond its budget of {max_kl:g} (max_kl)"
            )
        first, now = _mean(steps[:WINDOW], "length"), _mean(steps[-WINDOW:], "length")
        if now > max(max_length_growth * first, first + LEAST_ROOM_TOKENS):
            return (
                f"answers have grown from {first:.0f} to {now:.0f} tokens, more than {max_length_growth:g} times "
                "(max_length_growth)"
            )
    if len(held_out) >= WINDOW:
        best = max(point["pass_rate"] for point in held_out)
        last = [point["pass_rate"] for point in held_out[-2:]]
        if max(last) < best - max_pass_drop:
            return f"the held-out pass rate has fallen from {best:.0%} to {last[-1]:.0%} (max_pass_drop)"
    return None


def _mean(points: Sequence[dict[str, Any]], name: str) -> float:
    return float(sum(point[name] for point in points) / len(points))
