"""Numbers as people read them."""

from __future__ import annotations

import time

import pytest

from nomoat.cli.units import count, dollars, duration, energy, local_time, one_line, share, size


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (390, "6 min 30 s"),
        (3599.7, "1 h"),
        (23400, "6 h 30 min"),
        (86399, "24 h"),
        (183600, "2 d 3 h"),
    ],
)
def test_duration(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [(1, "1 byte"), (980, "980 bytes"), (1000, "1.0 kB"), (14_200_000, "14.2 MB"), (999_600, "1.0 MB")],
)
def test_size(number: float, said: str) -> None:
    assert size(number) == said


def test_money_and_energy() -> None:
    assert [dollars(x) for x in (0, 0.004, 1.25, 1250.4)] == ["$0", "less than $0.01", "$1.25", "$1,250"]
    assert [energy(x) for x in (1260, 44_640, 4_320_000)] == ["0.35 Wh", "12.4 Wh", "1.20 kWh"]


def test_counts_and_shares() -> None:
    assert [count(n, "row") for n in (0, 1, 1204)] == ["0 rows", "1 row", "1,204 rows"]
    assert count(2, "entry", "entries") == "2 entries"
    assert [share(x) for x in (0, 0.004, 0.42, 1)] == ["0%", "0.4%", "42%", "100%"]


def test_moments_are_told_on_this_machines_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Vienna")
    time.tzset()
    try:
        assert local_time("2026-05-01T22:14:03.120Z") == "2026-05-02 00:14"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_one_line() -> None:
    assert one_line("a\n  b", 10) == "a b"
    assert one_line("abcdefghijk", 10) == "abcdefghi…"
