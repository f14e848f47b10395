"""Two answers that are shown while they are written."""

from __future__ import annotations

import pytest

from nomoat.chat.conversation import Conversation
from nomoat.engine.base import Sampling
from nomoat.serve.web.arena_answers import Half, in_step


def half(letters: int, *, is_whole: bool) -> Half:
    return Half("m", Conversation(()), Sampling(), "x" * letters, is_whole)


@pytest.mark.parametrize(
    ("left", "is_left_whole", "right", "is_right_whole", "may", "shown"),
    [
        (10, False, 4, False, 8, 4),  # the slower side's pace
        (10, True, 4, False, 8, 4),  # the faster side is done, and waits
        (3, True, 50, False, 20, 20),  # the shorter answer ended: nobody jumps ahead
        (3, True, 50, True, 20, 20),
        (3, True, 10, True, 20, 10),
        (0, False, 10, True, 20, 0),
    ],
)
def test_as_much_of_both_is_shown_as_the_slower_one_has(
    left: int, is_left_whole: bool, right: int, is_right_whole: bool, may: float, shown: int
) -> None:
    sides = half(left, is_whole=is_left_whole), half(right, is_whole=is_right_whole)
    assert in_step(*sides, may) == in_step(*reversed(sides), may) == shown
