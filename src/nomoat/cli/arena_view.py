"""The leaderboard and the voters as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nomoat.cli.output import table
from nomoat.cli.units import share

if TYPE_CHECKING:
    from rich.console import Console

    from nomoat.evaluate.comparison import Estimate
    from nomoat.evaluate.head_to_head import Pairing, Voter
    from nomoat.evaluate.standings import Standing
    from nomoat.ledger.rows import Vote


def told(vote: Vote) -> str:
    """Who was who, once that may be known."""
    if vote.better is not None:
        other = "2" if vote.better == "left" else "1"
        return (
            f"Kept: {vote.verdict}. This one was to check the voter: answer {other} was to another prompt. Both were "
            f"{vote.left_name}."
        )
    if vote.left_model == vote.right_model:
        return f"Kept: {vote.verdict}. Both were {vote.left_name}, to measure the voter."
    return f"Kept: {vote.verdict}. 1 was {vote.left_name}, 2 was {vote.right_name}."


def standings_json(
    found: Sequence[Standing],
    uncounted: int,
    pairs: Sequence[Pairing],
    cast_by: Sequence[Voter],
    confidence: float,
) -> dict[str, Any]:
    """Leaderboard, pairs and voters under the keys of `arena.STANDINGS_KEYS`."""
    from nomoat.evaluate.standings import anchor_of

    return {
        "anchor": anchor_of(found),
        "confidence": confidence,
        "standings": [asdict(standing) for standing in found],
        "uncounted": uncounted,
        "pairs": [asdict(pair) for pair in pairs],
        "voters": [asdict(voter) for voter in cast_by],
    }


def print_standings(found: Sequence[Standing], uncounted: int, confidence: float, to: Console) -> None:
    """The leaderboard for people."""
    from nomoat.evaluate.standings import anchor_of, uncounted_said

    if uncounted:
        to.print(uncounted_said(uncounted), style="dim")
    elif not found:
        to.print("No votes yet: nomoat arena")
    if not found:
        return
    interval = f"({100 * confidence:g}% interval)"
    made = table(
        "model",
        f"points {interval}",
        f"win rate {interval}",
        "in the same style",
        "won",
        "lost",
        "tied",
        right=("won", "lost", "tied"),
    )
    for one in found:
        counts = (f"{n:,}" for n in (one.wins, one.losses, one.ties))
        made.add_row(one.name, _points(one.points), _rate(one.rate), _rate(one.same_style), *counts)
    to.print(made)
    anchor = anchor_of(found)
    if anchor is not None:
        to.print(f"Points above {anchor}; 400 are odds of 10 to 1.", style="dim")
    to.print(
        "In the same style: if answers were as long as their rivals, with as many headings, list items and bold "
        "passages.",
        style="dim",
    )


def print_pairs(pairs: Sequence[Pairing], to: Console) -> None:
    """Each pair, and what it still takes."""
    if not pairs:
        return
    heads = ("pair", "won", "tied", "verdict", *(("why",) if any(one.why for one in pairs) else ()))
    made = table(*heads, right=("tied",))
    for one in pairs:
        cells = f"{one.one} : {one.other}", f"{one.wins:,} : {one.losses:,}", f"{one.ties:,}", one.said
        made.add_row(*(*cells, one.why_said)[: len(heads)])
    to.print(made)


def print_voters(cast_by: Sequence[Voter], to: Console) -> None:
    """Who voted, and whether they can be counted on."""
    if not cast_by:
        return
    made = table(
        "voter", "votes", "prefers left", "even with itself", "known answers", "doubts", right=("votes",)
    )
    for one in cast_by:
        selves = f"{one.self_ties:,} of {one.selves:,}" if one.selves else "none yet"
        probes = f"{one.probes - one.missed:,} of {one.probes:,}" if one.probes else "none yet"
        doubts = ", ".join(one.flags) or "nothing found"
        made.add_row(one.name, f"{one.votes:,}", _rate(one.left), selves, probes, doubts)
    to.print(made)


def _points(found: Estimate | None) -> str:
    if found is None:
        return "not comparable yet"
    if found.low == found.high:
        return "0"
    return f"{found.value:+.0f} ({found.low:+.0f} to {found.high:+.0f})"


def _rate(found: Estimate | None) -> str:
    return (
        "not known" if found is None else f"{share(found.value)} ({share(found.low)} to {share(found.high)})"
    )
