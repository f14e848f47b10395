"""Benchmarks that start processes of their own."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from helpers import forked

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a script of bench/ in this process, and forks what it starts; what it prints is returned."""
    threads = torch.get_num_threads()

    def run(script: str, *words: str) -> str:
        path = str(ROOT / "bench" / script)
        monkeypatch.setattr(sys, "argv", [path, *words])
        monkeypatch.setattr(subprocess, "Popen", forked.Popen)
        try:
            runpy.run_path(path, run_name="__main__")
        finally:
            torch.set_num_threads(threads)
        return capsys.readouterr().out

    return run
