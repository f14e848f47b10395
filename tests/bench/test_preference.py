"""The benchmark of learning from pairs: a whole run on a miniature model."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import nomoat
from helpers import forked
from nomoat.model.load import choose_machine

ROOT = Path(__file__).parents[2]
ASSETS = Path(nomoat.__file__).parent / "assets"
PAIRS = 40


@pytest.mark.slow
@pytest.mark.skipif(find_spec("trl") is None, reason="trl is not installed: pip install -e '.[dev]'")
def test_a_whole_run_on_a_miniature_model(bench: Callable[..., str], tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"Tell me of the {n}th boat.",
            "chosen": f"It was red, {n} yards long.",
            "rejected": "No! " * 9,
        }
        for n in range(60)
    ]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ["--case", "tiny-dpo", "--threads", "1", "--rows", str(PAIRS), "--rounds", "1", "--steps", "2"]
    words += ["--side", "trl-dpo", "nomoat", "--data", str(data), "--tokenizer", str(ASSETS / "base")]
    bench("preference.py", *words, "--json", str(tmp_path / "out.json"))

    case = json.loads((tmp_path / "out.json").read_text())["cases"]["tiny-dpo"]
    assert case["curves"]["agree"]
    losses = case["curves"]["losses"]
    assert losses["nomoat"][0] == pytest.approx(0.6931, abs=1e-3), "nothing is learned before the first step"
    exact = choose_machine().dtype == torch.float32
    assert losses["nomoat"] == pytest.approx(losses["trl-dpo"], rel=1e-4 if exact else 2e-3)
    assert case["pass"]["rows"] == 2 * PAIRS, "every answer is a row"
    assert 0 < case["pass"]["supervised_tokens"] < case["pass"]["real_tokens"]
    ours, theirs = (case["sides"][side] for side in ("nomoat", "trl-dpo"))
    assert case["ratios"]["trl-dpo"]["speed"]["median"] == theirs["seconds"][0] / ours["seconds"][0]


def test_without_pairs_at_hand_it_asks_for_some(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "bench/preference.py",
        "--case",
        "tiny-dpo",
        "--data",
        str(tmp_path / "gone.jsonl"),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    run = forked.run(command, cwd=ROOT, env=environment, timeout=300)
    assert run.returncode == 2
    assert "error: tiny-dpo: there is no " in run.stderr
    assert run.stderr.endswith("gone.jsonl; give rows with --data\n")
