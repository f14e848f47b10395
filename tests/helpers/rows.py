"""Rows in memory, for what needs no token store."""

from __future__ import annotations

import numpy as np


class Listed:
    """Tokenised rows from a list."""

    def __init__(self, rows: list[tuple[np.ndarray, np.ndarray]]) -> None:
        self.rows, self.lengths = rows, np.array([len(tokens) for tokens, _ in rows], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.rows[index]


def counting_rows(count: int, vocabulary: int, seed: int) -> Listed:
    """Rows that a model can learn: each counts upwards from a random start, all but the first supervised."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        length = int(rng.integers(4, 20))
        start = int(rng.integers(3, vocabulary))
        tokens = (3 + (start - 3 + np.arange(length)) % (vocabulary - 3)).astype(np.uint32)
        rows.append((tokens, np.arange(length) > 0))
    return Listed(rows)
