"""Votes as battles in the shape of LMArena's published files, and from such files.

One battle is {"question_id", "model_a", "model_b", "winner", "judge", "conversation_a", "conversation_b", "turn",
"anony", "language", "tstamp"}; winner is model_a, model_b, tie or "tie (bothbad)", tstamp seconds since 1970 (the
columns that FastChat's serve/monitor/clean_battle_data.py writes). A is the left side. It says less than a vote:
sampling, suite and files of the models are not in it, and probes, which it has no word for, are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from nomoat.chat.conversation import Conversation, parse_messages, shown
from nomoat.errors import DataError
from nomoat.evaluate.vote_file import read_lines
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
            "conversation_a": [*asked, {"role": "assistant", "content": vote.left_answer}],
            "conversation_b": [*asked, {"role": "assistant", "content": vote.right_answer}],
            "turn": sum(message["role"] == "user" for message in asked),
            "anony": True,
            "language": "unknown",
            "tstamp": datetime.fromisoformat(vote.cast_at).timestamp(),
        }


def read_battles(path: Path, models: Mapping[str, str]) -> list[Vote]:
    """The votes of a file of battles, one JSON object a line. `models` says which files names stand for here; any other
    name is taken for a model of its own.

    Raises DataError with up to 20 lines, each with file, line and field, where one of them is no battle.
    """
    return read_lines(path, partial(_vote, models))


def _vote(models: Mapping[str, str], line: str, where: str) -> Vote:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: got {shown(row)}; expected an object, a battle")
    for key in ("model_a", "model_b"):
        if not isinstance(row.get(key), str):
            raise DataError(f"{where}: {key}: got {shown(row.get(key))}; expected a model's name")
    if row.get("winner") not in _VERDICTS:
        expected = 'model_a, model_b, tie or "tie (bothbad)"'
        raise DataError(f"{where}: winner: got {shown(row.get('winner'))}; expected {expected}")
    at = row.get("tstamp")
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < 1e11:
        raise DataError(f"{where}: tstamp: got {shown(at)}; expected seconds since 1970")
    asked, left = _asked(row, "conversation_a", where)
    other, right = _asked(row, "conversation_b", where)
    if asked != other:
        raise DataError(
            f"{where}: conversation_b: asks another thing than conversation_a before its last answer; expected the same"
        )
    prompt = asked.to_dict()
    return Vote(
        cast_at=datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        voter=str(row.get("judge", "unknown")),
        verdict=_VERDICTS[row["winner"]],
        left_model=models.get(row["model_a"], row["model_a"]),
        right_model=models.get(row["model_b"], row["model_b"]),
        left_name=row["model_a"],
        right_name=row["model_b"],
        source="typed",
        prompt_hash=canonical_key(prompt),
        prompt=prompt,
        left_answer=left,
        right_answer=right,
        sampling={},
    )


def _asked(row: dict[str, Any], key: str, where: str) -> tuple[Conversation, str]:
    """What was asked, and the last answer to it."""
    messages = parse_messages(row.get(key), where, field=key)
    if len(messages) < 2 or messages[-1].role != "assistant":
        raise DataError(f"{where}: {key}: ends in no answer; expected an assistant turn last")
    return Conversation(messages[:-1]), messages[-1].content
