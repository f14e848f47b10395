"""Measured numbers as people read them: a value never without its interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One number with its interval; both ends are None where it has none."""

    value: float
    low: float | None
    high: float | None


def is_share(name: str) -> bool:
    """Whether a metric is a share of prompts, shown in per cent; anything else is a loss in nats."""
    return name.startswith("pass rate")


def level(name: str, figure: Figure) -> str:
    """'63%' or '1.412'."""
    return f"{100 * figure.value:.0f}%" if is_share(name) else f"{figure.value:.3f}"


def change(name: str, figure: Figure) -> str:
    """'+51 points (44 to 58)' or '-0.512 (-0.560 to -0.470)'."""
    factor, form, unit = (100, ".1f", " points") if is_share(name) else (1, ".3f", "")
    value = f"{factor * figure.value:+{form}}{unit}"
    if figure.low is None or figure.high is None:
        return value
    return f"{value} ({factor * figure.low:{form}} to {factor * figure.high:{form}})"
