"""`nomoat run`: what it prints, its exit codes, and Ctrl-C, around a night that is only played."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import nomoat.night.night
from helpers.summaries import summary
from nomoat.cli import night_view
from nomoat.cli.main import app
from nomoat.errors import BudgetError
from nomoat.evaluate.comparison import Comparison
from nomoat.night.events import Watcher
from nomoat.night.result import NightSummary
from nomoat.night.runner import NightInterrupted
from nomoat.recipe_file import LoadedRecipe

ROOT = Path(__file__).parents[2]
Night = Callable[..., NightSummary]


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def play(monkeypatch: pytest.MonkeyPatch, night: Night) -> None:
    monkeypatch.setattr(nomoat.night.night, "run_night", night)


def good(
    loaded: LoadedRecipe, workspace: Path, *, watcher: Watcher, stop_asked: Callable[[], bool]
) -> NightSummary:
    watcher.stage_started("sft", "lora on 608 rows")
    watcher.stage_ended("sft", "done", 311.7, "loss fell")
    return summary()


def printed(night: NightSummary, workspace: Path = Path(), *, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    night_view.print_night(night, workspace, 0.95, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_result_on_stdout_and_progress_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, good)
    result = CliRunner().invoke(app, ["run"])
    assert result.exit_code == 0
    assert result.stderr == (
        "No nomoat.yaml here: the default recipe, the embedded base on the starter data.\n"
        "sft: lora on 608 rows\nsft: done in 5 min 12 s: loss fell\n"
    )
    assert "✓ Better than its base." in result.stdout
    assert result.stdout.endswith("Next: nomoat chat\n")


def test_json_has_the_documented_keys_and_nothing_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, good)
    result = CliRunner().invoke(app, ["run", "--json", "evaluate.confidence=0.9"])
    found = json.loads(result.stdout)
    assert found.keys() == night_view.KEYS.keys()
    assert (found["night"], found["generation"], found["verdict"]) == (12, "gen-3", "better")
    assert found["confidence"] == 0.9
    assert found["served_file"].endswith("storyteller-Q8_0.gguf")
    assert found["metrics"][0].keys() == {
        "suite", "name", "unit", "higher_is_better", "base", "tuned", "difference",
    }  # fmt: skip
    assert found["metrics"][0]["difference"].keys() == {"value", "low", "high", "n"}
    assert found["stages"][0].keys() == {
        "kind", "how", "seconds", "energy_joules", "dollars", "artifact_id", "said",
    }  # fmt: skip
    assert "sft: done" in result.stderr


def test_words_reach_the_night(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> None:
    seen: list[tuple[LoadedRecipe, Path]] = []

    def night(loaded: LoadedRecipe, place: Path, **_: Any) -> NightSummary:
        seen.append((loaded, place))
        return summary()

    play(monkeypatch, night)
    words = [
        "run",
        "--base",
        "org/model",
        "--data",
        "a.jsonl",
        "--data",
        "b.csv",
        "seed=7",
        "--workspace",
        "w",
    ]
    assert CliRunner().invoke(app, words).exit_code == 0
    ((loaded, place),) = seen
    assert (loaded.recipe.base, loaded.recipe.data.train, loaded.recipe.seed) == (
        "org/model",
        ["a.jsonl", "b.csv"],
        7,
    )
    assert place == Path("w")


def test_what_is_printed_at_the_end() -> None:
    night = summary()
    lines = printed(night).splitlines()
    assert night.comparison.said in lines
    assert "  GGUF file  .nomoat/artifacts/quantize-9a8b7c6d5e4f3a2b/storyteller-Q8_0.gguf" in lines
    assert "  model      .nomoat/artifacts/merge-0c1d2e3f4a5b6c7d/model" in lines
    assert "  cost       7 min 38 s, 4.3 Wh, less than $0.01" in lines
    assert f"  price      {night.price_said}" in lines
    assert "  report     .nomoat/reports/night-0012.html" in lines
    assert "  ! stories.jsonl:88: not JSON, left out (1 of 641 rows)" in lines
    assert lines[-1] == "Next: nomoat chat"
    (rate,) = [line for line in lines if line.startswith((" pass rate  ", "pass rate  "))]
    metric = night.comparison.metrics[0]
    assert f"{100 * metric.tuned.value:.0f}%" in rate
    assert f"{100 * metric.difference.value:+.1f} points ({100 * metric.difference.low:.1f} to " in rate


def test_paths_are_not_broken_on_a_narrow_terminal() -> None:
    assert ".nomoat/artifacts/quantize-9a8b7c6d5e4f3a2b/storyteller-Q8_0.gguf\n" in printed(
        summary(), width=40
    )


def test_another_workspace_is_in_every_path_and_command() -> None:
    text = printed(summary(), Path("far away"))
    assert "far away/.nomoat/reports/night-0012.html" in text
    assert text.endswith("Next: nomoat chat --workspace 'far away'\n")


@pytest.mark.parametrize(
    ("verdict", "line"),
    [("worse", "✗ Worse than its base."), ("not shown better", "≈ Not shown better than its base.")],
)
def test_a_model_that_is_not_better_is_an_honest_result(
    monkeypatch: pytest.MonkeyPatch, verdict: Any, line: str
) -> None:
    judged = replace(summary().comparison, verdict=verdict)
    play(monkeypatch, lambda *_, **__: summary(comparison=judged))
    result = CliRunner().invoke(app, ["run"])
    assert result.exit_code == 0
    assert line in result.stdout.splitlines()


def test_a_night_without_a_rival_claims_nothing() -> None:
    alone = Comparison([], [], "not compared", "", "A new base was trained from scratch.")
    text = printed(summary(comparison=alone))
    assert "A new base was trained from scratch." in text
    assert "than its base" not in text


def test_what_the_owner_can_mend_ends_with_2(monkeypatch: pytest.MonkeyPatch) -> None:
    def night(*_: Any, **__: Any) -> NightSummary:
        raise BudgetError("the budget leaves 3 s", hint="Give budget.hours more.")

    play(monkeypatch, night)
    result = CliRunner().invoke(app, ["run", "--json"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith("Error: the budget leaves 3 s\n  Give budget.hours more.\n")


def test_a_clean_stop_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def night(*_: Any, **__: Any) -> NightSummary:
        raise NightInterrupted("stopped at step 40")

    play(monkeypatch, night)
    result = CliRunner().invoke(app, ["run"])
    assert result.exit_code == 130
    assert result.stderr.endswith("Stopped at step 40. Run the same command again to go on from there.\n")


def test_a_recipe_mistake_needs_no_heavy_import(workspace: Path) -> None:
    program = (
        "import sys\nfrom nomoat.cli.main import app\n"
        "try: app(['run', 'sft.learning_rat=1'], prog_name='nomoat')\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        timeout=60,
    )
    assert done.stdout == "2 False\n"
    assert 'Did you mean "learning_rate"?' in done.stderr


# Stands in for the heavy modules, which take longer to import than the test needs; test_night.py stops a
# real night.
PLAYED = """
import sys, time, types

class NightInterrupted(Exception):
    pass

def night(loaded, workspace, *, watcher, stop_asked):
    watcher.stage_started("sft", "ready")
    for _ in range(600):
        time.sleep(0.1)
        if stop_asked() and {heeds}:
            raise NightInterrupted("stopped at step 40")
    raise AssertionError("nobody stopped it")

for name, value in (("night", night), ("runner", NightInterrupted)):
    module = types.ModuleType("nomoat.night." + name)
    setattr(module, {{"night": "run_night", "runner": "NightInterrupted"}}[name], value)
    sys.modules[module.__name__] = module
from nomoat.cli.main import main
sys.argv = ["nomoat", "run"]
main()
"""


def start_played(workspace: Path, *, heeds: bool) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PLAYED.format(heeds=heeds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert process.stderr is not None
    while process.stderr.readline() != "sft: ready\n":
        assert process.poll() is None
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_at_a_checkpoint(workspace: Path, number: signal.Signals) -> None:
    process = start_played(workspace, heeds=True)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err == (
        "\nStopping at the next checkpoint; press Ctrl-C again to stop at once.\n"
        "Stopped at step 40. Run the same command again to go on from there.\n"
    )


def test_the_second_signal_stops_at_once(workspace: Path) -> None:
    process = start_played(workspace, heeds=False)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.endswith(
        "Stopped at once. What was finished is kept: run the same command again to go on from there.\n"
    )
