"""One blind battle: a prompt, two answers to it on sides drawn by chance, and the vote. The terminal and the web page
share it.

Both answers are whole before either is shown, so that neither speed nor length of waiting tells who is who, and names
are told with the vote. Now and then a model meets itself (A/A), which measures the voter: their noise and the side they
lean to. And now and then one side holds what the same model answers to another prompt: a probe, whose better side is
known, and which tells whether the voter reads. It costs what any battle does, so that waiting does not tell it either.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nomoat.chat.conversation import Conversation, Message, parse_messages
from nomoat.engine.base import Sampling
from nomoat.errors import DataError
from nomoat.evaluate.prompts import UNANSWERED, read_prompts
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.ledger.canonical import canonical_key
from nomoat.ledger.clock import now_iso
from nomoat.ledger.rows import Side, Vote, VoteVerdict, in_order
from nomoat.ledger.store import Ledger

SELF_SHARE = 0.05
"""How often a model meets itself: one in twenty costs little, and a month of votes has some thirty."""
PROBE_SHARE = 0.05
"""How often a battle is a probe: as often as a model meets itself. Who clicks without reading is found out after some
eight of them (tests/evaluate/test_head_to_head.py)."""
_SEEDS = 2**31 - 1
_SIDES: tuple[Side, Side] = ("left", "right")
_LOOKED_AT = 8


@dataclass(frozen=True)
class Contestant:
    """A model in the arena: how it is called, and how votes name it."""

    name: str
    model: str


@dataclass(frozen=True)
class Question:
    """A prompt to both: drawn from a pool, with its suite and id, or typed. `night_id` is the night that answered it,
    where each of that night's held-out prompts is as likely as this one; `is_held_out` stays where it is not."""

    conversation: Conversation
    suite: str | None = None
    prompt_id: str | None = None
    night_id: int | None = None
    is_held_out: bool = False

    @staticmethod
    def typed(text: str) -> Question:
        """What the owner typed."""
        return Question(Conversation((Message("user", text),)))

    @property
    def is_typed(self) -> bool:
        """Whether the voter typed it."""
        return self.suite is None

    @property
    def prompt_hash(self) -> str:
        """How votes, draws and a judge's verdicts name the prompt."""
        return canonical_key(self.conversation.to_dict())


@dataclass(frozen=True)
class Draw:
    """What chance decided before anybody answers: the sides and the seeds. Both sides sample alike and with the same
    seed, except that a model against itself would then say the same twice: its right side has the next one."""

    left: Contestant
    right: Contestant
    left_sampling: Sampling
    right_sampling: Sampling


@dataclass(frozen=True)
class Probe:
    """What chance decided of a probe: one model on both sides, what each side is asked, and which is better by that."""

    draw: Draw
    asked: tuple[Question, Question]
    better: Side


@dataclass(frozen=True)
class Turn:
    """What the voter said next to both, and what they answered to that, each in a conversation of its own."""

    asked: str
    left: str
    right: str


@dataclass(frozen=True)
class Battle:
    """Two answers, ready to be shown: left and right, and what made them. `shown_at_s` is of the caller's clock.
    `better` is the better side of a probe, `turns` what was said after the first answers, `draw_id` the ledger's row
    that the prompt was drawn for the two."""

    question: Question
    draw: Draw
    left_answer: str
    right_answer: str
    shown_at_s: float
    better: Side | None = None
    turns: tuple[Turn, ...] = ()
    draw_id: int | None = None

    @property
    def has_choice(self) -> bool:
        """Two answers that are the same word for word leave nothing to vote on."""
        return self.left_answer != self.right_answer

    @property
    def has_better(self) -> bool:
        """Whether a probe's better side can be told at all: both say something, and not the same."""
        return self.has_choice and bool(self.left_answer.strip() and self.right_answer.strip())

    def after(self, turn: Turn) -> Battle:
        """With one turn more."""
        return replace(self, turns=(*self.turns, turn))

    def next_question(self, text: str, side: Side) -> Question:
        """What a side is asked when the voter goes on."""
        asked = self.question.conversation
        messages = (*asked.messages, *self.said(side), Message("user", text))
        return Question(Conversation(messages, asked.tools))

    def vote(
        self,
        verdict: VoteVerdict,
        voter: str,
        now_s: float,
        *,
        note: str | None = None,
        reasons: Collection[str] = (),
    ) -> Vote:
        """The vote on it. `now_s` is of the clock that `shown_at_s` was taken from, `reasons` are of `REASONS`."""
        prompt, sampling = self.question.conversation.to_dict(), self.draw.left_sampling
        return Vote(
            cast_at=now_iso(),
            voter=voter,
            verdict=verdict,
            left_model=self.draw.left.model,
            right_model=self.draw.right.model,
            left_name=self.draw.left.name,
            right_name=self.draw.right.name,
            source="pool" if self.question.is_held_out else "typed",
            suite=self.question.suite,
            prompt_id=self.question.prompt_id,
            prompt_hash=self.question.prompt_hash,
            prompt=prompt,
            left_answer=self.left_answer,
            right_answer=self.right_answer,
            sampling={**asdict(sampling), "stop": list(sampling.stop)},
            seconds=round(now_s - self.shown_at_s, 3),
            note=note,
            better=self.better,
            turns=[asdict(turn) for turn in self.turns] or None,
            reasons=in_order(reasons),
        )

    def said(self, side: Side) -> tuple[Message, ...]:
        """All that one side has answered, and what it was asked in between."""
        told = [Message("assistant", self.left_answer if side == "left" else self.right_answer)]
        for turn in self.turns:
            told += [Message("user", turn.asked), Message("assistant", getattr(turn, side))]
        return tuple(told)


def draw_sides(one: Contestant, other: Contestant, sampling: Sampling, chance: random.Random) -> Draw:
    """Sides by chance, and a new seed. `one` and `other` may be the same model."""
    left, right = chance.sample((one, other), 2)
    seed = chance.randrange(_SEEDS)
    right_seed = seed + 1 if one.model == other.model else seed
    return Draw(left, right, replace(sampling, seed=seed), replace(sampling, seed=right_seed))


def draw_question(pool: Sequence[Question], chance: random.Random) -> Question | None:
    """A prompt of the pool, each as likely as any other, whatever came before: so every vote speaks for the pool.
    None where the pool is empty."""
    return chance.choice(pool) if pool else None


def keep_draw(ledger: Ledger, question: Question, one: Contestant, other: Contestant) -> int | None:
    """Have the ledger keep that a night's held-out prompt was drawn for two models, before either answers: a draw that
    ends without a vote counts as much. None for any other prompt, and a model against itself."""
    if question.night_id is None or one.model == other.model:
        return None
    return ledger.judgements.add_draw(question.night_id, one.model, other.model, question.prompt_hash)


def draw_unlike(question: Question, pool: Sequence[Question], chance: random.Random) -> Question | None:
    """Of a few prompts of the pool the one that shares the fewest words with `question` (Jaccard), so that an answer to
    it answers nothing here. None where they ask the same, all of them."""
    looked_at = chance.sample(pool, min(_LOOKED_AT, len(pool)))
    shared = [_shared(question, other) for other in looked_at]
    if not shared or min(shared) == 1:
        return None
    return looked_at[shared.index(min(shared))]


def draw_probe(
    question: Question, pool: Sequence[Question], by: Contestant, sampling: Sampling, chance: random.Random
) -> Probe | None:
    """A probe answered `by` one model: one side gets `question`, the other a prompt that asks something else. None
    where the pool has no such prompt."""
    other = draw_unlike(question, pool, chance)
    if other is None:
        return None
    better = chance.choice(_SIDES)
    asked = (question, other) if better == "left" else (other, question)
    return Probe(draw_sides(by, by, sampling, chance), asked, better)


def held_out_pool(ledger: Ledger, night_id: int) -> list[Question]:
    """The held-out prompts that a night has answered, which no training has seen."""
    return [
        Question(
            Conversation(parse_messages(s.prompt, s.prompt_id)),
            s.suite,
            s.prompt_id,
            night_id,
            is_held_out=True,
        )
        for s in ledger.samples(night_id)
    ]


def arena_pool(ledger: Ledger, store: ArtifactStore, night_id: int) -> list[Question]:
    """The held-out prompts that a night has answered, and, where they can be read, the held-out rows that it would have
    answered next."""
    pool = held_out_pool(ledger, night_id)
    for stage in ledger.stages(night_id):
        if stage.name == "evaluate" and stage.artifact_id:
            row = ledger.artifact(stage.artifact_id)
            file = store.file(row.kind, row.key, UNANSWERED)
            with suppress(DataError):
                pool += pool_of_files([file] if file else [], is_held_out=True)
    return pool


def pool_of_files(files: Sequence[Path], *, is_held_out: bool = False) -> list[Question]:
    """The prompts of JSONL files. Those that the voter chose no night has held out. Raises DataError with file, line
    and field."""
    found = [prompt for file in files for prompt in read_prompts(file)]
    return [Question(one.conversation, one.suite, one.id, is_held_out=is_held_out) for one in found]


def counting(
    pool: Sequence[Question], taught: Mapping[str, frozenset[str]], one: str, other: str
) -> list[Question]:
    """The prompts of a pool on which a vote between two models would count; `taught` has those of each on which it
    would not, by their hash. From a part of a pool nothing is drawn as from it all (`Question.night_id`)."""
    never = taught.get(one, frozenset()) | taught.get(other, frozenset())
    found = [question for question in pool if question.prompt_hash not in never]
    return found if len(found) == len(pool) else [replace(question, night_id=None) for question in found]


def _shared(one: Question, other: Question) -> float:
    words, others = (set(asked.conversation.messages[-1].content.lower().split()) for asked in (one, other))
    return len(words & others) / max(1, len(words | others))
