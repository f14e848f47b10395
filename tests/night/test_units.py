"""Units as people read them."""

from __future__ import annotations

import pytest

from nomoat.night.units import dollars, duration, energy, size


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (duration(0.04), "0.0 s"),
        (duration(12.4), "12 s"),
        (duration(390), "6 min 30 s"),
        (duration(3600), "1 h"),
        (duration(23_400), "6 h 30 min"),
        (duration(183_600), "2 d 3 h"),
        (size(1), "1 byte"),
        (size(980), "980 bytes"),
        (size(14_230_000), "14.2 MB"),
        (size(3.2e13), "32.0 TB"),
        (energy(1260), "0.35 Wh"),
        (energy(44_640), "12.4 Wh"),
        (energy(4_320_000), "1.20 kWh"),
        (dollars(0), "$0"),
        (dollars(0.002), "less than $0.01"),
        (dollars(1.25), "$1.25"),
        (dollars(1250), "$1,250"),
    ],
)
def test_units_as_people_read_them(shown: str, expected: str) -> None:
    assert shown == expected
