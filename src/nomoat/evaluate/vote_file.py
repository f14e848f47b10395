"""Votes as preference rows, out of a ledger and into one: what trainers read, with where each vote came from.

A decided vote is {"chosen": [messages], "rejected": [messages], "id": n, "vote": {...}}: its number in this ledger,
and all that was said, `reasons` of `ledger.rows.REASONS` too. Ties and "both bad" prefer nothing, and a probe is
nothing to learn from; they are {"id": n, "vote": {...}} alone, where asked for.
A thumb is {"prompt": [messages], "completion": [messages], "label": true, "rating": {...}}.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, fields
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, get_args

from nomoat.chat.conversation import Conversation, check_text, parse_messages, parse_tools, shown
from nomoat.errors import DataError, nearest
from nomoat.ledger.canonical import check_json
from nomoat.ledger.rows import REASONS, PromptSource, RatingRow, Side, Vote, VoteRow, VoteVerdict, in_order

Found = TypeVar("Found")
MAX_PROBLEMS = 20
_MOST_S = 1e9
_NAMES = ("voter", "left_model", "right_model", "left_name", "right_name")
LONGEST_NAME = 300
_MAY_BE_NULL = ("suite", "prompt_id", "note", "better")
_FIELDS = {field.name: field for field in fields(Vote)}
_ONE_OF = {
    "verdict": list(get_args(VoteVerdict)),
    "source": list(get_args(PromptSource)),
    "better": [*get_args(Side), None],
}


def preference_rows(votes: Iterable[VoteRow], *, undecided: bool) -> Iterator[dict[str, Any]]:
    """One row a decided vote that is no probe, in order; with `undecided` one of its provenance alone for each
    other."""
    for vote in votes:
        known = {name: getattr(vote, name) for name in _FIELDS}
        if vote.verdict in ("left", "right") and vote.better is None:
            other: Side = "right" if vote.verdict == "left" else "left"
            sides = {"chosen": vote.said(vote.verdict), "rejected": vote.said(other)}
            talks = {name: [*vote.prompt["messages"], *said] for name, said in sides.items()}
            yield {**talks, **_tools(vote), "id": vote.id, "vote": known}
        elif undecided:
            yield {"id": vote.id, "vote": known}


def rating_rows(ratings: Iterable[RatingRow]) -> Iterator[dict[str, Any]]:
    """One row a thumb, in order."""
    for rating in ratings:
        yield {
            "prompt": rating.prompt["messages"],
            "completion": [{"role": "assistant", "content": rating.answer}],
            "label": rating.verdict == "up",
            **_tools(rating),
            "rating": {
                name: getattr(rating, name) for name in ("id", "made_at", "voter", "model", "model_name")
            },
        }


def read_votes(path: Path) -> list[Vote]:
    """The votes of a file that `preference_rows` were written to.

    Raises DataError with up to 20 lines, each with file, line and field, where one of them is no such row.
    """
    return read_lines(path, _vote)


def read_lines(path: Path, parse: Callable[[Any, str], Found]) -> list[Found]:
    """A vote a line, by `parse(decoded, where)`. Raises DataError with what it raised of up to 20 lines."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there") from error
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise DataError(
            f"{path}: not UTF-8 text; expected JSONL as `nomoat votes export` writes it"
        ) from error
    votes, problems = [], []
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path.name}:{number}"
            try:
                votes.append(parse(_decoded(line, where), where))
            except DataError as error:
                problems.append(error.message)
        if len(problems) == MAX_PROBLEMS:
            break
    if problems:
        raise DataError("\n".join(problems), hint="Nothing was imported.")
    if not votes:
        raise DataError(f"{path}: empty; expected JSONL as `nomoat votes export` writes it")
    return votes


def is_name(value: object) -> bool:
    """A voter's or a model's name: one line that a terminal and a page can show."""
    return isinstance(value, str) and value.isprintable() and 0 < len(value.strip()) <= LONGEST_NAME


def _tools(said: VoteRow | RatingRow) -> dict[str, Any]:
    return {"tools": said.prompt["tools"]} if said.prompt.get("tools") else {}


def _decoded(line: str, where: str) -> Any:
    """What the ledger can hold too: finite numbers and whole characters."""
    try:
        row = json.loads(line)
        check_json(row, f"{where}: row")
        text = json.dumps(row, ensure_ascii=False)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError:
        raise DataError(f"{where}: nested too deeply to be read") from None
    except ValueError as error:
        told = str(error)
        raise DataError(
            told if told.startswith(where) else f"{where}: a number too long to be read"
        ) from None
    check_text(text, where)
    return row


def _vote(row: Any, where: str) -> Vote:
    known = row.get("vote") if isinstance(row, dict) else None
    if not isinstance(known, dict):
        raise DataError(
            f"{where}: vote: got {shown(known)}; expected an object, as `nomoat votes export` writes it. Preference "
            "rows of other tools are data to train on, not votes"
        )
    for name in known:
        if name not in _FIELDS:
            raise DataError(f"{where}: vote.{name}: unknown field.{nearest(name, [*_FIELDS])}")
    for name, field in _FIELDS.items():
        if name not in known and field.default is MISSING:
            raise DataError(f"{where}: vote.{name}: got nothing; expected {_expected(name)}")
        if name in known and not _is_valid(name, known[name]):
            raise DataError(f"{where}: vote.{name}: got {shown(known[name])}; expected {_expected(name)}")
    messages = parse_messages(known["prompt"].get("messages"), where, field="vote.prompt.messages")
    tools = parse_tools(known["prompt"].get("tools"), f"{where}: vote.prompt")
    reasons = known.get("reasons") or ()
    for number, reason in enumerate(reasons):
        if reason not in REASONS:
            expected = f"{', '.join(REASONS[:-1])} or {REASONS[-1]}"
            raise DataError(f"{where}: vote.reasons[{number}]: got {shown(reason)}; expected {expected}")
    vote = Vote(**known | {"prompt": Conversation(messages, tools).to_dict(), "reasons": in_order(reasons)})
    if vote.better is not None and vote.left_model != vote.right_model:
        raise DataError(
            f"{where}: vote.better: got {shown(vote.better)} of two models; a probe has the same one on both sides"
        )
    return vote


def _expected(name: str) -> str:
    if name in _ONE_OF:
        *most, last = (one or "null" for one in _ONE_OF[name])
        return f"{', '.join(most)} or {last}"
    if name in ("prompt", "sampling"):
        return "an object"
    if name == "seconds":
        return f"a number, 0 to {_MOST_S:g}, or null"
    if name == "cast_at":
        return "a time with its zone, such as 2026-11-24T07:00:00.000Z"
    if name == "turns":
        return 'null or a list of {"asked": text, "left": text, "right": text}'
    if name == "reasons":
        return "null or a list of reasons"
    if name in _NAMES:
        return f"a name: one line of at most {LONGEST_NAME} characters"
    return "text, or null" if name in _MAY_BE_NULL else "text"


def _is_valid(name: str, value: object) -> bool:
    if name in _ONE_OF:
        return value in _ONE_OF[name]
    if name in ("prompt", "sampling"):
        return isinstance(value, dict)
    if name == "seconds":
        return value is None or (
            isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST_S
        )
    if name in _NAMES:
        return is_name(value)
    if name == "cast_at":
        return isinstance(value, str) and _is_time(value)
    if name == "turns":
        return value is None or (isinstance(value, list) and all(map(_is_turn, value)) and value != [])
    if name == "reasons":
        return value is None or isinstance(value, list)
    return isinstance(value, str) or (value is None and name in _MAY_BE_NULL)


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _is_turn(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != {"asked", "left", "right"}:
        return False
    return all(isinstance(text, str) for text in value.values())
