"""A chat as a pure state machine: what was said, what is being answered, and what can be taken back.

It knows no terminal and no model. `ask`, `retry` give the conversation to answer; `keep` or `drop` ends that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nomoat.chat.conversation import Conversation, Message


@dataclass(frozen=True)
class Turn:
    """What the owner said and what the model answered."""

    user: str
    answer: str


class ChatSession:
    """One conversation. `attempt` counts the answers tried for the newest message, for the sampling seed."""

    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self.turns: list[Turn] = []
        self.attempt = 0
        self._asked: str | None = None
        self._taken_back: Turn | None = None

    def ask(self, text: str) -> Conversation:
        """A new message: the conversation up to and with it."""
        assert self._asked is None, "the last message is still being answered"
        self._asked, self._taken_back, self.attempt = text, None, 0
        return self._conversation()

    def retry(self) -> Conversation | None:
        """Take the last answer back: the conversation to answer anew. None where nothing was answered."""
        assert self._asked is None, "the last message is still being answered"
        if not self.turns:
            return None
        self._taken_back = self.turns.pop()
        self._asked = self._taken_back.user
        self.attempt += 1
        return self._conversation()

    def keep(self, answer: str) -> None:
        """The answer, whole or cut short: it is part of the conversation from now on."""
        assert self._asked is not None, "nothing was asked"
        self.turns.append(Turn(self._asked, answer))
        self._asked = self._taken_back = None

    def drop(self) -> None:
        """No answer came: the message is forgotten; after a retry the earlier answer is back."""
        if self._taken_back is not None:
            self.turns.append(self._taken_back)
        self._asked = self._taken_back = None

    def undo(self) -> Turn | None:
        """Take the last turn back and give it; None where there is none."""
        self.attempt = 0
        return self.turns.pop() if self.turns else None

    def restart(self) -> None:
        """Forget every turn; the system text stays."""
        self.turns.clear()
        self.attempt = 0

    def to_row(self) -> dict[str, Any]:
        """`{"messages": [...]}` in OpenAI's form: a row that `nomoat run --data` reads."""
        return self._conversation().to_dict()

    def _conversation(self) -> Conversation:
        messages = [Message("system", self.system)] if self.system else []
        for turn in self.turns:
            messages += [Message("user", turn.user), Message("assistant", turn.answer)]
        if self._asked is not None:
            messages.append(Message("user", self._asked))
        return Conversation(tuple(messages))
