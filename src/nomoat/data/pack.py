"""Packing: rows of tokens laid end to end, with no padding.

T packed tokens · N segments (one a row) · S supervised positions
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Tokens = NDArray[np.uint32]
Trained = NDArray[np.bool_]


class Rows(Protocol):
    """Tokenised rows by index: `TokenStore`, or anything that answers like it."""

    lengths: NDArray[np.int64]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tokens, Trained]: ...


class Head:
    """The first `most` rows of others."""

    def __init__(self, rows: Rows, most: int) -> None:
        self._rows, self.lengths = rows, rows.lengths[:most]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> tuple[Tokens, Trained]:
        return self._rows[index]


@dataclass(frozen=True)
class Packed:
    """Rows laid end to end. All tensors are int64 on one device, but `weights_S` (float32).

    `bounds` are the N+1 segment borders in [0, T]; `source_S` is the index in T whose output predicts
    `targets_S`; `row_S` says to which segment (0..N-1) a supervised position belongs.
    """

    tokens_T: torch.Tensor
    positions_T: torch.Tensor
    bounds: tuple[int, ...]
    source_S: torch.Tensor
    targets_S: torch.Tensor
    weights_S: torch.Tensor
    row_S: torch.Tensor


def pack(rows: Sequence[tuple[Tokens, Trained]], device: torch.device | str = "cpu") -> Packed:
    """Lay rows end to end. A row's first token has no predecessor and is therefore never a target."""
    lengths = np.array([len(tokens) for tokens, _ in rows], dtype=np.int64)
    bounds = np.concatenate(([0], np.cumsum(lengths)))
    tokens_T = np.concatenate([tokens for tokens, _ in rows]).astype(np.int64)
    positions_T = np.concatenate([np.arange(n, dtype=np.int64) for n in lengths])
    trained_T = np.concatenate([trained for _, trained in rows]) & (positions_T > 0)
    target_index_S = np.flatnonzero(trained_T)
    row_S = np.searchsorted(bounds, target_index_S, side="right") - 1

    def tensor(array: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return Packed(
        tokens_T=tensor(tokens_T),
        positions_T=tensor(positions_T),
        bounds=tuple(int(bound) for bound in bounds),
        source_S=tensor(target_index_S - 1),
        targets_S=tensor(tokens_T[target_index_S]),
        weights_S=torch.ones(len(target_index_S), device=device),
        row_S=tensor(row_S),
    )


def fill(order: Sequence[int], lengths: NDArray[np.int64], budget_tokens: int) -> list[list[int]]:
    """Cut `order` into runs of rows whose tokens fit the budget; a longer row gets a run of its own."""
    runs: list[list[int]] = []
    room = 0
    for row in order:
        need = int(lengths[row])
        if not runs or need > room:
            runs.append([])
            room = budget_tokens
        runs[-1].append(int(row))
        room -= need
    return runs


class StepPlan:
    """Which rows every step of training reads: a pure function of lengths, budget, epochs and seed.

    A step depends on nothing that happened before it, so a resumed run reads the same rows.
    """

    def __init__(
        self,
        lengths: NDArray[np.int64],
        *,
        tokens_per_step: int,
        epochs: float,
        max_steps: int | None,
        seed: int,
    ) -> None:
        self.steps: list[list[int]] = []
        whole, part = int(epochs), epochs - int(epochs)
        for epoch in range(whole + (part > 0)):
            if max_steps is not None and len(self.steps) >= max_steps:
                break
            order = np.random.default_rng([seed, epoch]).permutation(len(lengths))
            runs = fill(order.tolist(), lengths, tokens_per_step)
            self.steps += runs if epoch < whole else runs[: max(1, round(part * len(runs)))]
        self.steps = self.steps[:max_steps]

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, step: int) -> list[int]:
        return self.steps[step]
