"""A real night through the command line: run, run again, look, talk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers import forked
from helpers.tiny_models import build

ROOT = Path(__file__).parents[2]
RUN = (
    "run", "--base", "base", "--data", "rows.jsonl", "sft.max_seq_len=128", "sft.tokens_per_step=256",
    "evaluate.max_new_tokens=8", "evaluate.samples=2", "threads=1",
)  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


def nomoat(*words: str, cwd: Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nomoat.cli.main", *words]
    return forked.run(command, cwd=cwd, env=environment(), input=typed, timeout=300)


def as_json(*words: str, cwd: Path, typed: str = "") -> dict[str, Any]:
    done = nomoat(*words, "--json", cwd=cwd, typed=typed)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def prepare_folder(folder: Path) -> Path:
    build(folder / "base", "smollm")
    rows = [{"prompt": f"Say {n}", "completion": f"The number is {n}, and no other."} for n in range(60)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.slow
def test_a_night_from_the_first_word_to_the_last(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path)
    first = as_json(*RUN, cwd=folder)
    assert [stage["how"] for stage in first["stages"]] == ["done"] * len(first["stages"])
    for path in (first["model"], first["served_file"], first["report"]):
        assert (folder / path).exists(), path

    again = as_json(*RUN, cwd=folder)
    assert {stage["how"] for stage in again["stages"]} == {"reused"}
    assert (again["night"], again["generation"]) == (2, "gen-0001")

    assert as_json("status", cwd=folder)["next"] == "nomoat chat"
    found = as_json("log", "1", cwd=folder)
    assert found["night"]["verdict"] == first["verdict"]
    assert [stage["name"] for stage in found["stages"]] == [stage["kind"] for stage in first["stages"]]
    for who in ("gen-0001", "base"):
        words = ("chat", who, "--temperature", "0", "--max-new-tokens", "4")
        messages = as_json(*words, cwd=folder, typed="Say 3\n")["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant"]


@pytest.mark.slow
def test_a_stopped_night_is_taken_up_again(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "nomoat.cli.main", *RUN, "sft.num_train_epochs=2000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment(),
    )
    assert process.stderr is not None
    while not process.stderr.readline().startswith("sft: "):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Stopped at step " in err
    assert err.endswith("Run the same command again to go on from there.\n")
    assert as_json("status", cwd=folder)["last_night"]["status"] == "interrupted"
