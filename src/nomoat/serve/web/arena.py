"""The arena's battles on the server: answered ahead, shown without names, each voted on once."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, final

import numpy as np

from nomoat.engine.base import Sampling
from nomoat.errors import NomoatError, ServeError
from nomoat.evaluate.ballots import score_of
from nomoat.evaluate.battle import (
    PROBE_SHARE,
    SELF_SHARE,
    Battle,
    Contestant,
    Draw,
    Question,
    Turn,
    draw_probe,
    draw_question,
    draw_sides,
)
from nomoat.evaluate.stats.pairing import narrowing, planned_ratings
from nomoat.ledger.keys import Holder
from nomoat.ledger.rows import Side, Vote, VoteVerdict
from nomoat.serve.http import log_fault
from nomoat.serve.turns import Desk
from nomoat.serve.web.arena_answers import Answers, Half
from nomoat.serve.web.arena_ledger import ArenaLedger, Seen

CHAMPION, BASE = "champion", "base"
SAMPLING = Sampling(max_new_tokens=512, temperature=0.7, top_p=0.95)
_SIDES: tuple[Side, Side] = ("left", "right")
_AHEAD = 2
_MOST_GENERATIONS = 3
"""More would spread the votes of one person too thin: `narrowing` gives each that has few votes as many as the newest,
for which the gate waits. Of older ones one votes with `nomoat arena GEN GEN`."""
_MOST_OPEN = 1000
_LEFT_AFTER_S = 3600  # a battle shown so long ago is no vote to come: its voter has left
_TRIES = 5


@dataclass(frozen=True)
class Votes:
    """Where votes go, and whose they are.

    Attributes:
        ledger_path: the workspace's ledger; it may not be there yet.
        voter_of: what the holder of a key is called, or who votes where no key is demanded.
        self_share: how often a model meets itself.
        probe_share: how often a drawn battle is a probe.
    """

    ledger_path: Path
    voter_of: Callable[[Holder | None], str]
    self_share: float = SELF_SHARE
    probe_share: float = PROBE_SHARE


@dataclass(frozen=True)
class Shown:
    """A battle that a voter has before them. Its id is all that the browser knows it by."""

    id: str
    voter: str
    battle: Battle


@final
class Arena:
    """All methods are for the event loop's thread."""

    def __init__(self, desk: Desk, votes: Votes) -> None:
        self.voter_of = votes.voter_of
        self._pool = desk.pool
        self._answers = Answers(desk)
        self._ledger = ArenaLedger(votes.ledger_path)
        self._self_share = votes.self_share
        self._probe_share = votes.probe_share
        self._chance = random.SystemRandom()
        self._resolved: dict[str, Contestant] = {}
        self._asked_as: dict[str, str] = {}
        self._ahead: list[Battle] = []
        self._filling: asyncio.Task[None] | None = None
        self._shown: dict[str, Shown] = {}
        self._both_bad: dict[str, Vote] = {}  # by the battle's id: what may be answered better by the voter

    # ---- what the page does

    async def draw(self, voter: str) -> Shown:
        """A held-out prompt with both answers: whole already, unless nobody was here for a while.

        Raises:
            ServeError: there are no two models, or no prompts, or they say the same.
            ApiError: a model cannot answer.
        """
        here = {one.model for one in await asyncio.to_thread(self._contestants)}
        self._ahead = [battle for battle in self._ahead if _models(battle) <= here]
        while not self._ahead:
            await asyncio.shield(self._fill())
        battle = self._ahead.pop(0)
        self._fill()
        return self._show(replace(battle, shown_at_s=time.monotonic()), voter)

    async def ask(self, text: str, voter: str) -> AsyncGenerator[Battle | Shown]:
        """Both answers to what the voter typed, as far as they may be shown, and the battle to vote on at last. Here no
        model meets itself: when its words come would tell. Raises as `draw`."""
        question = Question.typed(text)
        draw = draw_sides(*await asyncio.to_thread(self._pair, self._unvoted()), SAMPLING, self._chance)
        left, right = await self._halves(draw, question, question)
        shown_at_s = None
        async with aclosing(self._answers.write_both(left, right)) as steps:
            async for left_text, right_text in steps:
                shown_at_s = shown_at_s or time.monotonic()
                yield Battle(question, draw, left_text, right_text, shown_at_s)
        battle = _battle(question, draw, left, right, shown_at_s or time.monotonic())
        if not battle.has_choice:
            raise _same_words()
        yield self._show(battle, voter)

    async def go_on(self, shown_id: str, text: str, voter: str) -> AsyncGenerator[Battle | Shown]:
        """What both answer to what the voter says next, as in `ask`; nothing where there is no typed battle to go on
        with. Until then it cannot be voted on, and where it ends in an error it is as it was before.

        Raises:
            ApiError: a model cannot answer: the conversation may be too long.
        """
        shown = self.find(shown_id, voter)
        if shown is None or not shown.battle.question.is_typed:
            return
        del self._shown[shown_id]
        try:
            battle = shown.battle
            left, right = await self._halves(
                battle.draw, *(battle.next_question(text, side) for side in _SIDES)
            )
            async with aclosing(self._answers.write_both(left, right)) as steps:
                async for left_text, right_text in steps:
                    yield battle.after(Turn(text, left_text, right_text))
            shown = replace(shown, battle=battle.after(Turn(text, left.answer, right.answer)))
        finally:
            self._shown[shown_id] = shown
        yield shown

    def find(self, shown_id: str, voter: str) -> Shown | None:
        """The battle that this voter has before them; None where they have voted on it, or it was never theirs."""
        shown = self._shown.get(shown_id)
        return shown if shown is not None and shown.voter == voter else None

    def skip(self, shown_id: str, voter: str) -> None:
        """Leave a battle without a vote."""
        if self.find(shown_id, voter) is not None:
            del self._shown[shown_id]

    async def vote(
        self, shown_id: str, voter: str, verdict: VoteVerdict, note: str = "", reasons: Collection[str] = ()
    ) -> Vote | None:
        """Keep the vote and tell who was who. None where there is nothing to vote on any more.

        Raises:
            LedgerError: it cannot be kept; the voter may try again.
        """
        shown = self.find(shown_id, voter)
        if shown is None:
            return None
        del self._shown[shown_id]  # before anything is waited for: a second click finds nothing
        vote = shown.battle.vote(verdict, voter, time.monotonic(), note=note.strip() or None, reasons=reasons)
        try:
            may_answer = await asyncio.to_thread(self._ledger.keep, shown.battle, vote)
        except Exception:  # not where the voter has gone: the thread keeps their vote all the same
            self._shown[shown_id] = shown
            raise
        if may_answer:
            _add(self._both_bad, shown_id, vote)
        return vote

    def may_answer(self, shown_id: str, voter: str) -> bool:
        """Whether the voter has found both answers bad, to a prompt that nothing holds out, and may say what would have
        been a good one."""
        vote = self._both_bad.get(shown_id)
        return vote is not None and vote.voter == voter

    async def answer(self, shown_id: str, voter: str, text: str) -> bool:
        """Keep what the voter would have answered; False where they may not (any more).

        Raises:
            LedgerError: it cannot be kept; the voter may try again.
        """
        if not self.may_answer(shown_id, voter):
            return False
        vote = self._both_bad.pop(shown_id)
        try:
            return await asyncio.to_thread(self._ledger.keep_answer, vote, text)
        except Exception:
            self._both_bad[shown_id] = vote
            raise

    async def champion(self) -> Contestant | None:
        """Whom the others are measured against; None where there is no model."""
        return next(iter(await asyncio.to_thread(self._contestants)), None)

    async def seen(self) -> Seen:
        """The ledger as it is now."""
        return await asyncio.to_thread(self._ledger.seen)

    async def close(self) -> None:
        """End what is being answered ahead."""
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.wait({self._filling})

    # ---- answering ahead

    def _fill(self) -> asyncio.Task[None]:
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._answer_ahead())
            self._filling.add_done_callback(_log_failure)
        return self._filling

    async def _answer_ahead(self) -> None:
        while len(self._ahead) < _AHEAD:
            seen = await self.seen()
            for _ in range(_TRIES):
                battle = await self._battle(seen)
                if battle.has_choice:
                    self._ahead.append(battle)
                    break
            else:
                raise _same_words()

    async def _battle(self, seen: Seen) -> Battle:
        """A prompt of the pool with two answers, which may be the same."""
        pool = seen.nights.pool
        question = draw_question(pool, self._chance)
        if question is None:
            raise ServeError("there is no held-out prompt to draw: type one")
        if self._chance.random() < self._probe_share:
            if (probe := await self._probe(question, pool)) is not None:
                return probe
            question = replace(question, night_id=None)  # some prompts make no probe: no longer as likely
        one, other = await asyncio.to_thread(self._pair, self._unvoted(), is_drawn=True)
        counting = seen.counting(one.model, other.model)
        if 0 < len(counting) < len(pool):
            question = self._chance.choice(counting)
        if self._chance.random() < self._self_share:
            other = one
        draw_id = await asyncio.to_thread(self._ledger.keep_draw, question, one, other)
        answered = await self._answered(question, draw_sides(one, other, SAMPLING, self._chance))
        return replace(answered, draw_id=draw_id)

    async def _probe(self, question: Question, pool: Sequence[Question]) -> Battle | None:
        """The champion twice, one side answering another prompt. None where there is no such prompt, or a side says
        nothing, or both the same."""
        best = await self.champion()
        probe = None if best is None else draw_probe(question, pool, best, SAMPLING, self._chance)
        if probe is None:
            return None
        answered = await self._answered(question, probe.draw, probe.asked)
        return replace(answered, better=probe.better) if answered.has_better else None

    async def _answered(
        self, question: Question, draw: Draw, asked: tuple[Question, Question] | None = None
    ) -> Battle:
        """One side after the other, in an order that tells nothing: a budget may have room for one model only. `asked`
        is what each side answers in a probe."""
        left, right = await self._halves(draw, *(asked or (question, question)))
        await self._answers.write(left)
        await self._answers.write(right)
        return _battle(question, draw, left, right, time.monotonic())

    async def _halves(self, draw: Draw, left_asked: Question, right_asked: Question) -> tuple[Half, Half]:
        left = Half(self._asked_as[draw.left.name], left_asked.conversation, draw.left_sampling)
        right = Half(self._asked_as[draw.right.name], right_asked.conversation, draw.right_sampling)
        await self._answers.level(left, right)
        return left, right

    # ---- who meets whom; in threads

    def _contestants(self) -> list[Contestant]:
        """The champion first, then the newest generations, then the base."""
        catalogue = self._pool.catalogue
        names = [one.name for one in catalogue.names()]
        generations = [name for name in names if name not in (CHAMPION, BASE)][:_MOST_GENERATIONS]
        found: dict[str, Contestant] = {}
        for name in (CHAMPION, *generations, BASE):
            resolved = catalogue.resolve(name)
            if resolved is None:
                continue
            if resolved not in self._resolved:
                try:
                    served = catalogue.find(resolved)
                except NomoatError:  # trained from scratch, without a base; or its files are gone
                    continue
                if served.adapter is not None:  # no night made it, and votes are for nights to learn from
                    continue
                self._resolved[resolved] = Contestant(served.name, served.model)
            one = self._resolved[resolved]
            # what clients may ask for: a base is resolved to a name that is none of those
            self._asked_as[one.name] = resolved if resolved in names else name
            found.setdefault(one.model, one)
        return list(found.values())

    def _unvoted(self) -> list[Battle]:
        since = time.monotonic() - _LEFT_AFTER_S
        shown = (one.battle for one in self._shown.values() if one.battle.shown_at_s > since)
        return [*self._ahead, *shown]

    def _pair(self, unvoted: Sequence[Battle], *, is_drawn: bool = False) -> tuple[Contestant, Contestant]:
        """`is_drawn`: the prompt is to be drawn, so that the pair should have one on which its vote counts."""
        contestants = self._contestants()
        if len(contestants) < 2:
            raise ServeError("there are no two models to compare yet", hint="Make one: nomoat run")
        return self._best_pair(contestants, unvoted, is_drawn)

    def _best_pair(
        self, contestants: Sequence[Contestant], unvoted: Sequence[Battle], is_drawn: bool
    ) -> tuple[Contestant, Contestant]:
        """The pair whose vote narrows most what is known of all against the champion."""
        seen = self._ledger.seen()
        at = {one.model: number for number, one in enumerate(contestants)}
        won_MM = np.zeros((len(at), len(at)))
        for vote in seen.evidence:
            if vote.left_model in at and vote.right_model in at:
                left, right, score = (
                    at[vote.left_model],
                    at[vote.right_model],
                    score_of(vote, vote.left_model),
                )
                won_MM[left, right] += score
                won_MM[right, left] += 1 - score
        np.fill_diagonal(won_MM, 0)
        pending_MM = np.zeros_like(won_MM)
        for battle in unvoted:
            if len(_models(battle)) == 2 and _models(battle) <= at.keys():
                left, right = (at[model] for model in _models(battle))
                pending_MM[left, right] += 1
                pending_MM[right, left] += 1
        gain_MM = narrowing(won_MM, planned_ratings(won_MM), 0, pending_MM)
        for (one, left), (other, right) in combinations(at.items(), 2):
            if is_drawn and not seen.counting(one, other):
                gain_MM[left, right] = gain_MM[right, left] = 0
        equally_good = np.argwhere(np.triu(gain_MM >= gain_MM.max() * (1 - 1e-9), 1))
        first, second = equally_good[self._chance.randrange(len(equally_good))]
        return contestants[first], contestants[second]

    def _show(self, battle: Battle, voter: str) -> Shown:
        shown = Shown(secrets.token_urlsafe(16), voter, battle)
        _add(self._shown, shown.id, shown)
        return shown


def _battle(question: Question, draw: Draw, left: Half, right: Half, shown_at_s: float) -> Battle:
    draw = replace(draw, left_sampling=left.sampling, right_sampling=right.sampling)
    return Battle(question, draw, left.answer, right.answer, shown_at_s)


def _add(to: dict[str, Any], shown_id: str, what: object) -> None:
    """Who left the oldest will not come back."""
    while len(to) >= _MOST_OPEN:
        del to[next(iter(to))]
    to[shown_id] = what


def _same_words() -> ServeError:
    return ServeError("both answer this word for word: there is nothing to choose, and no vote")


def _models(battle: Battle) -> set[str]:
    return {battle.draw.left.model, battle.draw.right.model}


def _log_failure(filling: asyncio.Task[None]) -> None:
    error = None if filling.cancelled() else filling.exception()
    if isinstance(error, Exception):
        log_fault(error)
