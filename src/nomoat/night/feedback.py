"""What a night learns from the ledger: votes and thumbs as judged answers, own answers as conversations.

Each becomes an artifact that its rows alone name: a night with new votes trains anew, one without is done at once. Its
meta says which they are, whose, and what they ask, so that the gate never counts a vote on such a prompt.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

from nomoat.chat.conversation import Conversation, Message
from nomoat.data.overlap import find_overlaps
from nomoat.data.prepare import answered
from nomoat.data.readers import open_rows
from nomoat.data.rows import ChatRow, PreferenceRow, RatingRow, Row, Where
from nomoat.data.split import asked_keys, place
from nomoat.errors import DataError
from nomoat.evaluate.gatebook import LEARNED, conversation_of, sampled_keys
from nomoat.ledger.feedback import standing_own_answers, standing_ratings
from nomoat.ledger.rows import OwnAnswerRow, Side, VoteRow
from nomoat.ledger.rows import RatingRow as Thumbed
from nomoat.ledger.store import Ledger
from nomoat.night.contamination import questions_of
from nomoat.night.evaluation import asked_by, owners_prompts
from nomoat.night.held_out import LEAST_HELD_OUT
from nomoat.night.jobs import Folders, Job, Outcome, Report
from nomoat.night.sources import Sources
from nomoat.recipe import Recipe

ROWS = "rows.jsonl"
_SIDES: tuple[Side, Side] = ("left", "right")
_HELD_OUT, _EMPTY = "on held-out prompts", "on an empty answer"
Said = VoteRow | OwnAnswerRow | Thumbed


@dataclass(frozen=True)
class Feedback:
    """Rows to learn from as JSON, what the ledger knows of them, and where each stands in the split."""

    kind: str
    said: str
    rows: tuple[dict[str, Any], ...] = field(repr=False)
    places: tuple[float, ...] = field(repr=False)
    meta: dict[str, Any] = field(repr=False)

    def job(self) -> Job:
        """The stage that writes them."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)
        return Job(
            kind=self.kind,
            why=self.said,
            inputs={},
            params={"sha256": hashlib.sha256(text.encode("utf-8")).hexdigest()},
            run=partial(_write, text=text, meta=self.meta, said=self.said),
        )

    def suffices(self, held_out_share: float) -> bool:
        """Whether enough of them are held out for a training on them alone to be measured."""
        return sum(where < held_out_share for where in self.places) >= LEAST_HELD_OUT


def _write(folders: Folders, _report: Report, *, text: str, meta: dict[str, Any], said: str) -> Outcome:
    (folders.out / ROWS).write_text(text, encoding="utf-8")
    return Outcome(meta, said)


def find_votes(recipe: Recipe, sources: Sources, ledger: Ledger) -> Feedback | None:
    """The votes and thumbs that `prefer` learns from: those that its loss can use, on prompts that no suite holds out.
    None where the recipe wants none, or there are none.

    Votes are pairs, and so are a thumb up and one down of the same person for the same prompt. To `kto`, where its
    files hold no pairs, each thumb is a rated answer, each vote two, and "both bad" two bad ones. Whoever voted twice
    on the same two answers is heard once, with what was said last.
    """
    section = recipe.prefer
    if section is None or not section.votes:
        return None
    cast, thumbs = ledger.judgements.votes(), standing_ratings(ledger)
    if not cast and not thumbs:
        return None
    rated = section.loss_type == "kto" and not sources.asked and not _hold_pairs(sources.prefer)
    never, left_out = _Never.of(recipe, sources, ledger, [*cast, *thumbs]), Counter[str]()
    used: dict[object, VoteRow] = {}
    for vote in cast:
        reason = _unusable(vote, never, rated=rated)
        if reason:
            left_out[reason] += 1
            continue
        again = vote.voter, vote.prompt_hash, frozenset(str(vote.said(side)) for side in _SIDES)
        left_out["cast again"] += again in used
        used[again] = vote
    heard = _usable_thumbs(thumbs, never, left_out, rated=rated)
    found = [
        (row, {"vote": vote.id, "voter": vote.voter})
        for vote in used.values()
        for row in _judged(vote, rated=rated)
    ]
    found += _of_thumbs(heard, rated=rated)
    if not found:
        return None
    by_prompt = recipe.data.split_by == "prompt"
    return _feedback(
        LEARNED[0],
        [_vote_json(row) | source for row, source in found],
        [place(_answered(row).prompt_hash() if by_prompt else row.content_hash()) for row, _ in found],
        [*used.values(), *heard],
        left_out,
        never,
    )


def find_own_answers(recipe: Recipe, sources: Sources, ledger: Ledger) -> Feedback | None:
    """The own answers that `sft` learns from, on prompts that no suite holds out; of one person's to the same prompt
    the newest. None where there are none."""
    written = standing_own_answers(ledger) if recipe.sft else []
    if not written:
        return None
    never, left_out = _Never.of(recipe, sources, ledger, written), Counter[str]()
    used: dict[object, OwnAnswerRow] = {}
    for own in written:
        reason = never.reason(own)
        if reason is None:
            used[own.voter, own.prompt_hash] = own
        else:
            left_out[reason] += 1
    rows = [
        own.prompt
        | {"messages": [*map(_unlearned, own.prompt["messages"]), _says(own.answer).to_dict()]}
        | {"own_answer": own.id, "vote": own.vote_id, "voter": own.voter}
        for own in used.values()
    ]
    return _feedback(LEARNED[1], rows, [], list(used.values()), left_out, never) if used else None


def with_votes_enough(recipe: Recipe, votes: Feedback | None, note: Callable[[str], None]) -> Recipe:
    """The recipe without `prefer` where that learns from votes alone and there are too few. DataError where nothing
    else would be left to train."""
    if recipe.prefer is None or recipe.prefer.votes != "only":
        return recipe
    if votes is not None and votes.suffices(recipe.data.held_out):
        return recipe
    few = "prefer.votes: only, and there are " + (
        f"too few yet: {votes.said}" if votes else "none to learn from"
    )
    if recipe.sft is None:
        raise DataError(few, hint="Cast some on prompts of your own, which are not held out: nomoat arena")
    note(f"{few}; tonight nothing is preferred")
    return recipe.model_copy(update={"prefer": None})


def suite_keys(sources: Sources, ledger: Ledger) -> set[str]:
    """Keys of all that the suites ask, tonight's and those of every night before."""
    return asked_by(owners_prompts(sources.prompts)) | sampled_keys(ledger, of_rows=False)


@dataclass(frozen=True)
class _Never:
    """What is not learned from: whatever asks one of `keys`, and, if the recipe `removes` it, what holds nearly what
    a suite of tonight asks (`near`: where that stands)."""

    keys: set[str]
    near: set[str]
    removes: bool

    @staticmethod
    def of(recipe: Recipe, sources: Sources, ledger: Ledger, said: Sequence[Said]) -> _Never:
        """From all that people said."""
        overlaps = find_overlaps(map(_row, said), questions_of(sources.prompts))
        near = {one.where for one in overlaps}
        return _Never(suite_keys(sources, ledger), near, recipe.data.decontaminate == "remove")

    def reason(self, said: Said) -> str | None:
        """Why something is not learned from, if it is not."""
        if not self.keys.isdisjoint(_asked(said)):
            return _HELD_OUT
        return "contaminated" if self.removes and self.is_near(said) else None

    def is_near(self, said: Said) -> bool:
        """Whether it holds what a suite asks."""
        return str(_row(said).where) in self.near


def _row(said: Said) -> Row:
    """All of it, as a row to look for suites in."""
    prompt = conversation_of(said)
    if isinstance(said, VoteRow):
        left, right = (tuple(Message(**message) for message in said.said(side)) for side in _SIDES)
        return PreferenceRow(Where("votes", said.id), prompt, left, right)
    where = Where("thumbs" if isinstance(said, Thumbed) else "own answers", said.id)
    return ChatRow(where, Conversation((*prompt.messages, _says(said.answer)), prompt.tools))


def _unusable(vote: VoteRow, never: _Never, *, rated: bool) -> str | None:
    """Why a vote teaches nothing."""
    if vote.better is not None:
        return "to check the voter"
    if (reason := never.reason(vote)) is not None:
        return reason
    if vote.verdict == "tie" or (vote.verdict == "both bad" and not rated):
        return "undecided"
    if not all(message["content"].strip() for side in _SIDES for message in vote.said(side)):
        return _EMPTY
    return None


def _usable_thumbs(
    thumbs: Sequence[Thumbed], never: _Never, left_out: Counter[str], *, rated: bool
) -> list[Thumbed]:
    """Those that teach something. Without ratings to learn from, one alone on its prompt does not."""
    found = []
    for one in thumbs:
        if (reason := never.reason(one)) is not None:
            left_out[reason] += 1
        elif not one.answer.strip():
            left_out[_EMPTY] += 1
        else:
            found.append(one)
    if rated:
        return found
    paired = {one.id for pair in _pairs(found) for one in pair}
    left_out["with no other to compare with"] += len(found) - len(paired)
    return [one for one in found if one.id in paired]


def _pairs(thumbs: Sequence[Thumbed]) -> list[tuple[Thumbed, Thumbed]]:
    """Every thumb up with every one down of the same person on another answer to the same prompt."""
    said: defaultdict[tuple[str, str], list[Thumbed]] = defaultdict(list)
    for one in thumbs:
        said[one.voter, one.prompt_hash].append(one)
    return [
        (up, down)
        for group in said.values()
        for up, down in product(group, group)
        if (up.verdict, down.verdict) == ("up", "down") and up.answer != down.answer
    ]


def _of_thumbs(
    thumbs: Sequence[Thumbed], *, rated: bool
) -> list[tuple[PreferenceRow | RatingRow, dict[str, Any]]]:
    """Their rows, each with where it came from."""
    found: list[tuple[PreferenceRow | RatingRow, dict[str, Any]]] = []
    for one in thumbs if rated else ():
        where, answer = Where("thumbs", one.id), (_says(one.answer),)
        row = RatingRow(where, conversation_of(one), answer, one.verdict == "up")
        found.append((row, {"ratings": [one.id], "voter": one.voter}))
    for up, down in () if rated else _pairs(thumbs):
        where, answers = Where("thumbs", up.id), ((_says(up.answer),), (_says(down.answer),))
        pair = PreferenceRow(where, conversation_of(up), *answers)
        found.append((pair, {"ratings": [up.id, down.id], "voter": up.voter}))
    return found


def _judged(vote: VoteRow, *, rated: bool) -> list[PreferenceRow | RatingRow]:
    where, prompt = Where("votes", vote.id), conversation_of(vote)
    sides: dict[str, tuple[Message, ...]] = {
        side: tuple(Message(**message) for message in vote.said(side)) for side in _SIDES
    }
    if rated:
        return [RatingRow(where, prompt, answer, side == vote.verdict) for side, answer in sides.items()]
    chosen, rejected = ("left", "right") if vote.verdict == "left" else ("right", "left")
    return [PreferenceRow(where, prompt, sides[chosen], sides[rejected])]


def _asked(said: Said) -> list[str]:
    """What it asks, in all its turns, as `asked_keys`: the same on both sides."""
    later = [turn["asked"] for turn in said.turns or ()] if isinstance(said, VoteRow) else []
    users = (Message("user", text) for text in later)
    return asked_keys(Conversation((*conversation_of(said).messages, *users)))


def _vote_json(row: PreferenceRow | RatingRow) -> dict[str, Any]:
    asked = row.prompt.to_dict()
    asked["prompt"] = asked.pop("messages")
    if isinstance(row, RatingRow):
        return asked | {"completion": [m.to_dict() for m in row.completion], "label": row.label}
    return asked | {
        "chosen": [m.to_dict() for m in row.chosen],
        "rejected": [m.to_dict() for m in row.rejected],
    }


def _answered(row: PreferenceRow | RatingRow) -> ChatRow:
    talk = answered(row)
    assert isinstance(talk, ChatRow), row
    return talk


def _unlearned(message: dict[str, Any]) -> dict[str, Any]:
    """What a model said before is not what the owner would have said."""
    return message | {"loss": False} if message["role"] == "assistant" else message


def _says(answer: str) -> Message:
    return Message("assistant", answer)


def _hold_pairs(files: Sequence[str]) -> bool:
    return any(open_rows(file)[0].format == "preference" for file in files)


def _feedback(
    kind: str,
    rows: list[dict[str, Any]],
    places: list[float],
    used: Sequence[Said],
    left_out: Counter[str],
    never: _Never,
) -> Feedback:
    voters = Counter(one.voter for one in used)
    thumbs = [one.id for one in used if isinstance(one, Thumbed)]
    main = [one.id for one in used if not isinstance(one, Thumbed)]
    counts = (len(main), kind.replace("_", " ").removesuffix("s")), (len(thumbs), "thumb")
    what = " and ".join(f"{n:,} {name}{'' if n == 1 else 's'}" for n, name in counts if n)
    shown = ", ".join(f"{count:,} {name}'s" for name, count in sorted(voters.items()))
    said = f"{what} to learn from ({shown})"
    rest = ", ".join(f"{count:,} {reason}" for reason, count in sorted(left_out.items()) if count)
    meta = {
        kind: main,
        **({"ratings": thumbs} if thumbs else {}),
        "voters": dict(sorted(voters.items())),
        "asked": sorted({key for one in used for key in _asked(one)}),
        "left_out": {reason: count for reason, count in sorted(left_out.items()) if count},
    }
    said += f"; left out: {rest}" if rest else ""
    near = sum(map(never.is_near, used))
    if near:
        said += f"; {near:,} hold what held-out prompts ask: data.decontaminate: remove leaves them out"
    return Feedback(kind, said, tuple(rows), tuple(places), meta)
