"""Looking at a workspace: empty, after a night, while one runs, after one was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from helpers.workspaces import SAID, good_night, ledger_path, start_night
from nomoat.cli import log, status
from nomoat.cli.main import app
from nomoat.ledger.store import Ledger

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def nomoat(*words: str) -> Result:
    return CliRunner().invoke(app, [*words])


def as_json(*words: str) -> dict[str, Any]:
    result = nomoat(*words, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_an_empty_workspace_is_no_mistake_and_stays_empty(workspace: Path) -> None:
    result = nomoat("status")
    assert result.exit_code == 0
    assert result.stdout == (
        f"Workspace   {workspace} (0 bytes in .nomoat)\nLast night  none yet\nNext        nomoat run\n"
    )
    assert nomoat("log").stdout == f"No night yet in {workspace}. Run one: nomoat run\n"
    assert as_json("log") == {"nights": []}
    assert as_json("status")["last_night"] is None
    assert list(workspace.iterdir()) == []


def test_a_night_that_is_not_there_is_told(workspace: Path) -> None:
    result = nomoat("log", "3")
    assert (result.exit_code, result.stderr) == (
        2,
        f"Error: {workspace}: no night has run here yet\n  Run one: nomoat run\n",
    )
    with Ledger.open(ledger_path(workspace)) as ledger:
        good_night(workspace, ledger)
    result = nomoat("log", "3")
    assert result.exit_code == 2
    assert "has no night 3; the newest is night 1" in result.stderr


def test_a_workspace_that_is_not_there_is_told() -> None:
    result = nomoat("status", "--workspace", "nowhere")
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: workspace nowhere: no such folder\n"
        "  Give the folder you ran `nomoat run` in: --workspace DIR\n",
    )


def test_status_after_a_good_night(workspace: Path) -> None:
    with Ledger.open(ledger_path(workspace)) as ledger:
        good_night(workspace, ledger)
    lines = nomoat("status").stdout.splitlines()
    assert lines[1].startswith('Last night  1 "night", 20')
    assert lines[1].endswith(", done after 6 min 30 s")
    assert lines[2:] == [
        f"            {SAID}",
        "Models      1 generation; the newest is gen-0001, better",
        "Champion    none yet; gen-0001 is served until there is one (why: nomoat gate)",
        "Next        nomoat chat",
    ]


def test_json_of_status_has_the_documented_keys(workspace: Path) -> None:
    with Ledger.open(ledger_path(workspace)) as ledger:
        good_night(workspace, ledger)
    found = as_json("status")
    assert found.keys() == status.KEYS.keys()
    assert found["disk_bytes"] >= ledger_path(workspace).stat().st_size
    assert (found["nights"], found["next"]) == (1, "nomoat chat")
    assert found["last_night"]["verdict"] == "better"
    assert [stage["name"] for stage in found["stages"]] == ["data", "sft", "merge", "quantize"]
    assert found["stages"][1]["expected_seconds"] == 372.0
    assert found["generations"][0]["name"] == "gen-0001"


def test_damaged_artifacts_are_shown_with_the_way_to_be_rid_of_them(workspace: Path) -> None:
    assert as_json("status")["damaged_bytes"] == 0
    aside = workspace / "my nights" / ".nomoat" / "damaged" / "sft-aaaaaaaaaaaaaaaa-1"
    aside.mkdir(parents=True)
    (aside / "weights").write_bytes(bytes(14_200_000))
    found = as_json("status", "--workspace", "my nights")
    assert (found["damaged_bytes"], found["disk_bytes"]) == (14_200_000, 14_200_000)
    assert nomoat("status", "--workspace", "my nights").stdout.splitlines()[2] == (
        "Damaged     14.2 MB that nights found damaged and set aside; to remove it: "
        "rm -r 'my nights/.nomoat/damaged'"
    )
    assert "Damaged" not in nomoat("status").stdout


def test_commands_to_type_name_another_workspace(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("my nights")
    assert as_json("status", "--workspace", str(elsewhere))["next"] == f"nomoat run --workspace '{elsewhere}'"


def test_log_lists_nights_newest_first(workspace: Path) -> None:
    with Ledger.open(ledger_path(workspace)) as ledger:
        good_night(workspace, ledger)
        failed = start_night(ledger, "second")
        ledger.finish_night(
            failed,
            status="failed",
            seconds=12.0,
            energy_joules=408.0,
            dollars=0.0,
            error="data.train:\nempty",
        )
    lines = [line.split("  ") for line in nomoat("log").stdout.splitlines()]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert rows[0] == ["night", "name", "started", "took", "cost", "outcome"]
    assert (rows[2][:2], rows[2][3:]) == (
        ["2", "second"],
        ["12 s", "0.11 Wh, $0", "failed: data.train: empty"],
    )
    assert (rows[3][:2], rows[3][3:]) == (["1", "night"], ["6 min 30 s", "3.7 Wh, less than $0.01", "better"])
    assert nomoat("log").stdout.endswith("One night in full: nomoat log 2\n")
    assert as_json("log").keys() == log.KEYS.keys()
    assert [night["id"] for night in as_json("log")["nights"]] == [2, 1]


def test_log_of_one_night_shows_stages_scores_and_lineage(workspace: Path) -> None:
    with Ledger.open(ledger_path(workspace)) as ledger:
        good_night(workspace, ledger)
    text = nomoat("log", "1").stdout
    assert "quantize-aaaaaaaaaaaaaaaa\n└── model: merge-aaaaaaaaaaaaaaaa" in text
    on_one_line = " ".join(text.split())
    for expected in (
        SAID,
        "· training reads 97,200 tokens, about 372 s",
        "sft done 6 min 3.4 Wh, $0.04 sft-aaaaaaaaaaaaaaaa sft done",
        "data reused data-1111111111111111 data done",
        "pass rate 60 in heldout 12% 63% +51.7 points (38.3 to 65.0)",
        "loss 36 in held-out rows 1.924 1.412 -0.512 (-0.560 to -0.470)",
        "difference (95% interval)",
        "file 0: file:cccccccccccccccc",
    ):
        assert expected in on_one_line


def test_json_of_one_night_has_the_documented_keys(workspace: Path) -> None:
    with Ledger.open(ledger_path(workspace)) as ledger:
        good_night(workspace, ledger)
    found = as_json("log", "1")
    assert found.keys() == log.NIGHT_KEYS.keys()
    assert found["lineage"]["inputs"][0]["id"] == "merge-aaaaaaaaaaaaaaaa"
    assert found["recipe"]["base"] == "embedded"
    assert found["generation"]["name"] == "gen-0001"
    assert found["plan"] == ["training reads 97,200 tokens, about 372 s"]
    assert {score["subject"] for score in found["scores"]} == {"base", "tuned", "difference"}


def test_a_night_that_made_the_same_files_again_shows_the_earlier_generation(workspace: Path) -> None:
    with Ledger.open(ledger_path(workspace)) as ledger:
        good_night(workspace, ledger)
        again = start_night(ledger)
        verdict = {"verdict": "better", "said": SAID, "generation": "gen-0001"}
        ledger.finish_night(
            again, status="done", seconds=1.0, energy_joules=1.0, dollars=0.0, verdict=verdict
        )
    assert as_json("log", "2")["generation"]["name"] == "gen-0001"


@pytest.fixture
def running_night(workspace: Path) -> subprocess.Popen[str]:
    """Another process in the middle of a night's stage."""
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from helpers.workspaces import ledger_path, start_night\nfrom nomoat.ledger.store import Ledger\n"
        "ledger = Ledger.open(ledger_path(Path(sys.argv[1])))\n"
        "night = start_night(ledger)\n"
        "ledger.start_stage(night, name='sft', position=1, key='d' * 64)\n"
        "print('running', flush=True)\ntime.sleep(60)\n"
    )
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(workspace)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    return process


def test_while_a_night_runs_and_after_it_was_killed(running_night: subprocess.Popen[str]) -> None:
    try:
        while_it_runs = nomoat("status").stdout
        in_full = nomoat("log", "1").stdout
        found = as_json("status")
    finally:
        running_night.kill()
        running_night.wait()
    assert ", running: sft, for " in while_it_runs
    assert " so far (about 6 min 12 s planned)" in while_it_runs
    assert while_it_runs.endswith("Next        nomoat log 1\n")
    assert "sft-dddddddddddddddd (not made)" in in_full
    assert (found["last_night"]["status"], found["stages"][0]["status"]) == ("running", "running")

    after = nomoat("status").stdout
    assert ", was cut off; `nomoat run` goes on from what it had finished\n" in after
    assert after.endswith("Next        nomoat run\n")
    found = as_json("status")
    assert (found["last_night"]["status"], found["stages"][0]["status"]) == ("cut off", "cut off")
