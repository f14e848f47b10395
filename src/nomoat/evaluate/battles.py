"""Votes as battles in the shape of LMArena's published files, and from such files.

One battle is {"question_id", "model_a", "model_b", "winner", "judge", "conversation_a", "conversation_b", "turn",
"anony", "language", "tstamp"}; winner is model_a, model_b, tie or "tie (bothbad)", tstamp seconds since 1970 (the
columns that FastChat's serve/monitor/clean_battle_data.py writes). A is the left side. It says less than a vote:
sampling, suite and files of the models are not in it, and probes, which it has no word for, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from nomoat.chat.conversation import Conversation, Message, parse_messages, shown
from nomoat.errors import DataError
from nomoat.evaluate.vote_file import is_name, read_lines
from nomoat.ledger.canonical import canonical_key
from nomoat.ledger.rows import Vote, VoteRow, VoteVerdict

_WINNERS: dict[VoteVerdict, str] = {
    "left": "model_a",
    "right": "model_b",
    "tie": "tie",
    "both bad": "tie (bothbad)",
}
_VERDICTS = {winner: verdict for verdict, winner in _WINNERS.items()}


def battle_rows(votes: Iterable[VoteRow]) -> Iterator[dict[str, Any]]:
    """One battle a vote that is no probe, in order."""
    for vote in votes:
        if vote.better is not None:
            continue
        asked = vote.prompt["messages"]
        yield {
            "question_id": vote.key,
            "model_a": vote.left_name,
            "model_b": vote.right_name,
            "winner": _WINNERS[vote.verdict],
            "judge": vote.voter,
            "conversation_a": [*asked, *vote.said("left")],
            "conversation_b": [*asked, *vote.said("right")],
            "turn": sum(message["role"] == "user" for message in [*asked, *vote.said("left")]),
            "anony": True,
            "language": "unknown",
            "tstamp": datetime.fromisoformat(vote.cast_at).timestamp(),
        }


def read_battles(path: Path, models: Mapping[str, str]) -> list[tuple[str, Vote]]:
    """The votes of a file of battles, one JSON object a line, each behind its `question_id`: where `battle_rows` wrote
    it, the key of the vote that it was. `models` says which files names stand for here; any other name is taken for a
    model of its own.

    Raises DataError with up to 20 lines, each with file, line and field, where one of them is no battle.
    """
    return read_lines(path, partial(_vote, models))


def _vote(models: Mapping[str, str], row: Any, where: str) -> tuple[str, Vote]:
    if not isinstance(row, dict):
        raise DataError(f"{where}: got {shown(row)}; expected an object, a battle")
    for key in ("model_a", "model_b"):
        if not is_name(row.get(key)):
            raise DataError(f"{where}: {key}: got {shown(row.get(key))}; expected a model's name")
    voter = str(row.get("judge", "unknown"))
    if not is_name(voter):
        raise DataError(f"{where}: judge: got {shown(voter)}; expected a voter's name")
    if row.get("winner") not in _WINNERS.values():
        expected = 'model_a, model_b, tie or "tie (bothbad)"'
        raise DataError(f"{where}: winner: got {shown(row.get('winner'))}; expected {expected}")
    at = row.get("tstamp")
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < 1e11:
        raise DataError(f"{where}: tstamp: got {shown(at)}; expected seconds since 1970")
    one, other = (_messages(row, key, where) for key in ("conversation_a", "conversation_b"))
    if [_asked(message) for message in one] != [_asked(message) for message in other]:
        raise DataError(f"{where}: conversation_b: asks another thing than conversation_a; expected the same")
    # the prompt goes on for as long as both say the same: from there on each is a conversation of its own
    most = len(one) - 1
    start = next((n for n in range(most) if one[n] != other[n]), most)
    if any(message.role != role for message, role in zip(one[start:], cycle(("assistant", "user")))):
        raise DataError(
            f"{where}: conversation_a: expected user and assistant in turn where the two sides differ"
        )
    if all(message.role != "user" for message in one[:start]):
        raise DataError(f"{where}: conversation_a: begins with an answer; expected what both were asked")
    prompt = Conversation(one[:start]).to_dict()
    turns = [
        {"asked": one[n].content, "left": one[n + 1].content, "right": other[n + 1].content}
        for n in range(start + 1, most, 2)
    ]
    return str(row.get("question_id", "")), Vote(
        cast_at=datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        voter=voter,
        verdict=_VERDICTS[row["winner"]],
        left_model=models.get(row["model_a"], row["model_a"]),
        right_model=models.get(row["model_b"], row["model_b"]),
        left_name=row["model_a"],
        right_name=row["model_b"],
        source="typed",
        prompt_hash=canonical_key(prompt),
        prompt=prompt,
        left_answer=one[start].content,
        right_answer=other[start].content,
        sampling={},
        turns=turns or None,
    )


def _messages(row: dict[str, Any], key: str, where: str) -> tuple[Message, ...]:
    """One side, which ends in an answer."""
    messages = parse_messages(row.get(key), where, field=key)
    if len(messages) < 2 or messages[-1].role != "assistant":
        raise DataError(f"{where}: {key}: ends in no answer; expected an assistant turn last")
    return messages


def _asked(message: Message) -> Message | None:
    """What both sides must have in common."""
    return None if message.role == "assistant" else message
