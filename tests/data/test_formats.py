"""Every layout of rows, from a file to the row it means."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from nomoat.chat.conversation import Conversation, Message
from nomoat.data.readers import open_rows, read_rows
from nomoat.data.rows import BadRow, ChatRow, PreferenceRow, RatingRow, Row, TextRow

USER, ANSWER, OTHER = Message("user", "Hi"), Message("assistant", "Hello"), Message("assistant", "Go away")
SYSTEM = Message("system", "Be kind.")
CALL = {"type": "function", "function": {"name": "clock", "arguments": {"zone": "UTC"}}}
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {}}}
TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
ASKED = Conversation((USER,))


def read(tmp_path: Path, *rows: object, format: str = "auto") -> list[Row | BadRow]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_rows(path, format=format))


def one(tmp_path: Path, row: object, format: str = "auto") -> Row | BadRow:
    (result,) = read(tmp_path, row, format=format)
    return result


def chat(*messages: Message, tools: tuple[dict[str, Any], ...] = ()) -> Conversation:
    return Conversation(messages, tools)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        # alpaca
        ({"instruction": "Hi", "input": "", "output": "Hello"}, chat(USER, ANSWER)),
        ({"instruction": "Hi", "output": "Hello"}, chat(USER, ANSWER)),
        (
            {"instruction": "Sum", "input": "1 2", "output": "[3]"},
            chat(Message("user", "Sum\n1 2"), Message("assistant", "[3]")),
        ),
        ({"instruction": "", "input": "Hi", "response": "Hello"}, chat(USER, ANSWER)),
        (
            {"instruction": "Hi", "context": "you", "answer": "Hello"},
            chat(Message("user", "Hi\nyou"), ANSWER),
        ),
        (
            {"instruction": "And?", "output": "So.", "system": "Be kind.", "history": [["Hi", "Hello"]]},
            chat(SYSTEM, USER, ANSWER, Message("user", "And?"), Message("assistant", "So.")),
        ),
        # sharegpt
        (
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
            chat(USER, ANSWER),
        ),
        (
            {
                "conversations": [
                    {"from": "user", "value": "Hi"},
                    {"from": "function_call", "value": '{"name": "clock", "arguments": {"zone": "UTC"}}'},
                    {"from": "observation", "value": "12:00"},
                    {"from": "assistant", "value": "Hello"},
                ],
                "system": "Be kind.",
                "tools": '[{"name": "clock", "parameters": {}}]',
            },
            chat(
                SYSTEM,
                USER,
                Message("assistant", "", (CALL,)),
                Message("tool", "12:00"),
                ANSWER,
                tools=(TOOL,),
            ),
        ),
        # messages
        ({"messages": TALK}, chat(USER, ANSWER)),
        ({"conversation": TALK, "system": "Be kind."}, chat(SYSTEM, USER, ANSWER)),
        (
            {"messages": [{"role": "system", "content": "Be kind."}, *TALK], "system": "Be rude."},
            chat(SYSTEM, USER, ANSWER),
        ),
        (
            {
                "messages": [
                    {"role": "developer", "content": "Be kind."},
                    {"role": "user", "content": "Hi"},
                    {"role": "assistant", "content": "", "tool_calls": [{"id": "1", **CALL}]},
                    {"role": "tool", "content": "12:00", "tool_call_id": "1"},
                    {"role": "assistant", "content": "Hello", "weight": 0},
                ],
                "tools": [TOOL],
            },
            chat(
                SYSTEM,
                USER,
                Message("assistant", "", ({**CALL, "id": "1"},)),
                Message("tool", "12:00", tool_call_id="1"),
                Message("assistant", "Hello", loss=False),
                tools=(TOOL,),
            ),
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "value": "Hi"}]},
                    {
                        "role": "assistant",
                        "content": [
                            {"type": "reasoning", "value": "Hmm."},
                            {"type": "text", "value": "Hello"},
                            {"type": "tool_call", "value": '{"name": "clock", "arguments": {"zone": "UTC"}}'},
                        ],
                    },
                ]
            },
            chat(USER, Message("assistant", "Hello", (CALL,), reasoning_content="Hmm.")),
        ),
        # prompt-completion
        ({"prompt": "Hi", "completion": "Hello"}, chat(USER, ANSWER)),
        ({"question": "Hi", "answer": "Hello"}, chat(USER, ANSWER)),
        ({"input": "Hi", "output": "Hello"}, chat(USER, ANSWER)),
        ({"prompt": TALK[:1], "completion": TALK[1:]}, chat(USER, ANSWER)),
        ({"prompt": "Hi", "completion": TALK[1], "system": "Be kind."}, chat(SYSTEM, USER, ANSWER)),
        (
            {"prompt": "[1, 2]", "completion": '{"a": 1}'},
            chat(Message("user", "[1, 2]"), Message("assistant", '{"a": 1}')),
        ),
    ],
)
def test_conversations(tmp_path: Path, row: dict[str, Any], expected: Conversation) -> None:
    result = one(tmp_path, row)
    assert isinstance(result, ChatRow)
    assert result.conversation == expected
    assert str(result.where) == f"{tmp_path}/rows.jsonl:1"


LF_TALK = [{"from": "human", "value": "Hi"}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"},
        {"question": "Hi", "chosen": "Hello", "rejected": "Go away"},
        {"instruction": "Hi", "input": "", "chosen": "Hello", "rejected": "Go away"},
        {"prompt": TALK[:1], "chosen": TALK[1:], "rejected": [{"role": "assistant", "content": "Go away"}]},
        {"chosen": TALK, "rejected": [TALK[0], {"role": "assistant", "content": "Go away"}]},
        {"prompt": "Hi", "chosen": TALK, "rejected": [TALK[0], {"role": "assistant", "content": "Go away"}]},
        {
            "conversations": LF_TALK,
            "chosen": {"from": "gpt", "value": "Hello"},
            "rejected": {"from": "gpt", "value": "Go away"},
        },
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hello",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Go away",
        },
    ],
)
def test_preferences(tmp_path: Path, row: dict[str, Any]) -> None:
    result = one(tmp_path, row)
    assert isinstance(result, PreferenceRow)
    assert (result.prompt, result.chosen, result.rejected) == (ASKED, (ANSWER,), (OTHER,))


def test_transcripts_share_as_much_as_they_can(tmp_path: Path) -> None:
    start = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: And?\n\nAssistant:"
    result = one(tmp_path, {"chosen": start + " Yes.", "rejected": start + " No."})
    assert isinstance(result, PreferenceRow)
    assert result.prompt == chat(USER, ANSWER, Message("user", "And?"))
    assert (result.chosen, result.rejected) == (
        (Message("assistant", "Yes."),),
        (Message("assistant", "No."),),
    )


@pytest.mark.parametrize(
    ("row", "good"),
    [
        ({"prompt": "Hi", "completion": "Hello", "label": True}, True),
        ({"prompt": TALK[:1], "completion": TALK[1:], "label": False}, False),
        ({"instruction": "Hi", "input": "", "output": "Hello", "kto_tag": True}, True),
        ({"messages": TALK, "label": False}, False),
        ({"conversations": [*LF_TALK, {"from": "gpt", "value": "Hello"}], "kto_tag": True}, True),
    ],
)
def test_ratings(tmp_path: Path, row: dict[str, Any], good: bool) -> None:
    result = one(tmp_path, row)
    assert isinstance(result, RatingRow)
    assert (result.prompt, result.completion, result.label) == (ASKED, (ANSWER,), good)


@pytest.mark.parametrize("row", [{"text": "Hi"}, {"content": "Hi", "id": 3}])
def test_texts(tmp_path: Path, row: dict[str, Any]) -> None:
    result = one(tmp_path, row)
    assert isinstance(result, TextRow)
    assert (result.text, result.ends) == ("Hi", True)


def test_lists_and_labels_in_csv(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["messages", "label"], [json.dumps(TALK), "True"], [json.dumps(TALK), "0"]]
        )
    good, bad = read_rows(path)
    assert isinstance(good, RatingRow)
    assert isinstance(bad, RatingRow)
    assert (good.completion, good.label, bad.label) == ((ANSWER,), True, False)


GOOD = {
    "alpaca": {"instruction": "Hi", "output": "Hello"},
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}]},
    "messages": {"messages": TALK},
    "preference": {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"},
    "rating": {"prompt": "Hi", "completion": "Hello", "label": True},
    "text": {"text": "Hi"},
}


@pytest.mark.parametrize(
    ("format", "row", "reason"),
    [
        ("alpaca", {"instruction": "Hi", "output": ""}, "output: is empty; expected text."),
        ("alpaca", {"instruction": "Hi", "output": None}, "output: got nothing (null); expected text."),
        ("alpaca", {"instruction": "Hi", "output": 4}, "output: got 4; expected text."),
        ("alpaca", {"instruction": " ", "output": "x"}, "instruction: is empty; expected text."),
        (
            "alpaca",
            {"instruction": "Hi", "output": "a\ud83d"},
            "output: holds half of a surrogate pair (\\ud83d at character 1); expected whole characters.",
        ),
        ("alpaca", ["Hi"], 'is ["Hi"]; expected an object with named fields.'),
        (
            "sharegpt",
            {"conversations": [{"from": "humann", "value": "Hi"}]},
            'conversations[0].from: got "humann"; expected human, gpt, system, function_call or observation. '
            'Did you mean "human"?',
        ),
        (
            "sharegpt",
            {"conversations": [{"from": "human", "text": "Hi"}]},
            "conversations[0].value: got nothing (null); expected text.",
        ),
        (
            "sharegpt",
            {
                "conversations": [
                    {"from": "human", "value": "Hi"},
                    {"from": "function_call", "value": "clock"},
                ]
            },
            'conversations[1].value: got "clock"; expected JSON such as {"name": ..., "arguments": ...}.',
        ),
        (
            "sharegpt",
            {"conversations": []},
            "conversations: got an empty list; expected a list of at least one turn.",
        ),
        (
            "messages",
            {"messages": [{"role": "asistant", "content": "Hi"}]},
            'messages[0].role: got "asistant"; expected system, user, assistant or tool. Did you mean '
            '"assistant"?',
        ),
        ("messages", {"messages": [3]}, "messages[0]: got 3; expected an object with a role and text."),
        ("messages", {"messages": TALK, "images": ["a.png"]}, "images: has images; only text is read."),
        (
            "preference",
            {"prompt": "Hi", "chosen": "x", "rejected": "x"},
            "rejected: is the same as the chosen answer.",
        ),
        (
            "preference",
            {"chosen": TALK, "rejected": TALK[1:]},
            "chosen: expected an answer of the assistant, after a prompt that chosen and rejected have in "
            "common.",
        ),
        (
            "preference",
            {"chosen": "\n\nHuman: Hi\n\nAssistant: ", "rejected": "\n\nHuman: Hi\n\nAssistant: x"},
            "chosen: turn 2 (Assistant) is empty; expected text.",
        ),
        (
            "rating",
            {"prompt": "Hi", "completion": "x", "label": "maybe"},
            'label: got "maybe"; expected true or false.',
        ),
        ("rating", {"prompt": "Hi", "completion": "x", "label": 1}, "label: got 1; expected true or false."),
        ("text", {"text": "\n"}, "text: is empty; expected text."),
    ],
)
def test_one_bad_row_is_a_value_that_says_why(tmp_path: Path, format: str, row: object, reason: str) -> None:
    good, result = read(tmp_path, GOOD[format], row)
    assert not isinstance(good, BadRow)
    assert isinstance(result, BadRow)
    assert result.reason == reason
    assert str(result.where) == f"{tmp_path}/rows.jsonl:2"


def test_fields_that_only_later_rows_have_are_read_too(tmp_path: Path) -> None:
    plain = {"prompt": "Hi", "completion": "Hello"}
    *_, last = read(tmp_path, *[plain] * 200, plain | {"system": "Be kind."})
    assert isinstance(last, ChatRow)
    assert last.conversation == chat(SYSTEM, USER, ANSWER)


def test_tools_that_do_not_parse_make_a_bad_row(tmp_path: Path) -> None:
    _, result = read(tmp_path, GOOD["messages"], {"messages": TALK, "tools": "{"})
    assert isinstance(result, BadRow)
    assert result.reason == (
        "tools: got text that is not JSON (Expecting property name enclosed in double quotes at character 1)."
    )


@pytest.mark.parametrize(
    ("rows", "format", "said"),
    [
        (
            [{"instruction": "Hi", "response": "x", "category": "a", "id": 1}],
            "alpaca",
            "alpaca rows, from instruction as prompt, response as output; not read: category, id",
        ),
        (
            [{"question": "Hi", "answer": "x"}],
            "prompt-completion",
            "prompt-completion rows, from question as prompt, answer as completion",
        ),
        ([{"messages": TALK}], "messages", "messages rows, from messages"),
        ([{"text": "Hi", "label": 3}], "text", "text rows, from text; not read: label"),
        # A label that is no verdict leaves the rows what they are.
        (
            [{"prompt": "Hi", "completion": "x", "label": 3}],
            "prompt-completion",
            "prompt-completion rows, from prompt, completion; not read: label",
        ),
        # What a few rows lack or add does not change the format.
        (
            [{"prompt": "Hi", "completion": "x"}] * 3 + [{"prompt": "Hi"}],
            "prompt-completion",
            "prompt-completion rows, from prompt, completion",
        ),
        (
            [{"instruction": "Hi", "output": "x"}] * 3 + [{"instruction": "Hi", "output": "x", "input": "y"}],
            "alpaca",
            "alpaca rows, from instruction as prompt, input, output",
        ),
    ],
)
def test_the_format_is_found_and_said(tmp_path: Path, rows: list[object], format: str, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    detected, _ = open_rows(path)
    assert detected.format == format
    assert detected.said == f"{path}: {said}"
