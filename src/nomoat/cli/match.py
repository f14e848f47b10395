"""Blind rounds of the arena as a machine that knows no terminal: two answers to one prompt, then a vote.

Both answers are whole before either is shown, so that neither speed nor length of waiting tells who is who; which
side each stands on is drawn anew for every prompt, and names are told with the vote.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from nomoat.chat.conversation import Conversation, Message
from nomoat.ledger.canonical import canonical_key
from nomoat.ledger.clock import now_iso
from nomoat.ledger.rows import Vote, VoteVerdict

if TYPE_CHECKING:
    from nomoat.cli.talkers import Talker
    from nomoat.engine.base import Sampling

_SEEDS = 2**31


@dataclass(frozen=True)
class Contestant:
    """A model in the arena: how it is called, how votes name it, and what answers for it."""

    name: str
    model: str
    talker: Talker


@dataclass(frozen=True)
class Question:
    """A prompt to both: drawn from the pool, with its suite and id, or typed."""

    conversation: Conversation
    suite: str | None = None
    prompt_id: str | None = None

    @staticmethod
    def typed(text: str) -> Question:
        """What the owner typed."""
        return Question(Conversation((Message("user", text),)))


@dataclass(frozen=True)
class Round:
    """Two answers, ready to be shown: left and right, and what made them."""

    question: Question
    left: Contestant
    right: Contestant
    left_answer: str
    right_answer: str
    sampling: Sampling
    shown_at_s: float

    def vote(self, verdict: VoteVerdict, voter: str, now_s: float) -> Vote:
        """The vote on it. `now_s` is of the clock that `shown_at_s` was taken from."""
        prompt = self.question.conversation.to_dict()
        return Vote(
            cast_at=now_iso(),
            voter=voter,
            verdict=verdict,
            left_model=self.left.model,
            right_model=self.right.model,
            left_name=self.left.name,
            right_name=self.right.name,
            source="typed" if self.question.suite is None else "pool",
            suite=self.question.suite,
            prompt_id=self.question.prompt_id,
            prompt_hash=canonical_key(prompt),
            prompt=prompt,
            left_answer=self.left_answer,
            right_answer=self.right_answer,
            sampling={**asdict(self.sampling), "stop": list(self.sampling.stop)},
            seconds=round(now_s - self.shown_at_s, 3),
        )


class Match:
    """Rounds between two models: the same template, sampling, seed and cap on both sides."""

    def __init__(
        self,
        one: Contestant,
        other: Contestant,
        pool: Sequence[Question],
        sampling: Sampling,
        *,
        chance: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pair = (one, other)
        self._pool = pool
        self._sampling = sampling
        self._chance = chance
        self._clock = clock

    def draw(self) -> Question | None:
        """A prompt of the pool, each as likely as any other, whatever came before: so every vote speaks for the pool.
        None where the pool is empty."""
        return self._chance.choice(self._pool) if self._pool else None

    def ask(self, question: Question) -> Round:
        """Both answers, whole, on sides drawn by chance. Raises EngineError where a context is too small."""
        left, right = self._chance.sample(self._pair, 2)
        sampling = replace(self._sampling, seed=self._chance.randrange(_SEEDS))
        left_answer, right_answer = (
            _whole_answer(contestant.talker, question.conversation, sampling) for contestant in (left, right)
        )
        return Round(question, left, right, left_answer, right_answer, sampling, self._clock())

    def now_s(self) -> float:
        """The clock that rounds are timed by."""
        return self._clock()


def _whole_answer(talker: Talker, conversation: Conversation, sampling: Sampling) -> str:
    with closing(talker.stream(conversation, sampling)) as stream:
        return "".join(stream)
