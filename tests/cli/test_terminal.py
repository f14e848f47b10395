"""The chat at a terminal, with models that say what the test tells them."""

from __future__ import annotations

import dataclasses
import io
import json
import tempfile
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console

from nomoat.chat.conversation import Conversation
from nomoat.cli.chat import answer_lines
from nomoat.cli.history import History
from nomoat.cli.output import visible
from nomoat.cli.session import ChatSession
from nomoat.cli.terminal import TerminalChat, append_row
from nomoat.engine.base import Sampling
from nomoat.errors import EngineError, LedgerError
from nomoat.serve.web.chats import Answer, Chat, Chats, Manner
from nomoat.serve.web.chats import Turn as KeptTurn

FULL = (
    "the context holds 20. Nothing is dropped by itself. /undo takes back the last turn, /save FILE keeps the "
    "conversation, /new starts another."
)


@dataclass
class Scripted:
    """Answers with its scripts in order; a token is a word. STOP in a script is the owner's Ctrl-C,
    FAIL a model that gives up."""

    scripts: list[str]
    name: str = "gen-0001"
    n_ctx: int = 20
    seen: list[Conversation] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    def prompt_tokens(self, conversation: Conversation) -> int:
        return sum(len(message.content.split()) for message in conversation.messages)

    def text_tokens(self, text: str) -> int:
        return len(text.split())

    def stream(self, conversation: Conversation, sampling: Sampling) -> Generator[str, None, None]:
        self.seen.append(conversation)
        self.seeds.append(sampling.seed)
        for word in self.scripts.pop(0).split(" "):
            if word == "STOP":
                raise KeyboardInterrupt
            if word == "FAIL":
                raise EngineError("the context cannot grow")
            yield f"{word} "

    def close(self) -> None:
        raise AssertionError("the verb closes the model, not the terminal")


@dataclass
class Talk:
    """What came of a chat."""

    session: ChatSession
    shown: str

    @property
    def turns(self) -> list[tuple[str, str]]:
        return [(turn.user, turn.answer.strip()) for turn in self.session.turns]


def no_base() -> Scripted:
    raise LedgerError("gen-0002 was trained from scratch: it has no base")


def talk(
    lines: list[str | type[BaseException]],
    talker: Scripted,
    base: Scripted | None = None,
    *,
    temperature: float = 0.7,
    max_new_tokens: int = 100,
    width: int = 300,
    kept: Path | None = None,
) -> Talk:
    """Type the lines, then Ctrl-D. `kept`: where conversations are kept."""
    typed = iter(lines)

    def read() -> str:
        line = next(typed, EOFError)
        if isinstance(line, str):
            return line
        raise line

    session = ChatSession()
    console = Console(
        file=io.StringIO(), width=width, force_terminal=width < 300, color_system=None, markup=False
    )
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=0.95, seed=5)
    with tempfile.TemporaryDirectory() as folder:
        history = History(Chats(kept or Path(folder) / "ledger.db"), Manner())
        open_base = (lambda: base) if base else no_base
        TerminalChat(talker, open_base, session, sampling, history, read=read, to=console).run()
    assert isinstance(console.file, io.StringIO)
    return Talk(session, console.file.getvalue())


def test_several_turns() -> None:
    talker = Scripted(["Hi there.", "A fox."])
    done = talk(["Hello", "", "Who are you?"], talker)
    assert done.turns == [("Hello", "Hi there."), ("Who are you?", "A fox.")]
    assert [message.role for message in talker.seen[1].messages] == ["user", "assistant", "user"]
    assert "Hi there." in done.shown


def test_quit_leaves_at_once() -> None:
    assert talk(["/quit", "Hello"], Scripted([])).turns == []


def test_undo_and_what_it_took_back() -> None:
    done = talk(["Hello", "/undo", "/undo"], Scripted(["Hi."]))
    assert done.turns == []
    assert "Taken back: Hello\nThere is nothing to take back.\n" in done.shown


def test_retry_draws_with_another_seed() -> None:
    talker = Scripted(["one", "two", "three", "four"])
    done = talk(["Hello", "/retry", "/retry", "Next"], talker)
    assert done.turns == [("Hello", "three"), ("Next", "four")]
    assert talker.seeds == [5, 6, 7, 5]


def test_retry_at_temperature_zero_says_that_nothing_will_change() -> None:
    done = talk(["/retry", "Hello", "/retry"], Scripted(["one", "one"]), temperature=0.0)
    assert "There is no answer to try again." in done.shown
    assert "At temperature 0 the answer is the same each time; --temperature 0.7 varies it." in done.shown


def test_system_text_is_set_shown_and_taken_away() -> None:
    talker = Scripted(["a", "b"])
    done = talk(["/system", "/system Be brief.", "/system", "Hi", "/system none", "Ho"], talker)
    assert done.shown.startswith("No system text.\nSystem: Be brief.\nSystem: Be brief.\n")
    assert [message.role for message in talker.seen[0].messages] == ["system", "user"]
    assert talker.seen[1].messages[0].role == "user"


def test_an_unknown_command_is_not_sent() -> None:
    done = talk(["/sytem Be brief."], Scripted([]))
    assert done.shown.startswith('/sytem is no command. Did you mean "/system"? /help lists them;')


def test_help_lists_the_commands() -> None:
    assert "/retry          answer your last message anew" in talk(["/help"], Scripted([])).shown


def test_ctrl_c_stops_the_answer_and_keeps_what_was_shown() -> None:
    done = talk(["Hello", "Again"], Scripted(["One two STOP three", "Four."]))
    assert done.turns == [("Hello", "One two"), ("Again", "Four.")]
    assert "Stopped. /retry answers anew, /undo takes it back." in done.shown


def test_ctrl_c_before_the_first_word_forgets_the_message() -> None:
    done = talk(["Hello", "Again"], Scripted(["STOP", "Four."]))
    assert done.turns == [("Again", "Four.")]
    assert "There is no answer, so your message was not kept." in done.shown


def test_a_model_that_gives_up_does_not_end_the_chat() -> None:
    done = talk(["Hello", "Again", "More"], Scripted(["FAIL", "One FAIL", "Two."]))
    assert done.turns == [("Again", "One"), ("More", "Two.")]
    assert "the context cannot grow\nThere is no answer, so your message was not kept.\n" in done.shown


def test_ctrl_c_at_the_prompt_does_not_leave() -> None:
    done = talk([KeyboardInterrupt, "Hello"], Scripted(["Hi."]))
    assert done.turns == [("Hello", "Hi.")]
    assert done.shown.startswith("\nCtrl-D or /quit leaves.\n")


def test_a_full_context_drops_nothing_and_says_how_to_go_on() -> None:
    talker = Scripted(["five words are in this", "Good."])
    long = "a b c d e f g h i j"
    done = talk([long, long, "/undo", "Hello"], talker)
    assert f"The message was not sent: with it the conversation has 25 tokens, and {FULL}\n" in done.shown
    assert done.turns == [("Hello", "Good.")]


def test_an_answer_cut_by_the_context_says_so() -> None:
    done = talk(["a b c"], Scripted([" ".join("x" * 17)]))
    assert f"The answer was cut: {FULL}\n" in done.shown


def test_an_answer_cut_by_its_length_says_so() -> None:
    done = talk(["a b c"], Scripted(["x y z"]), max_new_tokens=3)
    assert "The answer was cut at 3 tokens (--max-new-tokens).\n" in done.shown


def test_a_context_that_fills_up_is_announced() -> None:
    assert (
        "(15 of 20 tokens of the context are used.)" in talk(["a b c"], Scripted([" ".join("x" * 12)])).shown
    )
    assert "tokens of the context" not in talk(["a b c"], Scripted([" ".join("x" * 11)])).shown


def test_an_empty_answer_is_told() -> None:
    assert "(The model ended its answer at once.)" in talk(["Hello"], Scripted([""])).shown


def test_new_starts_another_conversation() -> None:
    talker = Scripted(["Hi.", "Ho."])
    assert talk(["Hello", "/new", "Again"], talker).turns == [("Again", "Ho.")]
    assert len(talker.seen[1].messages) == 1


def test_the_base_answers_as_well_and_only_the_tuned_answer_counts() -> None:
    tuned, base = (
        Scripted(["Tuned one.", "Tuned two.", "Tuned three."]),
        Scripted(["Base one."], name="base (x)"),
    )
    done = talk(["/base", "Hello", "/base", "More"], tuned, base)
    assert (
        "gen-0001 and base (x) answer the same conversation; only the answers of gen-0001 become part of it."
        in done.shown
    )
    assert "[gen-0001]\nTuned one. \n[base (x)]\nBase one. \n" in done.shown
    assert "Only gen-0001 answers." in done.shown
    assert done.turns == [("Hello", "Tuned one."), ("More", "Tuned two.")]
    assert base.seen == tuned.seen[:1]
    assert base.seeds == tuned.seeds[:1]


def test_a_wide_terminal_shows_both_answers_side_by_side() -> None:
    done = talk(["/base", "Hello"], Scripted(["Tuned one."]), Scripted(["Base one."], name="base"), width=120)
    assert any("Tuned one." in line and "Base one." in line for line in done.shown.splitlines())
    assert done.turns == [("Hello", "Tuned one.")]


def test_ctrl_c_during_the_bases_answer_keeps_the_tuned_one() -> None:
    done = talk(["/base", "Hello"], Scripted(["Tuned one."]), Scripted(["Base STOP"]), width=120)
    assert done.turns == [("Hello", "Tuned one.")]


def test_a_model_without_a_base_goes_on_alone() -> None:
    done = talk(["/base", "Hello"], Scripted(["Hi."]))
    assert "gen-0002 was trained from scratch: it has no base\n" in done.shown
    assert done.turns == [("Hello", "Hi.")]


def test_save_writes_rows_for_a_night(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    done = talk(["/save", f"/save {path}", "Hé", f"/save {path}", f"/save {path}"], Scripted(["Ja."]))
    assert done.shown.startswith("Give a file: /save talk.jsonl\nThere is nothing to save yet.\n")
    assert f"Saved to {path}\nAdded to {path}\n" in done.shown
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    expected = {"messages": [{"role": "user", "content": "Hé"}, {"role": "assistant", "content": "Ja. "}]}
    assert rows == [expected, expected]


def test_save_does_not_spoil_what_is_there(tmp_path: Path) -> None:
    session = ChatSession()
    session.ask("Hello")
    session.keep("Hi.")
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    assert append_row(session, notes) == f"{notes} is there and is no .jsonl file: nothing was written."
    assert notes.read_text() == "mine"
    unfinished = tmp_path / "a.jsonl"
    unfinished.write_text('{"text": "no line break behind it"}')
    append_row(session, unfinished)
    assert len([json.loads(line) for line in unfinished.read_text().splitlines()]) == 2


def test_save_where_nothing_can_be_written(tmp_path: Path) -> None:
    done = talk(["Hello", f"/save {tmp_path / 'no' / 'talk.jsonl'}"], Scripted(["Hi."]))
    assert f"{tmp_path / 'no' / 'talk.jsonl'}: cannot be written: No such file or directory\n" in done.shown


def test_a_model_cannot_steer_the_terminal() -> None:
    assert visible("a\x1b[2Jb\x07\r\n\tcé🦊") == "a[2Jb\n\tcé🦊"
    assert "\x1b" not in talk(["Hello"], Scripted(["\x1b[31mred"])).shown


def test_piped_lines_are_answered_without_prompts(capsys: pytest.CaptureFixture[str]) -> None:
    talker, session = Scripted(["Hi.", "/etc it is."]), ChatSession()
    answer_lines(["Hello\n", "\n", "/etc?\n"], talker, session, Sampling(), is_silent=False)
    assert capsys.readouterr().out == "Hi. \n/etc it is. \n"
    assert [turn.user for turn in session.turns] == ["Hello", "/etc?"]


def test_silent_piped_lines_leave_stdout_to_json(capsys: pytest.CaptureFixture[str]) -> None:
    session = ChatSession()
    answer_lines(["Hello\n"], Scripted(["Hi."]), session, Sampling(), is_silent=True)
    assert capsys.readouterr().out == ""
    assert session.to_row()["messages"][1] == {"role": "assistant", "content": "Hi. "}


def test_a_piped_line_that_does_not_fit_is_told_by_its_number() -> None:
    with pytest.raises(EngineError) as refused:
        answer_lines(["a b\n", "c " * 20], Scripted(["d"]), ChatSession(), Sampling(), is_silent=True)
    assert str(refused.value) == (
        "line 2: with it the conversation has 23 tokens; this model's context holds 20\n"
        "  Give fewer lines at a time, or a larger --context where the model has one."
    )


def test_what_is_said_is_kept_where_the_chat_page_finds_it(tmp_path: Path) -> None:
    talk(
        ["Hello", "More", "/retry", "/new", "Bye"],
        Scripted(["Hi.", "x", "A fox.", "Bye STOP"]),
        kept=tmp_path / "ledger.db",
    )
    newest, first = Chats(tmp_path / "ledger.db").find()
    assert [(turn.user, turn.answer.text.strip()) for turn in first.turns if turn.answer] == [
        ("Hello", "Hi."), ("More", "A fox."),
    ]  # fmt: skip
    assert (first.title, first.model) == ("Hello", "gen-0001")
    assert newest.turns[0].answer is not None
    assert (newest.turns[0].answer.ended, newest.turns[0].answer.tokens) == ("stopped", 1)


def test_taking_back_the_only_turn_leaves_nothing_behind(tmp_path: Path) -> None:
    talk(["Hello", "/undo"], Scripted(["Hi."]), kept=tmp_path / "ledger.db")
    assert Chats(tmp_path / "ledger.db").find() == []


def test_a_conversation_of_the_page_is_gone_on_with(tmp_path: Path) -> None:
    answer, base = Answer("gen-0002", "Hi.", "stop", 2, 0.5), Answer("base", "Ho.", "stop")
    page = Chat.new("Hello", "gen-0002")
    turns = (KeptTurn("Hello", answer, base), KeptTurn("Nobody answered this"))
    Chats(tmp_path / "ledger.db").save(
        dataclasses.replace(page, manner=Manner(system="Be brief."), turns=turns)
    )
    talker = Scripted(["A fox."])
    done = talk(
        ["/open 1", "/history hello", "/open 2", "/open 1", "More"], talker, kept=tmp_path / "ledger.db"
    )
    assert done.shown.count("Give a number of the list that /history shows: /open 1\n") == 2
    assert "> Hello\nHi.\nOn with: Hello\n" in done.shown
    assert [message.content for message in talker.seen[0].messages] == ["Be brief.", "Hello", "Hi.", "More"]
    (kept,) = Chats(tmp_path / "ledger.db").find()
    assert (kept.id, kept.turns[0], kept.model) == (page.id, turns[0], "gen-0001")
    assert [turn.user for turn in kept.turns] == ["Hello", "More"]


def test_the_list_finds_words_and_counts_the_rest(tmp_path: Path) -> None:
    for i in range(12):
        Chats(tmp_path / "ledger.db").save(
            dataclasses.replace(Chat.new(f"Fox {i}", "base"), turns=(KeptTurn(f"Fox {i}"),))
        )
    done = talk(["/history", "/history fox 7", "/history hen"], Scripted([]), kept=tmp_path / "ledger.db")
    assert "     and 2 more: /history WORDS finds those that have the words\n" in done.shown
    assert done.shown.count("Fox 7") in (1, 2)
    assert done.shown.endswith("There is no such conversation.\n\n")


def test_a_disk_that_cannot_be_written_does_not_end_the_chat(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = talk(["Hello", "More"], Scripted(["Hi.", "A fox."]), kept=tmp_path / "file" / "ledger.db")
    assert done.turns == [("Hello", "Hi."), ("More", "A fox.")]
    assert str(tmp_path / "file") in done.shown
