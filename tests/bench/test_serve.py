"""The benchmark of the server runs, and compares like with like."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_both_servers_answer_in_full() -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "bench" / "serve.py"),
            "--streams",
            "1,2",
            "--tokens",
            "6",
            "--rounds",
            "1",
            "--threads",
            "1",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("embedded-Q8_0, ")
    assert [re.split(r"\s+first token", line)[0].strip() for line in lines[1:]] == [
        "1 streams  nomoat serve",
        "1 streams  llama.cpp",
        "ratio",
        "2 streams  nomoat serve",
        "2 streams  llama.cpp",
        "ratio",
    ]
