"""Blind battles between two models of this process, as a machine that knows no terminal."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from nomoat.evaluate.battle import Battle, Contestant, Question, draw_question, draw_sides

if TYPE_CHECKING:
    from nomoat.chat.conversation import Conversation
    from nomoat.cli.talkers import Talker
    from nomoat.engine.base import Sampling


class Match:
    """Battles between two contestants, each with what answers for it: the same template, sampling, seed and cap on
    both sides. With `self_share` as a chance the first one meets itself."""

    def __init__(
        self,
        pair: Sequence[tuple[Contestant, Talker]],
        pool: Sequence[Question],
        sampling: Sampling,
        *,
        chance: random.Random,
        self_share: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        (self._one, _), (self._other, _) = pair
        self._talkers = {contestant.model: talker for contestant, talker in pair}
        self._pool = pool
        self._sampling = sampling
        self._chance = chance
        self._self_share = self_share
        self._clock = clock

    def draw(self) -> Question | None:
        """A prompt of the pool; None where that is empty."""
        return draw_question(self._pool, self._chance)

    def ask(self, question: Question) -> Battle:
        """Both answers, whole, on sides drawn by chance. Raises EngineError where a context is too small."""
        other = self._one if self._chance.random() < self._self_share else self._other
        draw = draw_sides(self._one, other, self._sampling, self._chance)
        left_answer, right_answer = (
            _whole_answer(self._talkers[side.model], question.conversation, sampling)
            for side, sampling in ((draw.left, draw.left_sampling), (draw.right, draw.right_sampling))
        )
        return Battle(question, draw, left_answer, right_answer, self._clock())

    def now_s(self) -> float:
        """The clock that battles are timed by."""
        return self._clock()


def _whole_answer(talker: Talker, conversation: Conversation, sampling: Sampling) -> str:
    with closing(talker.stream(conversation, sampling)) as stream:
        return "".join(stream)
