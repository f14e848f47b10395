"""The benchmark of reward models on what people preferred: what becomes a pair, and a whole run on few."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from helpers import forked
from reward import autoj, pandalm

ROOT = Path(__file__).parents[2]


def write(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(file, "wt", encoding="utf-8") as lines:
        lines.write("".join(json.dumps(row) + "\n" for row in rows))
    return file


def of_pandalm(number: int, *verdicts: int) -> dict[str, Any]:
    said = {f"annotator{n}": verdict for n, verdict in enumerate(verdicts, 1)}
    answers = {"response1": f"one {number}", "response2": "the other"}
    return {"instruction": f"Question {number}", "input": "", **answers, **said}


def of_autoj(number: int, label: int) -> dict[str, Any]:
    return {
        "prompt": f"Ask {number}",
        "label": label,
        "response 1": "a first",
        "response 2": f"second {number}",
    }


def test_what_most_annotators_prefer_becomes_a_pair(tmp_path: Path) -> None:
    rows = [of_pandalm(0, 1, 1, 2), of_pandalm(1, 2, 0, 2), of_pandalm(2, 0, 0, 1), of_pandalm(3, 0, 1, 2)]
    rows.append(of_pandalm(4, 1, 1, 1) | {"response1": "the other "})
    assert [*pandalm(write(tmp_path / "p.gz", rows))] == [
        {"prompt": "Question 0", "chosen": "one 0", "rejected": "the other"},
        {"prompt": "Question 1", "chosen": "the other", "rejected": "one 1"},
    ]
    labels = [of_autoj(0, 0), of_autoj(1, 1), of_autoj(2, 2)]
    assert [*autoj(write(tmp_path / "a.gz", labels))] == [
        {"prompt": "Ask 0", "chosen": "a first", "rejected": "second 0"},
        {"prompt": "Ask 1", "chosen": "second 1", "rejected": "a first"},
    ]


@pytest.mark.slow
def test_a_whole_run_on_few_pairs(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write(data / "pandalm" / "testset_v1_split_a.jsonl.gz", [of_pandalm(n, 1, 1, 1) for n in range(20)])
    write(data / "autoj" / "testdata_pairwise_split_a.jsonl.gz", [of_autoj(n, 1) for n in range(20)])
    command = [sys.executable, "bench/reward.py", "--workspace", str(tmp_path / "work"), "--data", str(data)]
    command += ["--seeds", "1", "--set", "data.held_out=0.5", "reward.max_steps=2", "reward.max_seq_len=64"]
    run = forked.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, timeout=600)
    assert run.returncode == 0, run.stderr[-2000:]
    lines = run.stdout.splitlines()
    assert lines[0] == "40 pairs; the longer answer is preferred in 50.0%"
    seed, followed, decided, _ = (cell.strip() for cell in lines[-1].strip("|").split("|"))
    assert seed == "1"
    assert 0 <= float(followed.split()[0]) <= 100
    assert 4 <= int(decided) <= 20
