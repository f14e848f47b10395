"""The gate's simulation: what it must show, on fewer owners than the benchmark has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gate import look, simulate
from nights import LUCK, month

SETTINGS = {"owners": 1000, "looks": 50, "every": 10, "alpha": 0.05, "seed": 1}


@pytest.mark.parametrize("ties", [0.0, 0.3])
def test_looking_often_misleads_a_fixed_test_and_not_the_gate(ties: float) -> None:
    rows = {(row.test, row.rate): row for row in simulate(ties=ties, **SETTINGS)}
    assert rows["e-value", 0.5].promoted <= 0.05
    assert rows["fixed-n", 0.5].promoted > 0.15
    power = [rows["e-value", rate].promoted for rate in (0.5, 0.55, 0.6, 0.7)]
    assert power == sorted(power)
    assert power[-1] > 0.99
    votes = [rows["e-value", rate].votes for rate in (0.55, 0.6, 0.7)]
    assert votes == sorted(votes, reverse=True)


def test_an_owner_sees_every_vote_once_and_looks_at_all_of_them() -> None:
    seen = look(5, 7, 10, 0.6, 0.3, 3)
    assert seen.sum(axis=0).tolist() == [[10 * n for n in range(1, 8)]] * 5
    assert (np.diff(seen, axis=2) >= 0).all()


def test_game_testings_ratio_test_is_nearly_walds_and_both_end_where_the_champion_stays() -> None:
    """Without ties, and with the alternative that both take at 50% and 55%: the votes are coins, of which the ratio
    with the likeliest distributions is Wald's own."""
    rows = {(row.test, row.rate): row for row in simulate(ties=0.0, **SETTINGS)}
    for rate in (0.5, 0.55):
        generalised, wald = rows["gsprt", rate], rows["wald", rate]
        assert generalised.promoted == pytest.approx(wald.promoted, abs=0.01)
        assert generalised.votes == pytest.approx(wald.votes, rel=0.02)
    assert rows["gsprt", 0.5].votes < rows["e-value", 0.5].votes, "the gate never gives a challenger up"


def test_it_runs_and_writes_its_figures(bench: Callable[..., str], tmp_path: Path) -> None:
    said = bench("gate.py", "--owners=20", "--looks=5", f"--json={tmp_path / 'g'}")
    assert "20 owners, a look after every 10 votes, 5 looks, α = 0.05" in said
    assert len(json.loads((tmp_path / "g").read_text())["rows"]) == 16


def test_a_month_of_nights_never_loses_by_the_gate_what_promoting_everything_loses(
    bench: Callable[..., str], tmp_path: Path
) -> None:
    rows = {
        (luck, votes): month(luck, votes, owners=500, nights=30, alpha=0.05, seed=1)
        for luck in LUCK
        for votes in (30, 300)
    }
    assert all(row.no_better <= 0.05 for row in rows.values())
    assert rows["none", 300].misled > 0.05, "the promise is for each generation, not for the month"
    assert rows["worse", 300].always < -500
    assert rows["worse", 300].points > rows["worse", 30].points > 0
    more = rows["better", 300].better
    assert more is not None
    assert more > 0.2
    said = bench("nights.py", "--owners=20", "--nights=3", "--votes", "30", f"--json={tmp_path / 'n'}")
    assert "20 owners of 3 nights each, alpha 0.05" in said
    assert len(json.loads((tmp_path / "n").read_text())["rows"]) == 3
