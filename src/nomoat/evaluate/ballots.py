"""What votes say of two models: votes between them, beside a judge's verdicts, and votes against the same third."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from nomoat.chat.conversation import Conversation
from nomoat.evaluate.gate import Judged, Link, Tally
from nomoat.evaluate.judge import Pair, Verdict
from nomoat.evaluate.stats.betting import log_e_value_judged
from nomoat.ledger.canonical import canonical_key
from nomoat.ledger.rows import JudgeVerdict, JudgeVerdictRow, Vote, VoteRow


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


def links(
    votes: Sequence[VoteRow], challenger: str, rival: str | None, *, names: Mapping[str, str]
) -> list[Link]:
    """Every third model that both have decided votes against. `names` are as in `standings`."""
    if rival is None:
        return []
    called = {m: n for v in votes for m, n in ((v.left_model, v.left_name), (v.right_model, v.right_name))}
    found = []
    for third in called:
        if third in (challenger, rival):
            continue
        won, rivals = (
            [score for vote in between(votes, one, third) if (score := score_of(vote, one)) != 0.5]
            for one in (challenger, rival)
        )
        n = min(len(won), len(rivals))
        if n:
            found.append(Link(names.get(third, called[third]), int(sum(won[:n])), int(sum(rivals[:n])), n))
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
            prompt_hash=canonical_key(Conversation(pair.messages).to_dict()),
            forward=verdict.forward,
            backward=verdict.backward,
        )
        for pair, verdict in zip(pairs, verdicts, strict=True)
        if verdict is not None
    ]


class _Run(NamedTuple):
    """What a judge said of two models at one time: its scores for `one` by prompt."""

    at: str
    one: str
    score: dict[str, float]


def judged(
    votes: Sequence[VoteRow], verdicts: Iterable[JudgeVerdictRow], challenger: str, rival: str | None
) -> Judged | None:
    """The votes between two models beside what a judge had said of these two on all held-out prompts before each vote;
    None where it had said nothing before any.

    What was said later, or of other prompts, leaves a vote as it is: a verdict that came after the vote could have been
    asked for because of it. Votes on other pairs, beside what a judge had said of those, teach how far judges foretell
    these voters. Prompts must have been drawn by chance, so that typed ones and votes from elsewhere stay as they are.
    """
    assert rival is not None
    runs: dict[frozenset[str], list[_Run]] = {}
    for row in verdicts:
        of_pair = runs.setdefault(frozenset({row.one_model, row.other_model}), [])
        if not of_pair or (of_pair[-1].at, of_pair[-1].one) != (row.judged_at, row.one_model):
            of_pair.append(_Run(row.judged_at, row.one_model, {}))
        of_pair[-1].score[row.prompt_hash] = (row.forward + row.backward) / 2
    if frozenset({challenger, rival}) not in runs:
        return None
    pairs = [(challenger, rival), *(pair for pair in map(tuple, runs) if set(pair) != {challenger, rival})]
    told = []
    for number, (one, other) in enumerate(pairs):
        for vote in between(votes, one, other):
            leaning, reach = _leaning(vote, one, runs[frozenset({one, other})])
            told.append((vote.cast_at, vote.id, score_of(vote, one), leaning, reach, number == 0))
    _, _, scores, leanings, reaches, is_staked = zip(*sorted(told), strict=True)
    n = sum(staked and reach > 0 for staked, reach in zip(is_staked, reaches, strict=True))
    if n == 0:
        return None
    against = [1 - score for score in scores], [-leaning for leaning in leanings]
    return Judged(
        float(log_e_value_judged(scores, leanings, reaches, is_staked)[-1]),
        float(log_e_value_judged(*against, reaches, is_staked)[-1]),
        n,
    )


def _leaning(vote: VoteRow, one: str, runs: Sequence[_Run]) -> tuple[float, float]:
    """How far the newest run before a vote leans to `one` on its prompt, from the run's mean, and the farthest that it
    leans on any; 0 and 0 where there is no such run."""
    run = next((run for run in reversed(runs) if run.at < vote.cast_at), None)
    is_drawn = vote.source == "pool" and vote.imported_at is None
    if run is None or not is_drawn or vote.prompt_hash not in run.score:
        return 0.0, 0.0
    mean = sum(run.score.values()) / len(run.score)
    sign = 1 if run.one == one else -1
    reach = max(abs(score - mean) for score in run.score.values())
    return sign * (run.score[vote.prompt_hash] - mean), reach
