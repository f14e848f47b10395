"""Votes as battles in the shape of LMArena's published files, and from such files.

One battle is {"question_id", "model_a", "model_b", "winner", "judge", "conversation_a", "conversation_b", "turn",
"anony", "language", "tstamp"}; winner is model_a, model_b, tie or "tie (bothbad)", tstamp seconds since 1970 (the
columns that FastChat's serve/monitor/clean_battle_data.py writes). A is the left side. It says less than a vote:
sampling, suite, reasons and notes are not in it, and probes, which it has no word for, are left out.

A name proves nothing: everybody's first generation is gen-0001. So ours have two columns more, "model_a_file" and
"model_b_file", which say what has answered, as votes do: '<artifact id>/<file>', the id being a hash of all that made
it. A model without one is taken for one of its file of battles alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from nomoat.chat.conversation import Conversation, Message, parse_messages, shown
from nomoat.errors import DataError
from nomoat.evaluate.vote_file import LONGEST_NAME, is_name, read_lines
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
            "model_a_file": vote.left_model,
            "model_b_file": vote.right_model,
            "winner": _WINNERS[vote.verdict],
            "judge": vote.voter,
            "conversation_a": [*asked, *vote.said("left")],
            "conversation_b": [*asked, *vote.said("right")],
            "turn": sum(message["role"] == "user" for message in [*asked, *vote.said("left")]),
            "anony": True,
            "language": "unknown",
            "tstamp": datetime.fromisoformat(vote.cast_at).timestamp(),
        }


def read_battles(path: Path) -> list[tuple[str, Vote]]:
    """The votes of a file of battles, one JSON object a line, each behind its `question_id`: where `battle_rows` wrote
    it, the key of the vote that it was.

    Raises DataError with up to 20 lines, each with file, line and field, where one of them is no battle.
    """
    return read_lines(path, partial(_vote, path.name))


def _vote(file: str, row: Any, where: str) -> tuple[str, Vote]:
    if not isinstance(row, dict):
        raise DataError(f"{where}: got {shown(row)}; expected an object, a battle")
    (left, left_name), (right, right_name) = (_model(row, key, file, where) for key in ("model_a", "model_b"))
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
        left_model=left,
        right_model=right,
        left_name=left_name,
        right_name=right_name,
        source="typed",
        prompt_hash=canonical_key(prompt),
        prompt=prompt,
        left_answer=one[start].content,
        right_answer=other[start].content,
        sampling={},
        turns=turns or None,
    )


def _model(row: dict[str, Any], key: str, file: str, where: str) -> tuple[str, str]:
    """How votes name a model, and how it is called."""
    name, made = row.get(key), row.get(f"{key}_file")
    if not is_name(name):
        raise DataError(f"{where}: {key}: got {shown(name)}; expected a model's name")
    if made is None:
        outside = f"{file}: {name}"
        if not is_name(outside):
            raise DataError(
                f"{where}: {key}: the model is named by its file too, which makes {len(outside)} characters; expected "
                f"one line of at most {LONGEST_NAME}: give the file another name"
            )
        return outside, outside
    if not is_name(made):
        raise DataError(
            f"{where}: {key}_file: got {shown(made)}; expected <artifact>/<file>, as exports have it"
        )
    return str(made), str(name)


def _messages(row: dict[str, Any], key: str, where: str) -> tuple[Message, ...]:
    """One side, which ends in an answer."""
    messages = parse_messages(row.get(key), where, field=key)
    if len(messages) < 2 or messages[-1].role != "assistant":
        raise DataError(f"{where}: {key}: ends in no answer; expected an assistant turn last")
    return messages


def _asked(message: Message) -> Message | None:
    """What both sides must have in common."""
    return None if message.role == "assistant" else message
