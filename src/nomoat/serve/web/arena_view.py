"""What the arena's page shows: pure functions from battles and votes to markdown and HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from nomoat.chat.conversation import Conversation
from nomoat.evaluate.battle import Battle
from nomoat.evaluate.comparison import Estimate
from nomoat.evaluate.head_to_head import Day, Pairing, Voter
from nomoat.evaluate.standings import Standing, anchor_of, uncounted_said
from nomoat.ledger.rows import Side, Vote

CONFIDENCE = 0.95
_MOST_DAYS = 14
_NOTHING = "*(no text)*"
_SAID = {"left": "the left one", "right": "the right one", "tie": "a tie", "both bad": "both bad"}


def question(conversation: Conversation) -> str:
    """The prompt as markdown; who said what where there is more than one turn."""
    messages = conversation.messages
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"**{message.role}**: {message.content}" for message in messages)


def side(battle: Battle, which: Side) -> str:
    """One side as markdown, with what it was asked after its first answer."""
    first, *later = battle.said(which)
    said = [f"**you**: {one.content}" if one.role == "user" else one.content for one in later]
    return "\n\n".join([first.content or _NOTHING, *(text or _NOTHING for text in said)])


def told(vote: Vote) -> str:
    """Who was who, once that may be known."""
    if vote.better is not None:
        other = "right" if vote.better == "left" else "left"
        return (
            f"Kept: {_SAID[vote.verdict]}. This one was to check the voter: the answer on the {other} was to another "
            f"prompt. Both were **{vote.left_name}**."
        )
    if vote.left_model == vote.right_model:
        return f"Kept: {_SAID[vote.verdict]}. Both were **{vote.left_name}**, to measure the voter."
    return f"Kept: {_SAID[vote.verdict]}. Left was **{vote.left_name}**, right **{vote.right_name}**."


def leaderboard(found: Sequence[Standing], uncounted: int) -> str:
    """Who stands where, with intervals; and how many votes are left out."""
    left_out = uncounted_said(uncounted) if uncounted else ""
    if not found:
        return f"<p>{left_out or 'No votes yet.'}</p>"
    rows = [
        (
            one.name,
            _points(one.points),
            _rate(one.rate),
            _rate(one.same_style),
            *(f"{n:,}" for n in (one.wins, one.losses, one.ties)),
        )
        for one in found
    ]
    heads = ("Model", "Points", "Win rate", "In the same style", "Won", "Lost", "Tied")
    above = f" above {anchor}" if (anchor := anchor_of(found)) else ""
    note = (
        f"Points{above}, 400 being odds of 10 to 1; {100 * CONFIDENCE:g}% intervals. In the same style: if answers "
        f"were as long as their rivals, with as many headings, list items and bold passages. {left_out}"
    )
    return html_table("Leaderboard", heads, rows, note)


def pairings(found: Sequence[Pairing]) -> str:
    """Each pair, and what it still takes."""
    if not found:
        return ""
    has_why = any(p.why for p in found)
    rows = [
        (
            f"{p.one} : {p.other}",
            f"{p.wins:,} : {p.losses:,}",
            f"{p.ties:,}",
            p.said,
            *((p.why_said,) if has_why else ()),
        )
        for p in found
    ]
    heads = ("Pair", "Won", "Tied", "Verdict", *(("Why",) if has_why else ()))
    note = "A verdict may be looked at after every vote: it is wrong about a pair at most once in twenty."
    if has_why:
        note += " Why: how often a reason was named for votes that the first won, and that the second did."
    return html_table("Head to head", heads, rows, note)


def matrix(found: Sequence[Pairing], names: Sequence[str]) -> str:
    """Won and lost by each of three models or more against each other; two are told by their pair."""
    if len(names) < 3 or not found:
        return ""
    won = {(p.one, p.other): (p.wins, p.losses) for p in found}
    won |= {(p.other, p.one): (p.losses, p.wins) for p in found}

    def cell(row: str, column: str) -> str:
        between = won.get((row, column))
        return f"{between[0]:,} : {between[1]:,}" if between else "–"

    rows = [(row, *(cell(row, column) for column in names)) for row in names]
    note = "Votes that the model of the row won and lost against the model of the column."
    return html_table("Each against each", ("", *names), rows, note)


def over_time(found: Sequence[Day]) -> str:
    """How many votes came when."""
    if not found:
        return ""
    rows = [
        (day.date, f"{day.votes:,}", f"{day.decided:,}", f"{day.so_far:,}")
        for day in found[: -_MOST_DAYS - 1 : -1]
    ]
    note = (
        f"The newest {_MOST_DAYS} days with votes, in UTC." if len(found) > _MOST_DAYS else "Days are UTC's."
    )
    return html_table("Votes over time", ("Day", "Votes", "Decided", "So far"), rows, note)


def diligence(found: Sequence[Voter]) -> str:
    """Who voted, and whether they can be counted on."""
    if not found:
        return ""
    rows = [
        (
            one.name,
            f"{one.votes:,}",
            _rate(one.left),
            f"{one.self_ties:,} of {one.selves:,}" if one.selves else "none yet",
            f"{one.probes - one.missed:,} of {one.probes:,}" if one.probes else "none yet",
            ", ".join(one.flags) or "nothing found",
        )
        for one in found
    ]
    note = (
        "Sides come by chance: an interval of the left side's share that leaves out 50% is a lean. Now and then a "
        "model meets itself: every tie there is right, the rest is the voter's noise. And now and then one side "
        "answers another prompt: the other one is better, which whoever reads seldom misses."
    )
    heads = ("Voter", "Votes", "Prefers left", "Even with itself", "Known answers", "Doubts")
    return html_table("Voters", heads, rows, note)


def _points(found: Estimate | None) -> str:
    if found is None:
        return "not comparable yet"
    if found.low == found.high:
        return "0"
    return f"{found.value:+.0f} ({found.low:+.0f} to {found.high:+.0f})"


def _rate(found: Estimate | None) -> str:
    if found is None:
        return "not known"
    return f"{100 * found.value:.0f}% ({100 * found.low:.0f} to {100 * found.high:.0f})"


def html_table(
    title: str, heads: Iterable[str], rows: Iterable[Sequence[str]], note: str, *, above: str = ""
) -> str:
    """A table whose cells are text, with HTML `above` it; on a narrow screen it scrolls by itself."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f"<h3>{escape(title)}</h3>{above}<div class='scrolls'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div><p class='note'>{escape(note)}</p>"
    )
