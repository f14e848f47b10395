"""The conversations that the terminal and the chat page share: kept after every turn, found again, gone on with."""

from __future__ import annotations

from dataclasses import replace
from typing import final

from nomoat.cli.session import ChatSession, Turn
from nomoat.serve.web import chats

MOST_LISTED = 10


@final
class History:
    """The workspace's conversations, and which of them this chat is, whose answers are written in `manner`."""

    def __init__(self, kept: chats.Chats, manner: chats.Manner) -> None:
        self._kept = kept
        self._manner = manner
        self._chat: chats.Chat | None = None
        self._listed: list[chats.Chat] = []

    def keep(self, session: ChatSession, newest: chats.Answer | None = None) -> None:
        """Keep the conversation as it is now; `newest` tells more of its last answer. One that lost its last turn
        is forgotten.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        if not session.turns:
            if self._chat is not None:
                self._kept.delete(self._chat.id)
            self.leave()
            return
        if self._chat is None:
            self._chat = chats.Chat.new(session.turns[0].user, newest.model if newest else "")
        known = {(turn.user, turn.answer.text): turn for turn in self._chat.turns if turn.answer is not None}
        turns = [
            known.get((said.user, said.answer)) or chats.Turn(said.user, newest) for said in session.turns
        ]
        self._chat = replace(
            self._chat,
            model=newest.model if newest else self._chat.model,
            manner=replace(self._manner, system=session.system or ""),
            turns=tuple(turns),
        )
        self._kept.save(self._chat)

    def leave(self) -> None:
        """What is said from now on is another conversation."""
        self._chat = None

    def find(self, words: str) -> list[str]:
        """A line for each of the newest conversations that have all the words; `open` takes a line's number."""
        found = self._kept.find(words)
        self._listed = found[:MOST_LISTED]
        lines = [f"{i:>3}  {chat.changed_at[:10]}  {chat.title}" for i, chat in enumerate(self._listed, 1)]
        if len(found) > MOST_LISTED:
            lines.append(
                f"     and {len(found) - MOST_LISTED} more: /history WORDS finds those that have the words"
            )
        return lines

    def open(self, number: str, session: ChatSession) -> str | None:
        """Go on with a conversation of the list: its title. None where the list has no such number. A message
        without an answer is left out."""
        if not number.isdecimal() or not 0 < int(number) <= len(self._listed):
            return None
        self._chat = self._listed[int(number) - 1]
        session.restart()
        session.system = self._chat.manner.system or None
        session.turns += [
            Turn(turn.user, turn.answer.text) for turn in self._chat.turns if turn.answer is not None
        ]
        return self._chat.title
