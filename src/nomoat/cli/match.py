"""Blind battles between two models of this process, as a machine that knows no terminal."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from nomoat.evaluate.battle import (
    Battle,
    Contestant,
    Draw,
    Question,
    Turn,
    draw_probe,
    draw_question,
    draw_sides,
)

if TYPE_CHECKING:
    from nomoat.chat.conversation import Conversation
    from nomoat.cli.talkers import Talker
    from nomoat.engine.base import Sampling


class Match:
    """Battles between two contestants, each with what answers for it: the same template, sampling, seed and cap on
    both sides. With `self_share` as a chance the first one meets itself, and with `probe_share` a drawn prompt makes a
    probe that the first one answers. `keep_draw` is told of every prompt before two models answer it, and gives the
    draw's id."""

    def __init__(
        self,
        pair: Sequence[tuple[Contestant, Talker]],
        pool: Sequence[Question],
        sampling: Sampling,
        *,
        chance: random.Random,
        self_share: float = 0.0,
        probe_share: float = 0.0,
        keep_draw: Callable[[Question, Contestant, Contestant], int | None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        (self._one, _), (self._other, _) = pair
        self._talkers = {contestant.model: talker for contestant, talker in pair}
        self._pool = pool
        self._sampling = sampling
        self._chance = chance
        self._self_share = self_share
        self._probe_share = probe_share
        self._keep_draw = keep_draw
        self._clock = clock

    def draw(self) -> Question | None:
        """A prompt of the pool; None where that is empty."""
        return draw_question(self._pool, self._chance)

    def ask(self, question: Question) -> Battle:
        """Both answers, whole, on sides drawn by chance. Raises EngineError where a context is too small."""
        if not question.is_typed and self._chance.random() < self._probe_share:
            if (probe := self._probe(question)) is not None:
                return probe
            question = replace(question, night_id=None)  # some prompts make no probe: no longer as likely
        return self._battle(question)

    def go_on(self, battle: Battle, text: str) -> Battle:
        """What both answer to what the voter says next, each in a conversation of its own. Raises EngineError where
        that is too long."""
        asked = battle.next_question(text, "left"), battle.next_question(text, "right")
        _, left, right = self._answers(battle.draw, asked)
        return battle.after(Turn(text, left, right))

    def now_s(self) -> float:
        """The clock that battles are timed by."""
        return self._clock()

    def _battle(self, question: Question) -> Battle:
        other = self._one if self._chance.random() < self._self_share else self._other
        draw_id = self._keep_draw(question, self._one, other)
        draw = draw_sides(self._one, other, self._sampling, self._chance)
        draw, left, right = self._answers(draw, (question, question))
        return Battle(question, draw, left, right, self._clock(), draw_id=draw_id)

    def _probe(self, question: Question) -> Battle | None:
        """None where there is no other prompt, or nothing tells which side is better."""
        probe = draw_probe(question, self._pool, self._one, self._sampling, self._chance)
        if probe is None:
            return None
        draw, left, right = self._answers(probe.draw, probe.asked)
        battle = Battle(question, draw, left, right, self._clock(), better=probe.better)
        return battle if battle.has_better else None

    def _answers(self, draw: Draw, asked: tuple[Question, Question]) -> tuple[Draw, str, str]:
        """Both answers, whole, with the same cap: what either has room for. The draw says that cap."""
        talkers = self._talkers[draw.left.model], self._talkers[draw.right.model]
        rooms = [
            talker.n_ctx - talker.prompt_tokens(question.conversation)
            for talker, question in zip(talkers, asked, strict=True)
        ]
        cap = max(1, min(self._sampling.max_new_tokens, *rooms))  # where there is no room, the engine says so
        draw = replace(
            draw,
            left_sampling=replace(draw.left_sampling, max_new_tokens=cap),
            right_sampling=replace(draw.right_sampling, max_new_tokens=cap),
        )
        left = _whole_answer(talkers[0], asked[0].conversation, draw.left_sampling)
        right = _whole_answer(talkers[1], asked[1].conversation, draw.right_sampling)
        return draw, left, right


def _whole_answer(talker: Talker, conversation: Conversation, sampling: Sampling) -> str:
    with closing(talker.stream(conversation, sampling)) as stream:
        return "".join(stream)
