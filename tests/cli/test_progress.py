"""A night as it goes by."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from nomoat.cli.progress import BarProgress, PlainProgress, ending, progress_words, stage_bar
from nomoat.cli.signals import STOPPING


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_come_at_most_every_fifteen_seconds() -> None:
    clock, lines = Clock(), list[str]()
    watcher = PlainProgress(lines.append, clock)
    watcher.note("night 1 had been cut off")
    watcher.stage_started("sft", "lora on 324 rows")
    for _ in range(40):
        clock.now += 1.0
        watcher.stage_progress("sft", (clock.now - 100) / 40, 40.0 - (clock.now - 100), "step 3 of 60")
    watcher.stage_ended("sft", "done", 40.0, "held-out loss 1.924 → 1.412")
    watcher.stage_ended("data", "reused", 0.0, "324 rows")
    assert lines == [
        "night 1 had been cut off",
        "sft: lora on 324 rows",
        "sft: 38%, 25 s left, step 3 of 60",
        "sft: 75%, 10 s left, step 3 of 60",
        "sft: done in 40 s: held-out loss 1.924 → 1.412",
        "data: unchanged, reused: 324 rows",
    ]


def test_time_left_is_estimated_where_the_stage_does_not_know_it() -> None:
    assert progress_words(0.25, 30.0, None, "answer 9") == ["25%", "1 min 30 s left", "answer 9"]
    assert progress_words(0.25, 1.0, None, "") == ["25%"], "one second is too short to judge by"
    assert progress_words(0.0, 30.0, None, "") == ["0%"]
    assert progress_words(0.5, 30.0, -3.0, "") == ["50%", "0.0 s left"]


@pytest.mark.parametrize(
    ("how", "said"),
    [("done", "done in 2.0 s"), ("interrupted", "stopped after 2.0 s"), ("failed", "failed after 2.0 s")],
)
def test_endings(how: str, said: str) -> None:
    assert ending(how, 2.0) == said


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, markup=False, color_system=None)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_bar_shows_stage_share_and_time_left() -> None:
    console = terminal()
    bar = stage_bar(console, lambda: False)
    words = "  ".join(progress_words(0.42, 10.0, 200.0, "step 84 of 200"))
    bar.add_task("sft", total=1.0, completed=0.42, words=words)
    console.print(bar.get_renderable())
    line = written(console)
    assert "sft" in line
    assert "42%  3 min 20 s left  step 84 of 200" in line


def test_the_bar_answers_ctrl_c_while_the_stage_says_nothing() -> None:
    console, stopping = terminal(), [False]
    bar = stage_bar(console, lambda: stopping[0])
    bar.add_task("sft", total=1.0, words="[0%]")
    console.print(bar.get_renderable())
    assert "[0%]" in written(console), "brackets are text, not markup"
    stopping[0] = True
    console.print(bar.get_renderable())
    assert STOPPING in written(console)


def test_ended_stages_stand_above_the_bar() -> None:
    console = terminal()
    watcher = BarProgress(console, lambda: False)
    watcher.stage_ended("data", "reused", 0.0, "324 rows [a]")
    watcher.stage_started("sft", "lora on 324 rows")
    watcher.stage_progress("sft", 0.5, 3.0, "step 1")
    watcher.note("training ends early")
    watcher.stage_ended("sft", "done", 12.0, "loss fell")
    watcher.close()
    text = written(console)
    assert "= data       unchanged, reused  324 rows [a]" in text
    assert "· training ends early" in text
    assert "✓ sft        done in 12 s  loss fell" in text
