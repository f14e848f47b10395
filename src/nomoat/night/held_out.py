"""The held-out rows in two halves: those that steer training, and those that say what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nomoat.data.judged import Groups, JudgedStore, Some
from nomoat.data.pack import Rows, Selected
from nomoat.data.split import steering_and_judging
from nomoat.data.store import TokenStore

HELD_OUT = "held_out"
LEAST_HELD_OUT = 2
"""Rows that an interval of the difference of two losses needs."""


def steering_rows(data: Path) -> Rows:
    """Of the rows in a data folder."""
    held_out = TokenStore.open(data / HELD_OUT)
    return Selected(held_out, steering_and_judging(held_out.split_hashes)[0])


def steering_groups(judgements: Path) -> Groups:
    """Of the judged answers in a folder of them."""
    held_out = JudgedStore(judgements / "judged" / HELD_OUT)
    return Some(held_out, steering_and_judging(held_out.split_hashes)[0])


@dataclass(frozen=True)
class JudgingRows:
    """Rows that did not steer training. `pieces_N` says of which piece of evidence each is a part: parts of one text,
    and answers to one prompt, are no evidence of their own beside one another."""

    rows: Rows
    pieces_N: NDArray[np.int64]

    @staticmethod
    def of(data: Path, most: int) -> JudgingRows:
        """The first `most` of them, in a data folder."""
        held_out = TokenStore.open(data / HELD_OUT)
        return _judging(held_out, steering_and_judging(held_out.split_hashes)[1][:most])

    @staticmethod
    def or_all(data: Path, most: int) -> JudgingRows:
        """As `of`, and of all held-out rows where too few judge for an interval."""
        found = JudgingRows.of(data, most)
        if len(np.unique(found.pieces_N)) >= LEAST_HELD_OUT:
            return found
        held_out = TokenStore.open(data / HELD_OUT)
        return _judging(held_out, range(min(most, len(held_out))))

    def together(self, column_N: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over each piece, in the order of the rows."""
        return np.bincount(self.pieces_N, np.asarray(column_N, dtype=np.float64)).astype(np.float64)


def _judging(held_out: TokenStore, which: Sequence[int]) -> JudgingRows:
    hashes = held_out.split_hashes
    numbers: dict[str, int] = {}
    pieces = [numbers.setdefault(hashes[index], len(numbers)) for index in which]
    return JudgingRows(Selected(held_out, which), np.array(pieces, dtype=np.int64))
