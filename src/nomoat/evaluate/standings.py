"""A leaderboard from votes: how far each model stands from the anchor, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nomoat.evaluate.ballots import score_of
from nomoat.evaluate.comparison import Estimate
from nomoat.evaluate.stats.intervals import Floats
from nomoat.evaluate.stats.ratings import Battles, bradley_terry, comparable
from nomoat.evaluate.stats.winrate import controlled_win_rate, win_rate
from nomoat.evaluate.style import style_differences
from nomoat.ledger.rows import Side, Vote

_SIDES: tuple[Side, Side] = ("left", "right")


@dataclass(frozen=True)
class Standing:
    """One model's votes. `points` are above the anchor on Elo's scale (400 are odds of 10 to 1), None where it cannot
    be compared with the anchor yet; `rate` is its win rate over all its votes, ties half, None for fewer than two;
    `same_style` what that would be between answers of the same style (`style.FEATURES`), None where it cannot be
    told."""

    name: str
    model: str
    wins: int
    losses: int
    ties: int
    rate: Estimate | None
    same_style: Estimate | None
    points: Estimate | None


def standings(
    votes: Sequence[Vote], names: Mapping[str, str], *, anchor: str | None, confidence: float
) -> list[Standing]:
    """Every model that was voted on, the best first; those that cannot be rated yet last.

    `names` are the present names of models; one without keeps what its votes call it. `anchor` is the model that has 0
    points; where it has no votes, the one with the most has. Votes on one prompt may depend on each other, and count
    as one cluster. A model against itself says nothing of strength, and is left out.
    """
    decided = [vote for vote in votes if vote.left_model != vote.right_model]
    called = {m: n for v in decided for m, n in ((v.left_model, v.left_name), (v.right_model, v.right_name))}
    models = sorted(called)
    if not models:
        return []
    at = {
        model: [n for n, vote in enumerate(decided) if model in (vote.left_model, vote.right_model)]
        for model in models
    }
    scores = {model: [score_of(decided[n], model) for n in at[model]] for model in models}
    left, right = ([_text(vote, side) for vote in decided] for side in _SIDES)
    differences = style_differences(left, right)
    zero = anchor if anchor in scores else max(models, key=lambda model: len(scores[model]))
    points = _points(decided, models, zero, confidence)
    found = [
        Standing(
            names.get(model, called[model]),
            model,
            wins=scores[model].count(1.0),
            losses=scores[model].count(0.0),
            ties=scores[model].count(0.5),
            rate=_rate([decided[n] for n in at[model]], scores[model], confidence),
            same_style=_same_style(
                [decided[n] for n in at[model]], model, scores[model], differences[at[model]], confidence
            ),
            points=points.get(model),
        )
        for model in models
    ]
    return sorted(found, key=lambda one: (one.points is None, -(one.points.value if one.points else 0.0)))


def uncounted_said(count: int) -> str:
    """That so many votes are in no table."""
    return f"Votes that do not count: {count:,}, on prompts that one of the two models has learned from, or may have."


def anchor_of(found: Sequence[Standing]) -> str | None:
    """Who has 0 points by definition: the only one without an interval."""
    return next(
        (
            one.name
            for one in found
            if one.points and one.points.low == one.points.high == one.points.value == 0
        ),
        None,
    )


def _points(
    votes: Sequence[Vote], models: Sequence[str], zero: str, confidence: float
) -> dict[str, Estimate]:
    """Bradley-Terry points above `zero` of the models that can be compared with it; none for fewer than two prompts."""
    if len(votes) < 2:
        return {}
    at = {model: number for number, model in enumerate(models)}
    group_M = comparable(_battles(votes, at))
    together = [model for model in models if group_M[at[model]] == group_M[at[zero]]]
    inside = [vote for vote in votes if vote.left_model in together and vote.right_model in together]
    if len(together) < 2 or len({vote.prompt_hash for vote in inside}) < 2:
        return {}
    at = {model: number for number, model in enumerate(together)}
    rated = bradley_terry(_battles(inside, at), anchor=at[zero], confidence=confidence)
    return {
        model: Estimate(
            float(rated.points_M[number]),
            float(rated.low_M[number]),
            float(rated.high_M[number]),
            len(inside),
        )
        for model, number in at.items()
    }


def _battles(votes: Sequence[Vote], at: Mapping[str, int]) -> Battles:
    return Battles.of(
        [at[vote.left_model] for vote in votes],
        [at[vote.right_model] for vote in votes],
        [score_of(vote, vote.left_model) for vote in votes],
        models=len(at),
        clusters=[vote.prompt_hash for vote in votes],
    )


def _rate(cast: Sequence[Vote], scores: Sequence[float], confidence: float) -> Estimate | None:
    prompts = [vote.prompt_hash for vote in cast]
    if len(np.unique(prompts)) < 2:
        return None
    return win_rate(scores, prompts, confidence=confidence)


def _same_style(
    cast: Sequence[Vote], model: str, scores: Sequence[float], differences: Floats, confidence: float
) -> Estimate | None:
    """`differences` are of the left answers to the right ones [N, F]."""
    prompts = [vote.prompt_hash for vote in cast]
    if len(set(prompts)) < 2 or len(set(scores)) < 2:
        return None  # style cannot be told from strength where every vote came out alike
    sign_N = np.array([1.0 if vote.left_model == model else -1.0 for vote in cast])
    return controlled_win_rate(scores, sign_N[:, None] * differences, prompts, confidence=confidence)


def _text(vote: Vote, side: Side) -> str:
    return "\n\n".join(said["content"] for said in vote.said(side) if said["role"] == "assistant")
