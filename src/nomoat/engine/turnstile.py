"""Who may go where only one kind of work is done at a time, and much of that kind at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

_ASK_S = 0.2  # how often somebody who waits is asked whether he still does


@dataclass(eq=False)
class _Ticket:
    kind: str | None


@final
class Turnstile:
    """Lets in who is of the kind that is inside, in the order of arrival: nobody passes somebody of another kind who
    came before, so none waits for more than those who were there already."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[_Ticket] = []
        self._inside: list[_Ticket] = []

    @contextmanager
    def through(self, kind: str | None, is_wanted: Callable[[], bool]) -> Iterator[bool]:
        """Wait, and be inside within the context. False where `is_wanted`, asked now and then, said no before."""
        ticket = _Ticket(kind)
        with self._changed:
            self._waiting.append(ticket)
            try:
                while not (may_go := self._may_go(ticket)) and is_wanted():
                    self._changed.wait(_ASK_S)
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
            if may_go:
                self._inside.append(ticket)
        try:
            yield may_go
        finally:
            with self._changed:
                if may_go:
                    self._inside.remove(ticket)
                self._changed.notify_all()

    def _may_go(self, ticket: _Ticket) -> bool:
        before = self._waiting[: self._waiting.index(ticket)]
        return all(other.kind == ticket.kind for other in [*before, *self._inside])
