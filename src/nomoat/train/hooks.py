"""What a running stage asks of the world and tells it; the night gives it, the loop calls it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class Interrupted(Exception):  # noqa: N818 - not an error: the owner asked for it
    """The owner stopped the run; a checkpoint of this step is on the disk."""


@dataclass(frozen=True)
class Progress:
    """What a watcher is told after every step."""

    step: int
    last_step: int
    loss: float
    seconds_left: float


@dataclass(frozen=True)
class Hooks:
    """`seconds_left` until training must be over (None: no deadline). `on_preparation` is told the share done of
    what comes before the first step."""

    seconds_left: Callable[[], float | None] = lambda: None
    stop_asked: Callable[[], bool] = lambda: False
    on_preparation: Callable[[float], None] = lambda _: None
    on_progress: Callable[[Progress], None] = lambda _: None
