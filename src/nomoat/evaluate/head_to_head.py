"""What votes say of each pair of models and of those who cast them, and when they came."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations

from nomoat.evaluate.ballots import Why, count_reasons, count_votes
from nomoat.evaluate.comparison import Estimate
from nomoat.evaluate.gate import Tally
from nomoat.evaluate.stats.intervals import wilson
from nomoat.evaluate.stats.power import votes_still_needed
from nomoat.evaluate.stats.sequential import log_e_value, log_mixture
from nomoat.ledger.rows import Vote, VoteRow

_FEWEST = 10
"""Votes of a person below which nothing is said of their habits."""
_LETTERS_A_SECOND = 50.0
"""Nobody reads faster: 600 words a minute; Brysbaert (2019), Journal of Memory and Language 109:104047, finds 238 on
average and none above 400 in silent reading with comprehension."""
_MAY_MISS = 0.1
"""The share of probes that somebody who reads may miss: we chose it, for a model may answer that badly."""
_PROBES = 20
"""Probes at which their test is about strongest; it is valid at every number."""


@dataclass(frozen=True)
class Pairing:
    """Votes between two models. `better` is the one that the votes have shown to be better, at an error rate that holds
    whenever one looks; None while it is open. Then `needed` are further decided votes, if they come as they came so
    far; None where they would never tell. `why` is what voters named of those that each won."""

    one: str
    other: str
    wins: int
    losses: int
    ties: int
    better: str | None
    needed: int | None
    why: tuple[Why, ...]

    @property
    def why_said(self) -> str:
        """The reasons, for votes that each won: 'style 12 : 3, length 0 : 4'; '' where none was named."""
        return ", ".join(f"{one.reason} {one.wins:,} : {one.losses:,}" for one in self.why)

    @property
    def said(self) -> str:
        """What is known of the pair, or what it still takes."""
        if self.better is not None:
            return f"{self.better} is better"
        if self.needed is None:
            return "open: even so far"
        return f"open: about {self.needed:,} more decided votes"


@dataclass(frozen=True)
class Voter:
    """One person's votes. `left` is the share of decided votes that went to the left side, with its interval, None for
    none; `selves` are votes on a model against itself, `self_ties` those of them that preferred no side; `probes` are
    votes on probes, without "both bad", which may well be, and `missed` those that did not prefer the better side.
    `flags` say what speaks against counting on them; their votes count all the same."""

    name: str
    votes: int
    left: Estimate | None
    selves: int
    self_ties: int
    probes: int
    missed: int
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Day:
    """Votes of one day (UTC), how many of them were decided, and all votes until its end."""

    date: str
    votes: int
    decided: int
    so_far: int


def head_to_head(votes: Sequence[VoteRow], names: Mapping[str, str], *, alpha: float) -> list[Pairing]:
    """Every pair that was voted on, the most voted first. `alpha` is a pair's error rate, of both directions together;
    `names` are as in `standings`."""
    called = {m: n for v in votes for m, n in ((v.left_model, v.left_name), (v.right_model, v.right_name))}
    met: dict[frozenset[str], list[VoteRow]] = {}
    for vote in votes:
        met.setdefault(frozenset((vote.left_model, vote.right_model)), []).append(vote)
    found = []
    for one, other in combinations(sorted(called), 2):
        between = met.get(frozenset((one, other)))
        if between:
            sides = names.get(one, called[one]), names.get(other, called[other])
            tally, why = count_votes(between, one, other), count_reasons(between, one, other)
            found.append(_pairing(sides, tally, why, alpha))
    return sorted(found, key=lambda pair: -(pair.wins + pair.losses + pair.ties))


def by_day(votes: Sequence[Vote]) -> list[Day]:
    """The days on which anybody voted, in order."""
    cast: dict[str, list[Vote]] = {}
    for vote in sorted(votes, key=lambda vote: vote.cast_at):
        cast.setdefault(vote.cast_at[:10], []).append(vote)
    decided = [sum(vote.verdict in ("left", "right") for vote in of_day) for of_day in cast.values()]
    so_far = accumulate(map(len, cast.values()))
    return [
        Day(date, len(of_day), of_them, until)
        for (date, of_day), of_them, until in zip(cast.items(), decided, so_far, strict=True)
    ]


def voters(votes: Sequence[Vote], *, confidence: float) -> list[Voter]:
    """Everybody who voted, the most diligent first."""
    of_name: dict[str, list[Vote]] = {}
    for vote in votes:
        of_name.setdefault(vote.voter, []).append(vote)
    found = [_voter(name, cast, confidence) for name, cast in of_name.items()]
    return sorted(found, key=lambda voter: (-voter.votes, voter.name))


def _pairing(sides: tuple[str, str], tally: Tally, why: tuple[Why, ...], alpha: float) -> Pairing:
    wins, losses = tally.wins, tally.losses
    ahead, behind = max(wins, losses), min(wins, losses)
    leader = sides[0] if wins >= losses else sides[1]
    is_shown = bool(log_e_value(ahead, behind) >= math.log(2 / alpha))
    needed = None if is_shown else votes_still_needed(ahead, behind, alpha=alpha / 2)
    return Pairing(*sides, wins, losses, tally.ties, leader if is_shown else None, needed, why)


def _voter(name: str, cast: Sequence[Vote], confidence: float) -> Voter:
    lefts = sum(vote.verdict == "left" for vote in cast)
    decided = lefts + sum(vote.verdict == "right" for vote in cast)
    selves = [vote for vote in cast if vote.left_model == vote.right_model and vote.better is None]
    self_ties = sum(vote.verdict in ("tie", "both bad") for vote in selves)
    probes = [vote for vote in cast if vote.better is not None and vote.verdict != "both bad"]
    missed = sum(vote.verdict != vote.better for vote in probes)
    left = wilson(lefts, decided, confidence) if decided else None
    flags = [*_flags(cast, lefts, decided), *_missing(missed, len(probes), confidence)]
    return Voter(name, len(cast), left, len(selves), self_ties, len(probes), missed, tuple(flags))


def _flags(cast: Sequence[Vote], lefts: int, decided: int) -> list[str]:
    """Sides come by chance, so that an honest voter prefers each about as often; ten of ten on one side have a chance
    of 1 in 512."""
    flags = []
    if decided >= _FEWEST and lefts in (0, decided):
        flags.append(f"always {'left' if lefts else 'right'}")
    paces = [_letters(vote) / max(vote.seconds, 1e-3) for vote in cast if vote.seconds is not None]
    if len(paces) >= _FEWEST and statistics.median(paces) > _LETTERS_A_SECOND:
        flags.append("faster than reading")
    return flags


def _missing(missed: int, probes: int, confidence: float) -> list[str]:
    """Whether they missed more probes than who reads would; the e-value bounds how many of those ever miss so many,
    however often one looks (Ville's inequality)."""
    log_e = float(log_mixture(missed, probes, _MAY_MISS, best_at=_PROBES, one_sided=True))
    if log_e < -math.log(1 - confidence):
        return []
    return [
        f"missed {missed:,} of {probes:,} known answers (of readers at most 1 in {math.exp(log_e):,.0f} would)"
    ]


def _letters(vote: Vote) -> int:
    """What there was to read."""
    turns = vote.turns or []
    return sum(
        map(len, (vote.left_answer, vote.right_answer, *(text for turn in turns for text in turn.values())))
    )
