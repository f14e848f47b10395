"""The benchmark of the server runs, and compares like with like."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest


@pytest.mark.slow
def test_both_servers_answer_in_full(bench: Callable[..., str]) -> None:
    words = ("--streams", "1,2", "--tokens", "6", "--rounds", "1", "--threads", "1")
    lines = bench("serve.py", *words).splitlines()
    assert lines[0].startswith("embedded-Q8_0, ")
    assert [re.split(r"\s+first token", line)[0].strip() for line in lines[1:]] == [
        "1 streams  nomoat serve",
        "1 streams  llama.cpp",
        "ratio",
        "2 streams  nomoat serve",
        "2 streams  llama.cpp",
        "ratio",
    ]
