"""Judged answers in memory."""

from __future__ import annotations

import numpy as np

from nomoat.data.judged import Group


class ListedGroups:
    """Groups from a list."""

    def __init__(self, groups: list[Group]) -> None:
        self._groups, self.answers = groups, len(groups[0].answers)
        self.lengths = np.array([group.tokens for group in groups], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index: int) -> Group:
        return self._groups[index]


def group(prompt: list[int], answers: list[list[int]], good: list[bool] | None = None) -> Group:
    """A group whose answers are trained in full; without `good` the first is the preferred one."""
    good = good if good is not None else [index == 0 for index in range(len(answers))]
    rows = tuple(
        (np.array(answer, dtype=np.uint32), np.ones(len(answer), dtype=np.bool_)) for answer in answers
    )
    return Group(np.array(prompt, dtype=np.uint32), rows, tuple(good))


def random_groups(
    count: int,
    vocabulary: int,
    seed: int,
    *,
    answers: int = 2,
    prompt: int | None = None,
    first: int | None = None,
) -> ListedGroups:
    """Groups of random tokens. `prompt` and `first` fix the lengths of prompts and of first answers."""
    rng = np.random.default_rng(seed)

    def tokens(length: int) -> list[int]:
        return rng.integers(3, vocabulary, length).tolist()

    made = []
    for _ in range(count):
        lengths = [int(rng.integers(2, 12)) for _ in range(answers)]
        lengths[0] = first or lengths[0]
        asked = tokens(prompt or int(rng.integers(2, 15)))
        good = None if answers > 1 else [bool(rng.integers(0, 2))]
        made.append(group(asked, [tokens(length) for length in lengths], good))
    return ListedGroups(made)
