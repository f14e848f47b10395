"""What a night tells whoever watches: the command line draws it, a test collects it."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Called from the night's own thread; must return quickly."""

    def stage_started(self, kind: str, why: str) -> None:
        """A stage begins; `why` says what made it necessary."""

    def stage_progress(self, kind: str, share: float, seconds_left: float | None, note: str) -> None:
        """`share` in [0, 1] of the running stage is done."""

    def stage_ended(self, kind: str, how: str, seconds: float, said: str) -> None:
        """`how` is done, reused, failed or interrupted; `said` is the one line worth reading."""

    def note(self, text: str) -> None:
        """A sentence for the owner: a choice and its reason, or a warning."""


class Silent:
    """Watches nothing."""

    def stage_started(self, kind: str, why: str) -> None: ...

    def stage_progress(self, kind: str, share: float, seconds_left: float | None, note: str) -> None: ...

    def stage_ended(self, kind: str, how: str, seconds: float, said: str) -> None: ...

    def note(self, text: str) -> None: ...
