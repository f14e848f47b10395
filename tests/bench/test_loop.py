"""Votes without a taste promote nobody: whole ledgers under the gate, on fewer votes than the benchmark has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from loop import simulate


@pytest.mark.slow
def test_votes_by_chance_keep_the_champion_and_votes_with_a_taste_do_not() -> None:
    rows = {row.voter: row for row in simulate(seeds=20, votes=150, every=25)}
    assert rows["coin"].promoted <= 2  # 1 in 20 is the promise; 3 or more have a chance of 7.5 % under it
    assert rows["left"].promoted <= 2
    assert rows["70%"].promoted >= 18
    assert rows["70%"].votes < 100


def test_it_runs_and_writes_its_figures(bench: Callable[..., str], tmp_path: Path) -> None:
    said = bench("loop.py", "--seeds=2", "--votes=20", f"--json={tmp_path / 'l'}")
    assert "2 ledgers a voter, a look after every 10 of at most 20 votes" in said
    assert len(json.loads((tmp_path / "l").read_text())["rows"]) == 3
