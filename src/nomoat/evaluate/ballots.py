"""What votes say of two models: votes between them, beside a judge's verdicts, and votes against the same third."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from nomoat.chat.conversation import Conversation
from nomoat.evaluate.battle import Question
from nomoat.evaluate.gate import Judged, Link, Tally
from nomoat.evaluate.judge import Pair, Verdict
from nomoat.evaluate.stats.betting import log_e_value_judged
from nomoat.ledger.rows import REASONS, DrawRow, JudgeVerdict, JudgeVerdictRow, Reason, Vote, VoteRow


def score_of(vote: Vote, model: str) -> float:
    """1 where the vote went to this model, 0 where to the other, 1/2 for a tie and for both bad."""
    if vote.verdict in ("tie", "both bad"):
        return 0.5
    won = vote.left_model if vote.verdict == "left" else vote.right_model
    return float(won == model)


def between(votes: Iterable[VoteRow], one: str, other: str | None) -> Iterator[VoteRow]:
    """Votes between two models, in order. The same voter on the same two answers to the same prompt counts once."""
    seen: set[object] = set()
    for vote in votes:
        if {vote.left_model, vote.right_model} != {one, other} or one == other:
            continue
        answers = frozenset(
            {(vote.left_model, str(vote.said("left"))), (vote.right_model, str(vote.said("right")))}
        )
        if (vote.voter, vote.prompt_hash, answers) not in seen:
            seen.add((vote.voter, vote.prompt_hash, answers))
            yield vote


def count_votes(votes: Iterable[VoteRow], challenger: str, rival: str | None) -> Tally:
    """The votes between two models, counted."""
    scores = [score_of(vote, challenger) for vote in between(votes, challenger, rival)]
    return Tally("votes", scores.count(1), scores.count(0), scores.count(0.5))


@dataclass(frozen=True)
class Why:
    """How often a reason was named for votes that one of a pair won, and for those that the other did."""

    reason: Reason
    wins: int
    losses: int


def count_reasons(votes: Iterable[VoteRow], one: str, other: str) -> tuple[Why, ...]:
    """What decided the votes between two models, the most named first."""
    named: dict[float, Counter[Reason]] = {1.0: Counter(), 0.0: Counter(), 0.5: Counter()}
    for vote in between(votes, one, other):
        named[score_of(vote, one)].update(vote.reasons or ())
    found = [Why(reason, named[1][reason], named[0][reason]) for reason in REASONS]
    return tuple(sorted((w for w in found if w.wins + w.losses), key=lambda w: -(w.wins + w.losses)))


def links(
    votes: Sequence[VoteRow], challenger: str, rival: str | None, *, names: Mapping[str, str]
) -> list[Link]:
    """Every third model that both have met on the same drawn prompts before the same voter, with what the challenger
    scored against it less what the rival did there, vote for vote in order of time. `names` are as in `standings`.

    Matched so, neither an easier prompt, nor a milder voter, nor more ties make a difference. Typed prompts and files
    of them were chosen by somebody, and votes from elsewhere nobody knows how: both stay out.
    """
    if rival is None:
        return []
    called = {m: n for v in votes for m, n in ((v.left_model, v.left_name), (v.right_model, v.right_name))}
    found = []
    for third in called:
        if third in (challenger, rival):
            continue
        own, rivals = (_scores_on_drawn(votes, one, third) for one in (challenger, rival))
        differences = [
            mine - theirs
            for where, scores in own.items()
            for mine, theirs in zip(scores, rivals.get(where, ()), strict=False)
        ]
        if differences:
            found.append(Link(names.get(third, called[third]), tuple(differences)))
    return found


def _scores_on_drawn(votes: Sequence[VoteRow], one: str, third: str) -> dict[tuple[str, str], list[float]]:
    """What a model scored against another in votes cast here on drawn prompts, by voter and prompt."""
    found: dict[tuple[str, str], list[float]] = {}
    for vote in between(votes, one, third):
        if vote.source == "pool" and vote.imported_at is None:
            found.setdefault((vote.voter, vote.prompt_hash), []).append(score_of(vote, one))
    return found


def verdict_rows(
    judge: str, one: str, other: str, pairs: Sequence[Pair], verdicts: Sequence[Verdict | None]
) -> list[JudgeVerdict]:
    """What a judge said of two models' answers to held-out prompts, as the ledger keeps it and `judged` finds it."""
    return [
        JudgeVerdict(
            judge=judge,
            one_model=one,
            other_model=other,
            prompt_hash=Question(Conversation(pair.messages)).prompt_hash,
            forward=verdict.forward,
            backward=verdict.backward,
        )
        for pair, verdict in zip(pairs, verdicts, strict=True)
        if verdict is not None
    ]


@dataclass(frozen=True)
class _Run:
    """What a judge said of two models at one time: its scores for `one` by prompt."""

    at: str
    one: str
    score: dict[str, float]


def judged(
    votes: Sequence[VoteRow],
    verdicts: Iterable[JudgeVerdictRow],
    draws: Iterable[DrawRow],
    pools: Mapping[int, Counter[str]],
    challenger: str,
    rival: str | None,
) -> Judged | None:
    """The votes between two models beside what a judge had said of these two before their prompts were drawn; None
    where it had said nothing before any. `pools` are the prompts that each night has held out, by their hash.

    A prompt speaks for its pool only together with all that were drawn for the two, so a draw that ended without a
    vote is a tie. What was said later leaves a vote as it is: it could have been asked for because of it. So do typed
    prompts and votes from elsewhere. Draws for other pairs, beside what a judge had said of those, teach how far judges
    foretell these voters.
    """
    runs = _runs(verdicts)
    if rival is None or frozenset({challenger, rival}) not in runs:
        return None
    drawn: dict[frozenset[str], list[DrawRow]] = {pair: [] for pair in runs}
    for draw in draws:
        drawn.get(frozenset({draw.one_model, draw.other_model}), []).append(draw)
    told: list[tuple[str, float, float, float, bool]] = []
    voted = 0
    for pair, of_pair in runs.items():
        one, other = (challenger, rival) if challenger in pair and rival in pair else sorted(pair)
        is_theirs = pair == {challenger, rival}
        kept = {vote.key: vote for vote in between(votes, one, other)}
        leanings: dict[tuple[int, int], tuple[dict[str, float], float]] = {}
        for draw in drawn[pair]:
            vote = kept.pop(draw.vote_key or "", None)
            number = sum(run.at < draw.drawn_at for run in of_pair)
            if number and (number, draw.night_id) not in leanings:
                leanings[number, draw.night_id] = _leanings(of_pair[number - 1], one, pools[draw.night_id])
            by_prompt, reach = leanings[number, draw.night_id] if number else ({}, 0.0)
            leaning = by_prompt.get(draw.prompt_hash, 0.0)
            told.append((draw.drawn_at, score_of(vote, one) if vote else 0.5, leaning, reach, is_theirs))
            voted += is_theirs and vote is not None and reach > 0
        if is_theirs:
            told += [(vote.cast_at, score_of(vote, one), 0.0, 0.0, True) for vote in kept.values()]
    if not voted:
        return None
    _, scores, leanings_N, reaches, is_staked = (
        np.array(column) for column in zip(*sorted(told, key=itemgetter(0)), strict=True)
    )
    return Judged(
        float(log_e_value_judged(scores, leanings_N, reaches, is_staked)[-1]),
        float(log_e_value_judged(1 - scores, -leanings_N, reaches, is_staked)[-1]),
        voted,
    )


def _runs(verdicts: Iterable[JudgeVerdictRow]) -> dict[frozenset[str], list[_Run]]:
    """Of each pair of models what judges said of it, in order of time."""
    runs: dict[frozenset[str], list[_Run]] = {}
    for row in verdicts:
        of_pair = runs.setdefault(frozenset({row.one_model, row.other_model}), [])
        if not of_pair or (of_pair[-1].at, of_pair[-1].one) != (row.judged_at, row.one_model):
            of_pair.append(_Run(row.judged_at, row.one_model, {}))
        of_pair[-1].score[row.prompt_hash] = (row.forward + row.backward) / 2
    return runs


def _leanings(run: _Run, one: str, pool: Counter[str]) -> tuple[dict[str, float], float]:
    """How far a run leans to `one` on each prompt of a pool, from its mean over the pool, and the farthest that it does
    on any. A prompt that it said nothing of is a tie."""
    sign = 1 if run.one == one else -1
    score = {prompt: sign * (run.score.get(prompt, 0.5) - 0.5) for prompt in pool}
    mean = sum(score[prompt] * n for prompt, n in pool.items()) / pool.total()
    leaning = {prompt: value - mean for prompt, value in score.items()}
    return leaning, max(map(abs, leaning.values()))
