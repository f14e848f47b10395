"""Ctrl-C during a night: once to stop at a checkpoint, twice to stop at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = "Stopping at the next checkpoint; press Ctrl-C again to stop at once."
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STDERR = 2


class StopRequest:
    """Whether the owner asked to stop. `announces`: say so on stderr, where no progress bar does."""

    def __init__(self, *, announces: bool) -> None:
        self._announces = announces
        self._is_asked = False

    def asked(self) -> bool:
        """True from the first signal on."""
        return self._is_asked

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take SIGINT and SIGTERM while inside; the second one raises KeyboardInterrupt."""
        before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._is_asked:
            # A third one ends the process even where a library does not come back to Python.
            for each in _SIGNALS:
                signal.signal(each, signal.SIG_DFL)
            raise KeyboardInterrupt
        self._is_asked = True
        if self._announces:
            # Not print: the signal may have come in the middle of one, and a stream cannot be entered twice.
            os.write(_STDERR, f"\n{STOPPING}\n".encode())
