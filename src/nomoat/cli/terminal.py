"""The terminal side of `nomoat chat`: reads lines, shows answers as they come, obeys slash commands."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nomoat.cli.output import visible
from nomoat.cli.session import ChatSession
from nomoat.cli.slash import Command, Unknown, help_lines, read_line
from nomoat.errors import EngineError, NomoatError

if TYPE_CHECKING:
    from rich.console import Console

    from nomoat.chat.conversation import Conversation
    from nomoat.cli.history import History
    from nomoat.cli.talkers import Talker
    from nomoat.engine.base import Sampling
    from nomoat.serve.web.chats import Answer

SIDE_BY_SIDE_COLUMNS = 100
"""From this width on, two answers stand beside each other."""
_NEARLY_FULL = 0.75


class TerminalChat:
    """A chat at a terminal. `read` gives the next typed line, and raises EOFError and KeyboardInterrupt as
    `input` does; `open_base` loads the base when it is first asked for; `history` keeps what is said."""

    def __init__(
        self,
        talker: Talker,
        open_base: Callable[[], Talker],
        session: ChatSession,
        sampling: Sampling,
        history: History,
        *,
        read: Callable[[], str],
        to: Console,
    ) -> None:
        self._talker = talker
        self._open_base = open_base
        self._session = session
        self._sampling = sampling
        self._history = history
        self._read = read
        self._console = to
        self._base: Talker | None = None
        self._compares = False

    def run(self) -> None:
        """Talk until Ctrl-D or /quit."""
        while True:
            try:
                line = self._read()
            except EOFError:
                self._console.print()
                return
            except KeyboardInterrupt:
                self._say("\nCtrl-D or /quit leaves.")
                continue
            told = read_line(line)
            if isinstance(told, Command):
                if told.name == "/quit":
                    return
                self._obey(told)
            elif isinstance(told, Unknown):
                self._say(told.said)
            elif told is not None:
                self._answer(self._session.ask(told.text))

    def _obey(self, command: Command) -> None:
        match command.name:
            case "/undo":
                self._undo()
            case "/retry":
                self._retry()
            case "/system":
                self._system(command.argument)
            case "/save":
                self._save(command.argument)
            case "/base":
                self._toggle_base()
            case "/new":
                self._session.restart()
                self._history.leave()
                self._say("A new conversation.")
            case "/history":
                lines = self._history.find(command.argument)
                self._say("\n".join(lines) or "There is no such conversation.")
            case "/open":
                self._open(command.argument)
            case "/help":
                self._console.print("\n".join(help_lines()))

    def _undo(self) -> None:
        turn = self._session.undo()
        if turn is None:
            self._say("There is nothing to take back.")
            return
        self._keep()
        self._say(f"Taken back: {turn.user}")

    def _open(self, number: str) -> None:
        title = self._history.open(number, self._session)
        if title is None:
            self._say("Give a number of the list that /history shows: /open 1")
            return
        for turn in self._session.turns:
            self._console.print(f"> {visible(turn.user)}\n{visible(turn.answer)}", soft_wrap=True)
        self._say(f"On with: {visible(title)}")

    def _retry(self) -> None:
        conversation = self._session.retry()
        if conversation is None:
            self._say("There is no answer to try again.")
            return
        if self._sampling.temperature == 0:
            self._say("At temperature 0 the answer is the same each time; --temperature 0.7 varies it.")
        self._answer(conversation)

    def _system(self, text: str) -> None:
        if text:
            self._session.system = None if text == "none" else text
        self._say(f"System: {self._session.system}" if self._session.system else "No system text.")

    def _save(self, name: str) -> None:
        if not name:
            self._say("Give a file: /save talk.jsonl")
        elif not self._session.turns:
            self._say("There is nothing to save yet.")
        else:
            try:
                self._say(append_row(self._session, Path(name).expanduser()))
            except OSError as error:
                self._say(f"{name}: cannot be written: {error.strerror}")

    def _toggle_base(self) -> None:
        self._compares = not self._compares
        if not self._compares:
            self._say(f"Only {self._talker.name} answers.")
            return
        if self._base is None:
            try:
                self._base = self._open_base()
            except NomoatError as error:
                self._compares = False
                self._say(str(error))
                return
        self._say(
            f"{self._talker.name} and {self._base.name} answer the same conversation; only the answers of "
            f"{self._talker.name} become part of it."
        )

    def _answer(self, conversation: Conversation) -> None:
        """Show the answer as it comes. Ctrl-C ends it; what was shown by then is kept."""
        from nomoat.serve.web.chats import Answer

        try:
            room = room_for_answer(self._talker, conversation)
        except NomoatError as error:
            self._session.drop()
            self._say(str(error))
            return
        answers: list[list[str]] = [[], []]
        stopped, failure = False, None
        started = time.monotonic()
        try:
            if self._compares and self._base is not None:
                self._show_both(conversation, self._base, answers)
            else:
                self._show(self._talker, conversation, answers[0])
        except KeyboardInterrupt:
            stopped = True
        except NomoatError as error:
            failure = str(error)
        self._console.print()
        answer = "".join(answers[0])
        if failure is not None:
            self._say(failure)
        if not answer and (stopped or failure):
            self._session.drop()
            self._say("There is no answer, so your message was not kept.")
            return
        self._session.keep(answer)
        tokens = self._talker.text_tokens(answer)
        cut = tokens >= min(room, self._sampling.max_new_tokens)
        ended = "stopped" if stopped else "length" if cut else "stop"
        self._keep(Answer(self._talker.name, answer, ended, tokens, time.monotonic() - started))
        self._remark(answer, tokens, room, stopped)

    def _keep(self, newest: Answer | None = None) -> None:
        """A full disk does not end the chat."""
        try:
            self._history.keep(self._session, newest)
        except NomoatError as error:
            self._say(str(error))

    def _show(self, talker: Talker, conversation: Conversation, pieces: list[str]) -> None:
        with closing(talker.stream(conversation, self._seeded())) as stream:
            for piece in stream:
                pieces.append(piece)
                self._console.print(visible(piece), end="", soft_wrap=True)

    def _show_both(self, conversation: Conversation, base: Talker, answers: list[list[str]]) -> None:
        if self._console.width >= SIDE_BY_SIDE_COLUMNS and self._console.is_terminal:
            self._show_columns(conversation, base, answers)
            return
        for talker, pieces in zip((self._talker, base), answers, strict=True):
            self._console.print(f"[{talker.name}]", style="bold")
            self._show(talker, conversation, pieces)
            self._console.print()

    def _show_columns(self, conversation: Conversation, base: Talker, answers: list[list[str]]) -> None:
        from rich.live import Live
        from rich.table import Table

        def table() -> Table:
            columns = Table.grid(expand=True, padding=(0, 2))
            for talker in (self._talker, base):
                columns.add_column(talker.name, ratio=1, overflow="fold")
            columns.add_row(self._talker.name, base.name, style="bold")
            columns.add_row(*(visible("".join(pieces)) for pieces in answers))
            return columns

        try:
            with Live(table(), console=self._console, transient=True, vertical_overflow="crop") as live:
                for talker, pieces in zip((self._talker, base), answers, strict=True):
                    with closing(talker.stream(conversation, self._seeded())) as stream:
                        for piece in stream:
                            pieces.append(piece)
                            live.update(table())
        finally:
            self._console.print(table())  # whole, however long: Live shows no more than a screenful

    def _remark(self, answer: str, tokens: int, room: int, stopped: bool) -> None:
        """Say what the answer itself does not show."""
        used = self._talker.n_ctx - room + tokens
        if stopped:
            self._say("Stopped. /retry answers anew, /undo takes it back.")
        elif not answer.strip():
            self._say("(The model ended its answer at once.)")
        elif tokens >= room:
            self._say(f"The answer was cut: {full_context(self._talker.n_ctx)}")
        elif tokens >= self._sampling.max_new_tokens:
            self._say(f"The answer was cut at {self._sampling.max_new_tokens} tokens (--max-new-tokens).")
        elif used >= _NEARLY_FULL * self._talker.n_ctx:
            self._say(f"({used} of {self._talker.n_ctx} tokens of the context are used.)")

    def _seeded(self) -> Sampling:
        return replace(self._sampling, seed=self._sampling.seed + self._session.attempt)

    def _say(self, text: str) -> None:
        self._console.print(text, style="dim")


def room_for_answer(talker: Talker, conversation: Conversation) -> int:
    """Tokens left in the context for an answer. Raises EngineError where there is none: a turn is never
    dropped in silence."""
    used = talker.prompt_tokens(conversation)
    if used >= talker.n_ctx:
        raise EngineError(
            f"The message was not sent: with it the conversation has {used} tokens, and "
            f"{full_context(talker.n_ctx)}",
        )
    return talker.n_ctx - used


def full_context(n_ctx: int) -> str:
    """What can be done when the context is full."""
    return (
        f"the context holds {n_ctx}. Nothing is dropped by itself. /undo takes back the last turn, "
        "/save FILE keeps the conversation, /new starts another."
    )


def append_row(session: ChatSession, path: Path) -> str:
    """Add the conversation to a JSONL file as one row; gives the line to show."""
    is_new = not path.exists()
    if not is_new and path.suffix != ".jsonl":
        return f"{path} is there and is no .jsonl file: nothing was written."
    row = json.dumps(session.to_row(), ensure_ascii=False)
    with path.open("a+b") as file:
        file.seek(0, 2)
        if file.tell() > 0:
            file.seek(-1, 2)
            row = row if file.read(1) == b"\n" else f"\n{row}"
        file.write(f"{row}\n".encode("utf-8", "replace"))
    return f"Saved to {path}" if is_new else f"Added to {path}"
