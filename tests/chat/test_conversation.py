from __future__ import annotations

import pickle

import pytest

from nomoat.chat.conversation import Conversation, Message, parse_messages, parse_tools
from nomoat.errors import DataError

USER = {"role": "user", "content": "Hi"}


def refused(raw: object) -> str:
    with pytest.raises(DataError) as error:
        parse_messages(raw, "night.jsonl:412")
    return error.value.message


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            [USER, {"role": "asistant", "content": "x"}],
            'night.jsonl:412: messages[1].role: got "asistant"; expected system, user, assistant or tool. '
            'Did you mean "assistant"?',
        ),
        (
            [{"content": "x"}],
            "night.jsonl:412: messages[0].role: got nothing (null); expected system, user, assistant or "
            "tool.",
        ),
        ([], "night.jsonl:412: messages: got an empty list; expected a list of at least one message."),
        ("hi", 'night.jsonl:412: messages: got "hi"; expected a list of at least one message.'),
        (["hi"], 'night.jsonl:412: messages[0]: got "hi"; expected an object with role and content.'),
        (
            [{"role": "user", "content": 3}],
            "night.jsonl:412: messages[0].content: got 3; expected text.",
        ),
        (
            [{"role": "user", "content": " \n"}],
            "night.jsonl:412: messages[0].content: is empty; expected text.",
        ),
        (
            [{"role": "user", "content": "a\ud83d"}],
            "night.jsonl:412: messages[0].content: holds half of a surrogate pair (\\ud83d at character 1); "
            "expected whole characters.",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
            'night.jsonl:412: messages[0].content[0].type: got "image_url"; expected text. '
            "Images and sound are not read here.",
        ),
        (
            [{"role": "user", "content": "x", "loss": True}],
            "night.jsonl:412: messages[0].loss: true on a user turn; only assistant turns can be trained on.",
        ),
        (
            [{"role": "assistant", "content": "x", "loss": "yes"}],
            'night.jsonl:412: messages[0].loss: got "yes"; expected true or false.',
        ),
        (
            [{"role": "user", "content": "x", "tool_calls": [{"name": "f", "arguments": {}}]}],
            "night.jsonl:412: messages[0].tool_calls: stand on a user turn; only the assistant calls tools.",
        ),
        (
            [{"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": "{oops"}]}],
            "night.jsonl:412: messages[0].tool_calls[0].function.arguments: got text that is not JSON "
            "(Expecting property name enclosed in double quotes at character 1).",
        ),
        (
            [{"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": [1]}]}],
            "night.jsonl:412: messages[0].tool_calls[0].function.arguments: got a list of 1; "
            "expected an object.",
        ),
    ],
)
def test_errors_say_where_what_and_what_was_expected(raw: object, expected: str) -> None:
    assert refused(raw) == expected


def test_a_reader_can_name_the_fields_as_the_owners_file_does() -> None:
    with pytest.raises(DataError) as error:
        parse_messages(
            [{"role": "user", "content": ""}], "a.json: row 3", field="conversations", text_key="value"
        )
    assert error.value.message == "a.json: row 3: conversations[0].value: is empty; expected text."


def test_openai_form_is_read_and_written_for_templates() -> None:
    raw = [
        {"role": "user", "content": [{"type": "text", "text": "What "}, {"type": "text", "text": "now?"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "clock", "arguments": '{"zone": "UTC"}'},
                }
            ],
        },
        {"role": "tool", "content": "12:00", "tool_call_id": "c1", "name": "clock"},
        {"role": "assistant", "content": "\nNoon.\n\n", "loss": False, "reasoning_content": "12 is noon"},
    ]
    messages = parse_messages(raw, "x:1")
    assert [message.to_dict() for message in messages] == [
        {"role": "user", "content": "What now?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "type": "function",
                    "function": {"name": "clock", "arguments": {"zone": "UTC"}},
                    "id": "c1",
                }
            ],
        },
        {"role": "tool", "content": "12:00", "name": "clock", "tool_call_id": "c1"},
        {"role": "assistant", "content": "Noon.", "reasoning_content": "12 is noon"},
    ]
    assert messages[3].loss is False
    assert pickle.loads(pickle.dumps(Conversation(messages))) == Conversation(messages)


def test_code_keeps_its_indentation() -> None:
    (message,) = parse_messages([{"role": "assistant", "content": "\n    return 1\n"}], "x:1")
    assert message.content == "    return 1"


def test_tools_come_as_lists_or_json_text_bare_or_wrapped() -> None:
    wrapped = ({"type": "function", "function": {"name": "f", "parameters": {}}},)
    assert parse_tools('[{"name": "f", "parameters": {}}]', "x:1") == wrapped
    assert parse_tools(list(wrapped), "x:1") == wrapped
    assert parse_tools("", "x:1") == parse_tools(None, "x:1") == ()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("[oops", "x:1: tools: got text that is not JSON (Expecting value at character 1)."),
        ("{}", None),
        ({"name": "f"}, "x:1: tools: got an object of 1; expected a list of function schemas."),
        ([{"parameters": {}}], "x:1: tools[0].function.name: got nothing (null); expected text."),
    ],
)
def test_tools_that_are_none(raw: object, expected: str | None) -> None:
    if expected is None:
        assert parse_tools(raw, "x:1") == ()
        return
    with pytest.raises(DataError) as error:
        parse_tools(raw, "x:1")
    assert error.value.message == expected


def test_a_conversation_as_a_row() -> None:
    conversation = Conversation((Message("user", "a"), Message("assistant", "b")))
    assert conversation.to_dict() == {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    }
