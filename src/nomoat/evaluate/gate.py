"""The gate's verdict: may this generation replace the one that is served? A pure function of counts.

Evidence is paired: challenger and rival did the same prompt, or were judged blindly on it. Each kind of evidence gives
an e-value (see `stats.sequential`) for "the challenger wins more often than it loses"; they multiply, since the votes
come after the answers, and whatever came before, an e-value's mean is at most 1 where the challenger is no better. So
a challenger that is no better is promoted with a chance of at most α, however often its owner looks or votes.

Two things lend votes more weight, and neither is a vote. What a judge had said of the same two on all held-out prompts
takes the noise of which prompt was drawn out of a vote (`stats.betting`): the better it has foretold votes before,
the more. And votes of challenger and rival against the same third model, matched by voter and prompt, count as their
difference: an earlier champion's votes are not lost. They speak for a challenger only: a rival may be champion because
of those very votes, a lucky stretch that the challenger's are not to be held against.

Loss is a proxy for what people prefer, so half of the stake on it is never bet: against a challenger whom votes prefer
it takes away half of what they say and no more. Against a challenger it counts until the first vote between the two.

Guarded suites are no such evidence. On each of them the challenger must be shown not to lose more than a margin
(non-inferiority: the lower end of Tango's interval for the paired difference lies above it, one-sided at α).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from nomoat.evaluate.comparison import Estimate
from nomoat.evaluate.stats import sequential
from nomoat.evaluate.stats.betting import log_e_value_of_differences
from nomoat.evaluate.stats.intervals import tango
from nomoat.evaluate.stats.power import MOST_VOTES, votes_still_needed
from nomoat.evaluate.stats.sequential import confidence_sequence, log_e_value

GateWord = Literal["promote", "keep", "not yet"]
Source = Literal["checks", "loss", "votes"]
BASE = "base"
BEST_AT: dict[Source, float] = {"checks": 20, "loss": 20, "votes": sequential.BEST_AT}
"""Where each kind's test is strongest: a suite has some tens of prompts that only one of two models passes, and they
mostly go one way (the Beta is then about flat over win rates from 1/2 to 1); votes are many and nearly even."""
_MOST_LOG = 600.0  # e^600 still is a float
_HOPED_RATE = 0.6
"""Win rate that the number of votes still needed is reckoned at where nothing is known of it yet."""


@dataclass(frozen=True)
class Judged:
    """What the votes weigh beside a judge's verdicts: logarithms of their e-values for and against the challenger, and
    how many of them the judge had a say in."""

    log_for: float
    log_against: float
    votes: int


@dataclass(frozen=True)
class Tally:
    """How often the challenger won, lost and tied against its rival. checks: prompts that only one of them passes;
    loss: held-out rows on which one has less; votes: blind ones, "both bad" being a tie."""

    source: Source
    wins: int
    losses: int
    ties: int
    judged: Judged | None = None


@dataclass(frozen=True)
class Link:
    """What the challenger scored against a third model less what the rival did, in [-1, 1], for each two votes of the
    same voter on the same drawn prompt."""

    third: str
    differences: tuple[float, ...]


@dataclass(frozen=True)
class Guard:
    """A guarded suite: of n prompts those that only the rival, or only the challenger passes, and the loss allowed."""

    suite: str
    only_rival: int
    only_challenger: int
    n: int
    margin: float


@dataclass(frozen=True)
class Weighed:
    """A tally with what it weighs: its e-value for the challenger, of loss with half of it not staked, and the win rate
    (ties half) with an interval that holds at every number of votes; None for fewer than two. `judged`: of how many a
    judge had spoken before."""

    source: Source
    wins: int
    losses: int
    ties: int
    e_value: float
    rate: Estimate | None
    judged: int


@dataclass(frozen=True)
class Linked:
    """A link, counted, with what it weighs: in how many matched votes the challenger did better than its rival, worse
    and alike."""

    third: str
    better: int
    worse: int
    alike: int
    e_value: float


@dataclass(frozen=True)
class Guarded:
    """A guarded suite with its finding; `difference` is challenger minus rival, None where nothing was measured."""

    suite: str
    finding: Literal["holds", "regressed", "unclear"]
    margin: float
    difference: Estimate | None
    prompts_needed: int | None


@dataclass(frozen=True)
class GateVerdict:
    """`e_value` against 1/α decides for the challenger, `e_against` for the rival; where both reach it, neither.
    `e_value` is the product of those in `weighed` and `links`. `votes_needed`: about how many more decided votes would
    bring it there, None where they would not. `left_out`: votes between the two that are no evidence, by the reason.
    `doubts`: whose votes count although something speaks against it."""

    verdict: GateWord
    challenger: str
    rival: str
    alpha: float
    e_value: float
    e_against: float
    weighed: tuple[Weighed, ...]
    links: tuple[Linked, ...]
    guards: tuple[Guarded, ...]
    votes_needed: int | None
    left_out: dict[str, int]
    doubts: tuple[str, ...]
    said: str


def decide(
    tallies: Sequence[Tally],
    guards: Sequence[Guard],
    links: Sequence[Link] = (),
    *,
    challenger: str,
    rival: str,
    alpha: float,
    left_out: Mapping[str, int] = MappingProxyType({}),
    doubts: Sequence[str] = (),
) -> GateVerdict:
    """Promote, keep the rival, or say what is missing. `left_out` are votes that are in none of the tallies, `doubts`
    what is to be said of those that are.

    keep: a guarded suite got worse, or the rival is shown to be better (with the same α). promote: the challenger is
    shown to be better and every guarded suite holds. not yet: anything else, such as evidence that shows both.
    """
    log_for = sum(map(_log_for, tallies)) + sum(map(_log_of, links))
    log_against = _log_against(tallies)
    threshold = -math.log(alpha)
    is_better, is_worse = log_for >= threshold, log_against >= threshold
    weighed = tuple(_weigh(tally, alpha) for tally in tallies)
    linked = tuple(map(_linked, links))
    guarded = tuple(_guard(guard, alpha) for guard in guards)
    worse = [guard for guard in guarded if guard.finding == "regressed"]
    unclear = [guard for guard in guarded if guard.finding == "unclear"]
    verdict: GateWord
    if worse or (is_worse and not is_better):
        verdict = "keep"
    elif is_better and not is_worse and not unclear:
        verdict = "promote"
    else:
        verdict = "not yet"
    needed = _votes_needed(tallies, log_for, alpha)
    parts, named = [_evidence_said(log_for, alpha, weighed, linked)], "the base" if rival == BASE else rival
    begins = named[0].upper() + named[1:] if rival == BASE else rival
    if verdict == "promote":
        parts.insert(0, f"{challenger} replaces {named}.")
    elif verdict == "keep":
        parts.insert(0, f"{begins} stays, and {challenger} is not promoted.")
        parts += [_worse_said(guard) for guard in worse]
        if is_worse and not is_better:
            parts.append(f"{begins} is shown to be better: evidence {_odds(log_against)}.")
    else:
        parts.insert(0, f"Not yet: {named} stays for now.")
        if is_better and is_worse:
            parts.append(
                f"The evidence contradicts itself: {_odds(log_against)} that {named} is better. "
                "More votes would tell: nomoat arena."
            )
        elif not is_better:
            parts.append(_needed_said(tallies, needed))
        parts += [_unclear_said(guard) for guard in unclear]
    if left_out:
        parts.append(_left_out_said(left_out))
    if doubts:
        parts.append(f"Votes that count, in doubt: {'; '.join(doubts)}.")
    return GateVerdict(
        verdict,
        challenger,
        rival,
        alpha,
        _exp(log_for),
        _exp(log_against),
        weighed,
        linked,
        guarded,
        needed,
        dict(left_out),
        tuple(doubts),
        " ".join(parts),
    )


def _log_for(tally: Tally) -> float:
    if tally.judged is not None:
        return tally.judged.log_for
    log_e = float(log_e_value(tally.wins, tally.losses, best_at=BEST_AT[tally.source]))
    return float(np.logaddexp(0.0, log_e)) - math.log(2) if tally.source == "loss" else log_e


def _log_against(tallies: Sequence[Tally]) -> float:
    have_voted = any(tally.source == "votes" for tally in tallies)
    return sum(
        tally.judged.log_against
        if tally.judged is not None
        else float(log_e_value(tally.losses, tally.wins, best_at=BEST_AT[tally.source]))
        for tally in tallies
        if not (tally.source == "loss" and have_voted)
    )


def _log_of(link: Link) -> float:
    return log_e_value_of_differences(link.differences)


def _linked(link: Link) -> Linked:
    better, worse = sum(d > 0 for d in link.differences), sum(d < 0 for d in link.differences)
    alike = len(link.differences) - better - worse
    return Linked(link.third, better, worse, alike, _exp(_log_of(link)))


def _weigh(tally: Tally, alpha: float) -> Weighed:
    n = tally.wins + tally.losses + tally.ties
    rate = confidence_sequence(tally.wins + tally.ties / 2, n, confidence=1 - alpha) if n > 1 else None
    e_value = _exp(_log_for(tally))
    judged = tally.judged.votes if tally.judged else 0
    return Weighed(tally.source, tally.wins, tally.losses, tally.ties, e_value, rate, judged)


def _guard(guard: Guard, alpha: float) -> Guarded:
    if guard.n == 0:
        return Guarded(guard.suite, "unclear", guard.margin, None, None)
    found = tango(guard.only_rival, guard.only_challenger, guard.n, 1 - 2 * alpha)
    if found.low > -guard.margin:
        return Guarded(guard.suite, "holds", guard.margin, found, 0)
    if found.high < 0:
        return Guarded(guard.suite, "regressed", guard.margin, found, None)
    room = (
        found.value + guard.margin
    )  # what the interval may reach below its middle, which shrinks as 1/sqrt(n)
    needed = math.ceil(guard.n * ((found.value - found.low) / room) ** 2) - guard.n if room > 0 else None
    return Guarded(guard.suite, "unclear", guard.margin, found, needed)


def _votes_needed(tallies: Sequence[Tally], log_for: float, alpha: float) -> int | None:
    """Votes at their present rate, or, where there are none yet, at the rate that one may hope for. Beside a judge: as
    if it said nothing of those to come, or, where that is sooner, as fast as evidence has grown with it so far."""
    votes = next((tally for tally in tallies if tally.source == "votes"), None)
    if votes is None or votes.wins + votes.losses == 0:
        return votes_still_needed(0, 0, log_have=log_for, alpha=alpha, rate=_HOPED_RATE)
    rest = log_for - float(log_e_value(votes.wins, votes.losses, best_at=BEST_AT["votes"]))
    needed = votes_still_needed(votes.wins, votes.losses, log_have=rest, alpha=alpha)
    if votes.judged is None or votes.judged.log_for <= 0:
        return needed
    log_a_vote = votes.judged.log_for / (votes.wins + votes.losses)
    as_judged = max(0, math.ceil((-math.log(alpha) - log_for) / log_a_vote))
    soonest = as_judged if needed is None else min(needed, as_judged)
    return soonest if soonest <= MOST_VOTES else None


def _evidence_said(log_for: float, alpha: float, weighed: Sequence[Weighed], linked: Sequence[Linked]) -> str:
    if not weighed and not linked:
        return "There is nothing to decide on yet."
    told = [_WON[tally.source].format(tally=tally) for tally in weighed]
    told += [f"a judge had spoken before {tally.judged} of these votes" for tally in weighed if tally.judged]
    told += [
        f"against {link.third}, by the same voter on the same prompt, it did better {link.better} times, "
        f"worse {link.worse}"
        for link in linked
    ]
    counted = "; ".join(told)
    return f"Evidence {_odds(log_for)} that it is better, where {1 / alpha:,.0f} to 1 are asked: {counted}."


_WON = {
    "checks": "{tally.wins} held-out prompts only it passes, {tally.losses} only the other",
    "loss": "less loss on {tally.wins} held-out rows, more on {tally.losses}",
    "votes": "{tally.wins} blind votes for it, {tally.losses} against, {tally.ties} undecided",
}


def _needed_said(tallies: Sequence[Tally], needed: int | None) -> str:
    votes = next((tally for tally in tallies if tally.source == "votes" and tally.wins + tally.losses), None)
    if needed is None:
        return "At the present rate no number of votes would do."
    if votes is None:
        return f"About {needed:,} decided votes would do if it won {_HOPED_RATE:.0%} of them: nomoat arena."
    return f"About {needed:,} more decided votes would do at the present rate: nomoat arena."


def _worse_said(guard: Guarded) -> str:
    return (
        f"It got worse on {guard.suite}: {_points(guard)}, where {-100 * guard.margin:g} points are allowed."
    )


def _unclear_said(guard: Guarded) -> str:
    if guard.difference is None:
        return f"{guard.suite} guards the gate and was not measured against this rival."
    more = f" About {guard.prompts_needed:,} more prompts would show it." if guard.prompts_needed else ""
    loss = f"A loss of more than {100 * guard.margin:g} points on {guard.suite}"
    return f"{loss} is not ruled out: {_points(guard)}.{more}"


def _left_out_said(left_out: Mapping[str, int]) -> str:
    told = ", ".join(f"{count:,} {reason}" for reason, count in sorted(left_out.items()))
    return f"Votes that do not count: {told}."


def _points(guard: Guarded) -> str:
    assert guard.difference is not None
    value, low, high = (
        100 * x for x in (guard.difference.value, guard.difference.low, guard.difference.high)
    )
    return f"{value:+.1f} points ({low:.1f} to {high:.1f})"


def _odds(log_e: float) -> str:
    """'37 to 1', '1 to 4', 'over a million to 1'."""
    if log_e > math.log(1e6):
        return "over a million to 1"
    if log_e < -math.log(1e6):
        return "1 to over a million"
    e = math.exp(log_e)
    return f"{e:,.3g} to 1" if 1 <= e < 10 else f"{e:,.0f} to 1" if e >= 10 else f"1 to {1 / e:,.3g}"


def _exp(log_e: float) -> float:
    return math.exp(min(log_e, _MOST_LOG))
