"""What judges an answer by the owner's own rules: the question it answers, and why a rule may have nothing to say.

Rewards and the checks of suites both run an owner's Python function, so that it lies below them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_FAILED, ENOUGH_TO_JUDGE = 0.5, 20
"""What fails for more than this share of the answers is broken, once there are enough of them to tell."""


@dataclass(frozen=True)
class Question:
    """What an answer is judged by beside its text: the turns before it, and the prompt's row as its file has it
    ("answer", "schema" or whatever else a rule looks for). `folder` is that file's: paths in the row start there."""

    id: str
    messages: tuple[Mapping[str, Any], ...]
    row: Mapping[str, Any]
    folder: Path = Path()


@dataclass(frozen=True)
class Failed:
    """Why an answer has no number: `kind` is one of few words, so that failures can be counted ("timed out")."""

    kind: str
    detail: str


Asked = Sequence[tuple[Question, str]]
"""Questions with an answer each."""


def counted(failures: Counter[str], examples: Mapping[str, str]) -> list[str]:
    """'raised (3×, such as heldout:7: KeyError)' of each kind of failure, the most frequent first."""
    return [f"{kind} ({count}×, such as {examples[kind]})" for kind, count in failures.most_common()]


def finite(value: float) -> float | Failed:
    """A rule's number, or why it is none."""
    try:
        number = float(value)
    except OverflowError:  # of a whole number
        number = math.inf
    return number if math.isfinite(number) else Failed("not finite", f"got {number}")
