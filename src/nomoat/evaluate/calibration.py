"""What a judge's verdicts are worth: two models compared by it, and the judge itself compared with the people's votes.

A judge's win rate never stands alone. Beside it stand what three baselines would say (the longest answer, the first, a
coin), how far it agrees with the votes, its bias, and where there are votes on the same two models, the estimate that
combines them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from nomoat.chat.conversation import parse_messages
from nomoat.errors import DataError
from nomoat.evaluate.ballots import score_of
from nomoat.evaluate.comparison import Estimate
from nomoat.evaluate.interview import Progress
from nomoat.evaluate.judge import MOST_GRADE, Judge, Pair, Verdict
from nomoat.evaluate.stats.agreement import (
    COIN,
    FIRST,
    LONGEST,
    agreement,
    baselines,
    cohens_kappa,
    krippendorffs_alpha,
    position_bias,
    prediction_powered,
    verbosity_bias,
)
from nomoat.evaluate.stats.intervals import wilson
from nomoat.evaluate.stats.ordered import EloEstimate, elo_estimate, pair_counts
from nomoat.evaluate.stats.winrate import controlled_win_rate, win_rate
from nomoat.evaluate.style import style_differences
from nomoat.ledger.canonical import canonical_key
from nomoat.ledger.rows import Sample, Vote

Found = TypeVar("Found")
JUDGE = "the judge"
LEAST = 2
References = Mapping[tuple[str | None, str | None], str]
"""Right answers by suite and prompt."""
_LABELS = {1.0: "left", 0.0: "right", 0.5: "tie"}


@dataclass(frozen=True)
class Contest:
    """The first of two models against the second, as the judge has it. `rate` is its win rate (the mean of its pairs'
    scores over both orders), `same_style` what it would be between answers of the same style (`style.FEATURES`),
    `ordered` how many pairs came out LL, LD, WL or DD, WD, WW over the two orders, `elo` from those, and `would_say`
    the win rate by each baseline."""

    rate: Estimate
    same_style: Estimate | None
    ordered: list[int]
    elo: EloEstimate | None
    would_say: dict[str, float]


@dataclass(frozen=True)
class Grades:
    """Answers that the judge graded each alone, from 1 to 10: the mean of each model, the mean difference of the two on
    the same prompts, and how many answers of each got 1, 2, ... 10."""

    one: Estimate
    other: Estimate
    difference: Estimate
    counts_one: list[int]
    counts_other: list[int]


@dataclass(frozen=True)
class Bias:
    """How often the judge says the same in both orders, and how much oftener than half it prefers the first answer."""

    consistency: Estimate
    position: Estimate


@dataclass(frozen=True)
class Calibration:
    """The judge against people's votes. `agrees` is the share of decided votes that the judge and each baseline agree
    with, `kappa` the judge's agreement beyond chance (ties are a label), `verbosity` how much oftener than people it
    prefers the longer answer, `voters` the agreement of several voters among themselves (Krippendorff's alpha). What
    cannot be told of these votes is None."""

    votes: int
    agrees: dict[str, Estimate]
    kappa: Estimate | None
    verbosity: Estimate | None
    voters: Estimate | None


@dataclass(frozen=True)
class JudgeReport:
    """Everything a judge has said of two models, and what that is worth. `grades` is None where it compared answers.
    `combined` is the win rate by people, from their votes between the two and the judge's verdicts
    (prediction-powered); None where such votes are too few."""

    contest: Contest
    grades: Grades | None
    bias: Bias | None
    calibration: Calibration | None
    combined: Estimate | None


def report_on(
    judge: Judge,
    held_out: Sequence[Pair],
    cast: Sequence[Vote],
    models: tuple[str, str | None],
    references: References,
    *,
    confidence: float,
    progress: Progress,
) -> tuple[JudgeReport, list[Verdict | None]]:
    """Have the judge compare two models on `held_out` pairs, and all answers that were voted on. The report, and the
    verdicts on the held-out pairs, in order.

    Raises DataError for fewer than two held-out prompts, before anybody is asked, or fewer than two verdicts on them;
    EngineError where most replies are no verdict.
    """
    if len({pair.prompt for pair in held_out}) < LEAST:
        raise DataError(
            f"got {len(held_out)} held-out prompts that both models have answered; expected at least {LEAST}",
            hint="Both must have been evaluated on the same prompts: evaluate.prompts, or evaluate.samples.",
        )
    votes = countable(cast)
    verdicts = judge.judge([*held_out, *voted_pairs(votes, references)], progress)
    on_held_out, on_votes = verdicts[: len(held_out)], verdicts[len(held_out) :]
    report = JudgeReport(
        contest=compare(held_out, on_held_out, confidence=confidence),
        grades=grade(held_out, on_held_out, confidence=confidence),
        bias=bias_of(verdicts, confidence=confidence),
        calibration=calibrate(votes, on_votes, confidence=confidence),
        combined=combine(votes, on_votes, on_held_out, models, confidence=confidence),
    )
    return report, on_held_out


def said_of(report: JudgeReport, one: str, other: str) -> list[str]:
    """The report in sentences."""
    rate, found = report.contest.rate, report.calibration
    said = [f"The judge gives {one} a win rate of {_interval(rate)} over {other}, on {rate.n} prompts."]
    if report.grades is not None:
        of_one, of_other = graded(report.grades.one), graded(report.grades.other)
        more = graded(report.grades.difference, sign="+")
        said.append(f"Of 10 it grades {one} {of_one} and {other} {of_other}: a difference of {more}.")
    if found is None:
        said.append(
            "Fewer than two votes are decided, so nothing tells whether this judge judges as you do: an opinion, not a "
            "measurement."
        )
        return said
    mine = found.agrees[JUDGE]
    others = ", ".join(f"{name} {share.value:.0%}" for name, share in found.agrees.items() if name != JUDGE)
    said.append(f"It agrees with {_interval(mine)} of {mine.n} decided votes; without reading: {others}.")
    if mine.low <= max(share.value for name, share in found.agrees.items() if name != JUDGE):
        said.append("That is not shown to be more than without reading: do not rely on it.")
    if report.combined is None:
        said.append(f"Too few votes are on {one} and {other} to combine them with its verdicts.")
    else:
        combined = _interval(report.combined)
        said.append(
            f"Votes and judge together: people prefer {one} on {combined}, {report.combined.n} votes."
        )
    return said


def compare(pairs: Sequence[Pair], verdicts: Sequence[Verdict | None], *, confidence: float) -> Contest:
    """The contest of the models that wrote `one` and `other`. Raises DataError for fewer than two verdicts or
    prompts."""
    kept = [(pair, found) for pair, found in zip(pairs, verdicts, strict=True) if found is not None]
    prompts = [pair.prompt for pair, _ in kept]
    if len(set(prompts)) < LEAST:
        raise DataError(
            f"the judge has given {len(kept)} verdicts on {len(set(prompts))} prompts; expected verdicts on at least "
            f"{LEAST}, for one alone has no error"
        )
    scores = [found.mean for _, found in kept]
    differences = style_differences([pair.one for pair, _ in kept], [pair.other for pair, _ in kept])
    ordered = pair_counts([v.forward for _, v in kept], [v.backward for _, v in kept])
    longest = sum(longer(pair.one, pair.other) for pair, _ in kept) / len(kept)
    return Contest(
        rate=win_rate(scores, prompts, confidence=confidence),
        same_style=_told(lambda: controlled_win_rate(scores, differences, prompts, confidence=confidence)),
        ordered=ordered.astype(int).tolist(),
        elo=_told(lambda: elo_estimate(ordered, confidence=confidence)),
        would_say={LONGEST: longest, FIRST: 0.5, COIN: 0.5},
    )


def grade(pairs: Sequence[Pair], verdicts: Sequence[Verdict | None], *, confidence: float) -> Grades | None:
    """The grades of the models that wrote `one` and `other`, with Student's t intervals clustered by prompt; where all
    are alike, Wilson's, for a grade is bounded as a rate is. None where answers were not graded."""
    kept = [
        (pair.prompt, found.grades)
        for pair, found in zip(pairs, verdicts, strict=True)
        if found is not None and found.grades is not None
    ]
    if not kept:
        return None
    prompts = [prompt for prompt, _ in kept]
    one, other = ([grades[side] for _, grades in kept] for side in (0, 1))

    def mean(values: Sequence[int], low: int, high: int) -> Estimate:
        found = win_rate([(v - low) / (high - low) for v in values], prompts, confidence=confidence)
        value, least, most = (low + (high - low) * v for v in (found.value, found.low, found.high))
        return Estimate(value, least, most, found.n)

    widest = MOST_GRADE - 1
    return Grades(
        one=mean(one, 1, MOST_GRADE),
        other=mean(other, 1, MOST_GRADE),
        difference=mean([a - b for a, b in zip(one, other, strict=True)], -widest, widest),
        counts_one=[one.count(n) for n in range(1, MOST_GRADE + 1)],
        counts_other=[other.count(n) for n in range(1, MOST_GRADE + 1)],
    )


def bias_of(verdicts: Sequence[Verdict | None], *, confidence: float) -> Bias | None:
    """The judge's bias over all it was asked in both orders; None for fewer than two of them, or answers that it graded
    alone."""
    kept = [found for found in verdicts if found is not None and found.grades is None]
    if len(kept) < LEAST:
        return None
    first = [0.5 * (found.forward + 1 - found.backward) for found in kept]
    forward, backward = ([getattr(v, side) for v in kept] for side in ("forward", "backward"))
    return Bias(agreement(forward, backward, confidence), position_bias(first, confidence))


def calibrate(
    votes: Sequence[Vote], verdicts: Sequence[Verdict | None], *, confidence: float
) -> Calibration | None:
    """The judge's verdicts on the pairs of `voted_pairs(votes)` against the votes; None where fewer than two votes are
    decided, so that there is nothing to calibrate on."""
    kept = [(vote, found) for vote, found in zip(votes, verdicts, strict=True) if found is not None]
    people = [score_of(vote, vote.left_model) for vote, _ in kept]
    judged = [found.label for _, found in kept]
    decided = [(mine, theirs) for mine, theirs in zip(judged, people, strict=True) if theirs != 0.5]
    if len(decided) < LEAST:
        return None
    left_longer = [longer(vote.left_answer, vote.right_answer) for vote, _ in kept]
    right = sum(1 - abs(mine - theirs) for mine, theirs in decided)
    labels = [[_LABELS[score] for score in scores] for scores in (judged, people)]
    return Calibration(
        votes=len(kept),
        agrees={JUDGE: wilson(right, len(decided), confidence), **baselines(people, left_longer, confidence)},
        kappa=_told(lambda: cohens_kappa(labels[0], labels[1], confidence)),
        verbosity=_told(lambda: verbosity_bias(judged, people, left_longer, confidence)),
        voters=_voters(votes, confidence),
    )


def combine(
    votes: Sequence[Vote],
    on_votes: Sequence[Verdict | None],
    on_held_out: Sequence[Verdict | None],
    models: tuple[str, str | None],
    *,
    confidence: float,
) -> Estimate | None:
    """The win rate of the first of two models over the second by people, from their votes between the two on drawn
    prompts and the judge's verdicts on those and on held-out prompts. None where fewer than two votes of that kind are
    there, or nothing spreads."""
    people, same = [], []
    for vote, found in zip(votes, on_votes, strict=True):
        is_theirs = {vote.left_model, vote.right_model} == set(models)
        if found is not None and is_theirs and vote.source == "pool":
            people.append(score_of(vote, models[0]))
            same.append(found.mean if vote.left_model == models[0] else 1 - found.mean)
    alone = [found.mean for found in on_held_out if found is not None]
    if len(people) < LEAST or len(alone) < LEAST:
        return None
    return _told(lambda: prediction_powered(people, same, alone, confidence))


def countable(votes: Sequence[Vote]) -> list[Vote]:
    """Votes between two models, the same voter on the same two answers once. A model against itself tells of the voter,
    not of the judge; and where the voter went on talking, they judged more than the judge is shown."""
    seen: dict[object, Vote] = {}
    for vote in votes:
        if vote.left_model != vote.right_model and vote.turns is None:
            seen.setdefault((vote.voter, vote.prompt_hash, _answers(vote)), vote)
    return list(seen.values())


def voted_pairs(votes: Sequence[Vote], references: References) -> list[Pair]:
    """What the judge is asked about each vote: the left answer against the right one."""
    return [
        Pair(
            vote.prompt_hash,
            parse_messages(vote.prompt["messages"], "vote"),
            vote.left_answer,
            vote.right_answer,
            references.get((vote.suite, vote.prompt_id)),
        )
        for vote in votes
    ]


def held_out_pairs(
    one: Sequence[Sample], other: Sequence[Sample] | None, references: References
) -> list[Pair]:
    """The answers of two nights' models to the held-out prompts that both have; without `other`, of one night's model
    and its base."""
    theirs = (
        None if other is None else {canonical_key(sample.prompt): sample.tuned_answer for sample in other}
    )
    pairs = []
    for sample in one:
        prompt = canonical_key(sample.prompt)
        answer = sample.base_answer if theirs is None else theirs.get(prompt)
        if answer is not None:
            messages = parse_messages(sample.prompt, sample.prompt_id)
            reference = references.get((sample.suite, sample.prompt_id))
            pairs.append(Pair(prompt, messages, sample.tuned_answer, answer, reference))
    return pairs


def longer(one: str, other: str) -> float:
    """1 where the first text is the longer one, 0 where the other is, 1/2 where they are alike."""
    return 0.5 + 0.5 * ((len(one) > len(other)) - (len(one) < len(other)))


def graded(found: Estimate, sign: str = "") -> str:
    """A mean grade with its interval; with `sign` +, a difference of two."""
    value, low, high = (f"{number:{sign}.1f}" for number in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"


def _interval(found: Estimate) -> str:
    return f"{found.value:.0%} ({found.low:.0%} to {found.high:.0%})"


def _answers(vote: Vote) -> frozenset[tuple[str, str]]:
    return frozenset({(vote.left_model, vote.left_answer), (vote.right_model, vote.right_answer)})


def _voters(votes: Sequence[Vote], confidence: float) -> Estimate | None:
    """Krippendorff's alpha of the voters, on answers that several have voted on; None where there are too few."""
    said: dict[object, dict[str, str]] = {}
    for vote in votes:
        winner = vote.left_model if vote.verdict == "left" else vote.right_model
        label = winner if vote.verdict in ("left", "right") else "tie"
        said.setdefault((vote.prompt_hash, _answers(vote)), {})[vote.voter] = label
    voters = sorted({voter for by_voter in said.values() for voter in by_voter})
    if len(voters) < LEAST:
        return None
    ratings = [[by_voter.get(voter) for by_voter in said.values()] for voter in voters]
    return _told(lambda: krippendorffs_alpha(ratings, confidence=confidence))


def _told(compute: Callable[[], Found]) -> Found | None:
    """What the statistics refuse to tell of these data is not known."""
    try:
        return compute()
    except ValueError:
        return None
