"""A night as it goes by, on stderr: a bar where there is a terminal, plain lines where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

from nomoat.cli.output import console
from nomoat.cli.signals import STOPPING
from nomoat.cli.units import duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from nomoat.night.events import Watcher

LINE_EVERY_SECONDS = 15.0
"""Between two plain lines about one stage: a log of a whole night stays readable."""
_KIND_WIDTH = 10


@contextmanager
def watching(*, plain: bool, is_stopping: Callable[[], bool] = lambda: False) -> Iterator[Watcher]:
    """A watcher that draws until the `with` ends."""
    if not draws_bar(plain=plain):
        yield PlainProgress(lambda line: print(line, file=sys.stderr, flush=True))
        return
    bar = BarProgress(console(stderr=True), is_stopping)
    try:
        yield bar
    finally:
        bar.close()


def draws_bar(*, plain: bool) -> bool:
    """Whether there is a terminal to draw a bar on, and nobody forbids it (`plain`)."""
    return not plain and sys.stderr.isatty()


@final
class PlainProgress:
    """A line where a stage starts and ends, and one now and then between."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._started_s = self._last_line_s = clock()

    def stage_started(self, kind: str, why: str) -> None:
        self._started_s = self._last_line_s = self._clock()
        self._write(f"{kind}: {why}")

    def stage_progress(self, kind: str, share: float, seconds_left: float | None, note: str) -> None:
        now = self._clock()
        if now - self._last_line_s < LINE_EVERY_SECONDS:
            return
        self._last_line_s = now
        self._write(f"{kind}: {', '.join(progress_words(share, now - self._started_s, seconds_left, note))}")

    def stage_ended(self, kind: str, how: str, seconds: float, said: str) -> None:
        self._write(f"{kind}: {ending(how, seconds)}: {said}")

    def note(self, text: str) -> None:
        self._write(text)


@final
class BarProgress:
    """A bar for the running stage; ended stages and notes stand above it as lines."""

    def __init__(self, to: Console, is_stopping: Callable[[], bool]) -> None:
        self._console = to
        self._is_stopping = is_stopping
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._started_s = 0.0

    def stage_started(self, kind: str, why: str) -> None:
        self.close()
        self._started_s = time.monotonic()
        self._progress = stage_bar(self._console, self._is_stopping)
        self._task = self._progress.add_task(kind, total=1.0, words=why)
        self._progress.start()

    def stage_progress(self, kind: str, share: float, seconds_left: float | None, note: str) -> None:
        if self._progress is not None and self._task is not None:
            elapsed = time.monotonic() - self._started_s
            words = "  ".join(progress_words(share, elapsed, seconds_left, note))
            self._progress.update(self._task, completed=share, words=words)

    def stage_ended(self, kind: str, how: str, seconds: float, said: str) -> None:
        self.close()
        mark, style = {"done": ("✓", "green"), "reused": ("=", "cyan")}.get(how, ("✗", "red"))
        self._console.print(f"{mark} {kind:<{_KIND_WIDTH}} {ending(how, seconds)}", style=style, end="  ")
        self._console.print(said)

    def note(self, text: str) -> None:
        self._console.print(f"· {text}", style="dim")

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def stage_bar(to: Console, is_stopping: Callable[[], bool]) -> Progress:
    """One line: spinner, stage, bar, and the words `progress_words` makes."""
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Words(ProgressColumn):
        """Read at every refresh, so that Ctrl-C is answered although the stage says nothing just then."""

        def render(self, task: Task) -> Text:
            return Text(STOPPING, style="yellow") if is_stopping() else Text(task.fields["words"])

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        Words(table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        console=to,
        transient=True,
        expand=True,
    )


def progress_words(done: float, elapsed_s: float, seconds_left: float | None, note: str) -> list[str]:
    """'42%', '3 min 20 s left', and the stage's own words; the time left is estimated where the stage
    does not know it and has done enough to judge by."""
    if seconds_left is None and 0.02 <= done < 1.0 and elapsed_s > 2.0:
        seconds_left = elapsed_s * (1.0 - done) / done
    left = [] if seconds_left is None else [f"{duration(max(0.0, seconds_left))} left"]
    return [f"{100 * done:.0f}%", *left, *([note] if note else [])]


def ending(how: str, seconds: float) -> str:
    """How a stage ended."""
    if how == "reused":
        return "unchanged, reused"
    verb = {"done": "done in", "interrupted": "stopped after", "failed": "failed after"}[how]
    return f"{verb} {duration(seconds)}"
