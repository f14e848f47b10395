"""Packing: rows of tokens laid end to end, with no padding.

T packed tokens · N segments (one a row) · S supervised positions
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol, runtime_checkable

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


@runtime_checkable
class PacksItself(Protocol):
    """Rows that a pack holds more of than their tokens."""

    lengths: NDArray[np.int64]

    def __len__(self) -> int: ...

    def pack(self, which: Sequence[int], device: torch.device | str) -> Packed: ...


class Selected:
    """Some of the rows, by their indices."""

    def __init__(self, rows: Rows, which: Sequence[int]) -> None:
        self._rows, self._which, self.lengths = rows, which, rows.lengths[list(which)]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> tuple[Tokens, Trained]:
        return self._rows[self._which[index]]


class Head(Selected):
    """The first `most` rows of others."""

    def __init__(self, rows: Rows, most: int) -> None:
        super().__init__(rows, range(min(most, len(rows))))


@dataclass(frozen=True)
class Segments:
    """Who sees whom in a pack: a token sees those before it in its own segment, and all of its prefix.

    `bounds` are the N+1 segment borders in [0, T]; `prefix[i]` is the segment that segment i goes on from, or -1.
    A prefix stands before what goes on from it and has none of its own.
    """

    bounds: tuple[int, ...]
    prefix: tuple[int, ...]

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Every segment's first token, and the one after its last."""
        return list(pairwise(self.bounds))

    @property
    def starts(self) -> list[int]:
        """The position of every segment's first token: the length of its prefix."""
        lengths = [end - start for start, end in self.spans]
        return [lengths[parent] if parent >= 0 else 0 for parent in self.prefix]


@dataclass(frozen=True)
class Judged:
    """What is known of each of the N answers of `pack_groups`: whether it was found good (bool; of a tie both were),
    and its log p under the reference, summed over its trained tokens (float32; zeros where the objective needs none).
    `margin_P` says of each group by how much its first answer should win (float32)."""

    good_N: torch.Tensor
    reference_N: torch.Tensor
    margin_P: torch.Tensor


@dataclass(frozen=True)
class Packed:
    """Rows laid end to end. All tensors are int64 on one device, but `weights_S` (float32).

    `source_S` is the index in T whose output predicts `targets_S`; `row_S` says to which row, or which answer of
    `pack_groups`, a supervised position belongs, counted from 0. `below_TH` is what a model's frozen lower blocks
    make of the tokens, where that is known already: the model then begins above them. `judged` is there where answers
    are learned from that somebody has judged.
    """

    tokens_T: torch.Tensor
    positions_T: torch.Tensor
    segments: Segments
    source_S: torch.Tensor
    targets_S: torch.Tensor
    weights_S: torch.Tensor
    row_S: torch.Tensor
    below_TH: torch.Tensor | None = None
    judged: Judged | None = None


class RowsBelow:
    """Rows whose tokens' outputs of the frozen lower blocks are known: bfloat16 [tokens of all rows, H], as the
    bits of int16, in the order of the rows."""

    def __init__(self, rows: Rows, below: NDArray[np.int16]) -> None:
        self._rows, self._below, self.lengths = rows, below, rows.lengths
        self._ends = np.cumsum(rows.lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> tuple[Tokens, Trained]:
        return self._rows[index]

    def below(self, index: int) -> NDArray[np.int16]:
        """[L, H] of one row."""
        end = int(self._ends[index])
        return self._below[end - int(self.lengths[index]) : end]

    def pack(self, which: Sequence[int], device: torch.device | str) -> Packed:
        """Some of the rows, with what is known of them."""
        bits = np.concatenate([self.below(row) for row in which])
        below_TH = torch.from_numpy(bits).view(torch.bfloat16).to(device)
        return replace(pack([self[row] for row in which], device), below_TH=below_TH)


def pack_rows(rows: Rows | PacksItself, which: Sequence[int], device: torch.device | str = "cpu") -> Packed:
    """Some of `rows` laid end to end, with what is known of them."""
    if isinstance(rows, PacksItself):
        return rows.pack(which, device)
    return pack([rows[row] for row in which], device)


def pack(rows: Sequence[tuple[Tokens, Trained]], device: torch.device | str = "cpu") -> Packed:
    """Lay rows end to end. A row's first token has no predecessor and is therefore never a target."""
    lengths = np.array([len(tokens) for tokens, _ in rows], dtype=np.int64)
    bounds = np.concatenate(([0], np.cumsum(lengths)))
    tokens_T = np.concatenate([tokens for tokens, _ in rows]).astype(np.int64)
    positions_T = np.concatenate([np.arange(n, dtype=np.int64) for n in lengths])
    trained_T = np.concatenate([trained for _, trained in rows]) & (positions_T > 0)
    target_index_S = np.flatnonzero(trained_T)
    row_S = np.searchsorted(bounds, target_index_S, side="right") - 1

    return _packed(
        tokens_T,
        positions_T,
        Segments(tuple(bounds.tolist()), (-1,) * len(rows)),
        source_S=target_index_S - 1,
        targets_S=tokens_T[target_index_S],
        row_S=row_S,
        device=device,
    )


def only(packed: Packed, kept_S: NDArray[np.bool_]) -> Packed:
    """The pack with some of its targets: what its tokens see does not change."""
    kept = torch.from_numpy(kept_S).to(packed.targets_S.device)
    names = ("source_S", "targets_S", "weights_S", "row_S")
    return replace(packed, **{name: getattr(packed, name)[kept] for name in names})


def pack_groups(
    groups: Sequence[tuple[Tokens, Sequence[Tokens]]], device: torch.device | str = "cpu"
) -> Packed:
    """Prompts with several answers each, every prompt once: its answers all go on from the same tokens.

    Every token of an answer is a target; its first is predicted by the prompt's last. Prompts and answers have
    a token at least.
    """
    parts: list[Tokens] = []
    prefix: list[int] = []
    sources: list[NDArray[np.int64]] = []
    bounds = [0]
    for prompt, answers in groups:
        parent = len(parts)
        parts.append(prompt)
        prefix.append(-1)
        bounds.append(bounds[-1] + len(prompt))
        last_of_prompt = bounds[-1] - 1
        for answer in answers:
            own = np.arange(bounds[-1], bounds[-1] + len(answer) - 1, dtype=np.int64)
            sources.append(np.concatenate(([last_of_prompt], own)))
            parts.append(answer)
            prefix.append(parent)
            bounds.append(bounds[-1] + len(answer))
    segments = Segments(tuple(bounds), tuple(prefix))
    answers_of = [part for part, parent in zip(parts, prefix, strict=True) if parent >= 0]
    positions = [
        np.arange(first, first + len(part), dtype=np.int64)
        for first, part in zip(segments.starts, parts, strict=True)
    ]
    return _packed(
        np.concatenate(parts).astype(np.int64),
        np.concatenate(positions),
        segments,
        source_S=np.concatenate(sources),
        targets_S=np.concatenate(answers_of).astype(np.int64),
        row_S=np.repeat(np.arange(len(answers_of), dtype=np.int64), [len(answer) for answer in answers_of]),
        device=device,
    )


def _packed(
    tokens_T: NDArray[np.int64],
    positions_T: NDArray[np.int64],
    segments: Segments,
    *,
    source_S: NDArray[np.int64],
    targets_S: NDArray[np.int64],
    row_S: NDArray[np.int64],
    device: torch.device | str,
) -> Packed:
    """Arrays as tensors, every target with weight 1."""

    def tensor(array: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return Packed(
        tokens_T=tensor(tokens_T),
        positions_T=tensor(positions_T),
        segments=segments,
        source_S=tensor(source_S),
        targets_S=tensor(targets_S),
        weights_S=torch.ones(len(targets_S), device=device),
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
