"""The gate's verdict: may this generation replace the one that is served? A pure function of counts.

Evidence is paired: challenger and rival did the same prompt, or were judged blindly on it. Each kind of evidence gives
an e-value (see `stats.sequential`) for "the challenger wins more often than it loses"; they multiply, since the votes
come after the answers, and whatever came before, an e-value's mean is at most 1 where the challenger is no better. So
a challenger that is no better is promoted with a chance of at most α, however often its owner looks or votes.

Two things lend votes more weight, and neither is a vote. What a judge had said of the same two on all held-out prompts
takes the noise of which prompt was drawn out of a vote (`stats.betting`): the better it has foretold votes before,
the more. And votes of challenger and rival against the same third model count as their difference: an earlier
champion's votes are not lost. They hold as far as the third model is the same yardstick for both, as ratings do.

Guarded suites are no such evidence. On each of them the challenger must be shown not to lose more than a margin
(non-inferiority: the lower end of Tango's interval for the paired difference lies above it, one-sided at α).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nomoat.evaluate.comparison import Estimate
from nomoat.evaluate.stats import sequential
from nomoat.evaluate.stats.betting import log_e_value_of_two
from nomoat.evaluate.stats.intervals import tango
from nomoat.evaluate.stats.power import votes_still_needed
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
    """The first `n` decided votes of the challenger and of its rival, each against a third model, and how many they
    won."""

    third: str
    wins: int
    rival_wins: int
    n: int


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
    """A tally with what it weighs: its e-value for the challenger, and the win rate (ties half) with an interval that
    holds at every number of votes; None for fewer than two. `judged`: of how many a judge had spoken before."""

    source: Source
    wins: int
    losses: int
    ties: int
    e_value: float
    rate: Estimate | None
    judged: int


@dataclass(frozen=True)
class Linked:
    """A link with what it weighs."""

    third: str
    wins: int
    rival_wins: int
    n: int
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
    """`e_value` against 1/α decides for the challenger, `e_against` for the rival. `votes_needed`: about how many more
    decided votes would do, None where they would not."""

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
    said: str


def decide(
    tallies: Sequence[Tally],
    guards: Sequence[Guard],
    links: Sequence[Link] = (),
    *,
    challenger: str,
    rival: str,
    alpha: float,
) -> GateVerdict:
    """Promote, keep the rival, or say what is missing.

    keep: a guarded suite got worse, or the rival is shown to be better (with the same α). promote: the e-value
    reaches 1/α and every guarded suite holds. not yet: anything else.
    """
    log_for = sum(_log_e(tally) for tally in tallies) + sum(_log_of(link) for link in links)
    log_against = sum(_log_e(tally, against=True) for tally in tallies)
    log_against += sum(_log_of(link, against=True) for link in links)
    threshold = -math.log(alpha)
    weighed = tuple(_weigh(tally, alpha) for tally in tallies)
    linked = tuple(
        Linked(link.third, link.wins, link.rival_wins, link.n, _exp(_log_of(link))) for link in links
    )
    guarded = tuple(_guard(guard, alpha) for guard in guards)
    worse = [guard for guard in guarded if guard.finding == "regressed"]
    unclear = [guard for guard in guarded if guard.finding == "unclear"]
    verdict: GateWord
    if worse or log_against >= threshold:
        verdict = "keep"
    elif log_for >= threshold and not unclear:
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
        if log_against >= threshold:
            parts.append(f"{begins} is shown to be better: evidence {_odds(log_against)}.")
    else:
        parts.insert(0, f"Not yet: {named} stays for now.")
        if log_for < threshold:
            parts.append(_needed_said(tallies, needed))
        parts += [_unclear_said(guard) for guard in unclear]
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
        " ".join(parts),
    )


def _log_e(tally: Tally, *, against: bool = False) -> float:
    if tally.judged is not None:
        return tally.judged.log_against if against else tally.judged.log_for
    won, lost = (tally.losses, tally.wins) if against else (tally.wins, tally.losses)
    return float(log_e_value(won, lost, best_at=BEST_AT[tally.source]))


def _log_of(link: Link, *, against: bool = False) -> float:
    won, lost = (link.rival_wins, link.wins) if against else (link.wins, link.rival_wins)
    return log_e_value_of_two(won, lost, link.n)


def _weigh(tally: Tally, alpha: float) -> Weighed:
    n = tally.wins + tally.losses + tally.ties
    rate = confidence_sequence(tally.wins + tally.ties / 2, n, confidence=1 - alpha) if n > 1 else None
    e_value = _exp(_log_e(tally))
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
    """Votes at their present rate, or, where there are none yet, at the rate that one may hope for."""
    votes = next((tally for tally in tallies if tally.source == "votes"), None)
    if votes is None or votes.wins + votes.losses == 0:
        return votes_still_needed(0, 0, log_have=log_for, alpha=alpha, rate=_HOPED_RATE)
    rest = log_for - float(log_e_value(votes.wins, votes.losses, best_at=BEST_AT["votes"]))
    return votes_still_needed(votes.wins, votes.losses, log_have=rest, alpha=alpha)


def _evidence_said(log_for: float, alpha: float, weighed: Sequence[Weighed], linked: Sequence[Linked]) -> str:
    if not weighed and not linked:
        return "There is nothing to decide on yet."
    told = [_WON[tally.source].format(tally=tally) for tally in weighed]
    told += [f"a judge had spoken before {tally.judged} of these votes" for tally in weighed if tally.judged]
    told += [
        f"of {link.n} blind votes each against {link.third} it won {link.wins}, the other {link.rival_wins}"
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
