"""The chat without a terminal and without a model."""

from __future__ import annotations

import pytest

from nomoat.chat.conversation import parse_messages
from nomoat.cli.session import ChatSession, Turn
from nomoat.cli.slash import Command, Say, Unknown, help_lines, read_line


def texts(session: ChatSession) -> list[str]:
    return [message["content"] for message in session.to_row()["messages"]]


def test_turns_gather_and_the_model_sees_all_of_them() -> None:
    session = ChatSession("Be brief.")
    first = session.ask("Hello")
    assert [(m.role, m.content) for m in first.messages] == [("system", "Be brief."), ("user", "Hello")]
    session.keep("Hi.")
    second = session.ask("Who are you?")
    assert [m.role for m in second.messages] == ["system", "user", "assistant", "user"]
    session.keep("A fox.")
    assert texts(session) == ["Be brief.", "Hello", "Hi.", "Who are you?", "A fox."]


def test_undo_takes_one_turn_after_the_other() -> None:
    session = ChatSession()
    for word in ("one", "two"):
        session.ask(word)
        session.keep(word.upper())
    assert session.undo() == Turn("two", "TWO")
    assert texts(session) == ["one", "ONE"]
    assert session.undo() == Turn("one", "ONE")
    assert session.undo() is None


def test_retry_asks_the_same_again_with_another_attempt() -> None:
    session = ChatSession()
    assert session.retry() is None
    session.ask("Hello")
    session.keep("Hi.")
    again = session.retry()
    assert again is not None
    assert [m.content for m in again.messages] == ["Hello"]
    assert session.attempt == 1
    session.keep("Good day.")
    session.retry()
    assert session.attempt == 2
    session.keep("Hey.")
    assert texts(session) == ["Hello", "Hey."]
    session.ask("Next")
    assert session.attempt == 0


def test_a_dropped_message_leaves_no_trace() -> None:
    session = ChatSession()
    session.ask("Hello")
    session.drop()
    assert texts(session) == []


def test_a_dropped_retry_brings_the_earlier_answer_back() -> None:
    session = ChatSession()
    session.ask("Hello")
    session.keep("Hi.")
    session.retry()
    session.drop()
    assert texts(session) == ["Hello", "Hi."]


def test_restart_keeps_the_system_text() -> None:
    session = ChatSession("Be brief.")
    session.ask("Hello")
    session.keep("Hi.")
    session.restart()
    assert texts(session) == ["Be brief."]


def test_asking_twice_is_our_own_mistake() -> None:
    session = ChatSession()
    session.ask("Hello")
    with pytest.raises(AssertionError, match="still being answered"):
        session.ask("Hello?")
    with pytest.raises(AssertionError, match="still being answered"):
        session.retry()


def test_a_saved_row_is_one_that_a_night_reads() -> None:
    session = ChatSession("Be brief.")
    session.ask("Hello")
    session.keep("Hi.")
    assert len(parse_messages(session.to_row()["messages"], "talk.jsonl:1")) == 3


def test_lines() -> None:
    assert read_line("  ") is None
    assert read_line(" Hello there ") == Say("Hello there")
    assert read_line("/save my talk.jsonl ") == Command("/save", "my talk.jsonl")
    assert read_line("/undo") == Command("/undo", "")
    assert read_line("//etc is a folder") == Say("/etc is a folder")
    assert read_line("/undu") == Unknown(
        '/undu is no command. Did you mean "/undo"? /help lists them; to send a message that begins with a '
        "slash, type two: //"
    )
    assert read_line("/xyzzy 1") == Unknown(
        "/xyzzy is no command. /help lists them; to send a message that begins with a slash, type two: //"
    )


def test_help_names_every_command_the_terminal_obeys() -> None:
    assert [line.split()[0] for line in help_lines()] == [
        "/undo", "/retry", "/system", "/save", "/base", "/new", "/history", "/open", "/help", "/quit",
    ]  # fmt: skip
