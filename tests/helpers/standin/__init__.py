"""What makes `python -m vllm...` start the stand-in for vLLM that lies here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

STANDIN = Path(__file__).parent
_SOURCE = STANDIN.parents[2] / "src"


def environment(place: Path) -> dict[str, str]:
    """Variables of a process whose vLLM is the stand-in, which leaves what it was asked in `place`."""
    paths = os.pathsep.join([str(STANDIN), str(_SOURCE)])
    return {"PYTHONPATH": paths, "STANDIN_DIR": str(place), "OMP_NUM_THREADS": "1"}


@contextmanager
def standing_in(place: Path) -> Iterator[Path]:
    """The same for what this process starts meanwhile; gives `place`."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(place).items():
            patch.setenv(name, value)
        yield place
