"""The GPU benchmark: the sizes it speaks of, a whole run on a miniature model, and what it says where it cannot run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import nomoat
from gpu import Figures
from helpers import forked
from training.cases import B1, B8, B13, Shape, pass_flops
from training.cases import CASES as CASES_OF_TRAINING
from training.material import sources

ROOT = Path(__file__).parents[2]
ASSETS = Path(nomoat.__file__).parent / "assets"
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what is said without a GPU")


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "bench/gpu.py", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return forked.run(command, cwd=ROOT, env=environment, timeout=300)


@pytest.mark.parametrize(("shape", "billions"), [(B1, 1.236), (B8, 8.030), (B13, 13.016)])
def test_the_models_are_as_large_as_they_are_called(shape: Shape, billions: float) -> None:
    """Without norms; where the embeddings are not the output layer they are as large again."""
    assert shape.body + shape.head * (1 if shape.tied else 2) == pytest.approx(billions * 1e9, rel=1e-3)
    assert (B13.layers, B13.width) == (40, 5120)


def test_each_shape_gets_rows_that_it_has_ids_for() -> None:
    tiny, largest = CASES_OF_TRAINING["tiny-lora"], CASES_OF_TRAINING["13b-lora"]
    assert sources(tiny, None, None) == (ASSETS / "starter" / "train.jsonl", ASSETS / "base")
    given = Path("rows.jsonl"), Path("tokenizer")
    assert sources(largest, *given) == given


def test_what_is_said_of_a_case() -> None:
    figures = Figures(
        case="13b-lora",
        data="alpaca.jsonl",
        mean_row_tokens=100.0,
        parameters=13_015_864_320,
        steps=21,
        real_tokens=170_000,
        seconds=34.0,
        tokens_per_second=5000.0,
        gemm_peak_flops_per_second=7e14,
        mfu=0.41,
        mfu_needed=0.4,
        peak_bytes=40 * 10**9,
        recomputed=True,
        events=["step 0: out of memory"],
        minutes=52.0,
        dollars=2.6,
    )
    assert figures.said().splitlines() == [
        "13b-lora: 13.02B weights; 170,000 tokens in 21 steps; GEMM peak 700.00 TFLOP/s",
        "  5,000 real tokens/s, MFU 41%, (b) 40%, peak memory 40.00 GB, blocks computed twice",
        "  3 epochs of 52,002 rows of 100 tokens: 52.0 minutes, 2.60 dollars",
        "  step 0: out of memory",
    ]
    assert "dollars" not in replace(figures, dollars=None).said()


@pytest.mark.slow
def test_a_whole_run_on_a_miniature_model(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    run = bench(
        *("--case", "tiny", "--steps", "5", "--warm-up", "2", "--rows", "60", "--tokens-per-step", "1024"),
        *("--micro-batch-tokens", "1024", "--price-per-hour", "3", "--json", str(out)),
    )
    assert run.returncode == 0, run.stderr[-2000:]
    (found,) = json.loads(out.read_text())["cases"]
    assert found["steps"] == 2
    assert found["tokens_per_second"] == found["real_tokens"] / found["seconds"]
    assert 1024 < found["real_tokens"] <= 2048
    whole = 3 * 52_002 * found["mean_row_tokens"]
    assert found["minutes"] == pytest.approx(whole / found["tokens_per_second"] / 60)
    assert found["dollars"] == pytest.approx(found["minutes"] / 60 * 3)
    assert f"{found['minutes']:,.1f} minutes, {found['dollars']:.2f} dollars" in run.stdout
    rows = np.array([found["real_tokens"]])  # one long row costs more than many short ones
    at_most = pass_flops(CASES_OF_TRAINING["tiny-lora"], rows, int(rows[0]))
    assert at_most is not None
    share = at_most.everywhere / found["seconds"] / found["gemm_peak_flops_per_second"]
    assert 0 < found["mfu_needed"] < found["mfu"] < share


@pytest.mark.slow
@no_gpu
def test_without_a_gpu_it_says_so() -> None:
    assert bench().stdout == "not run: there is no GPU here (--case tiny tries the bench)\n"
    refused = bench("--case", "13b")
    assert refused.returncode == 2
    assert refused.stderr.endswith("error: there is no GPU here; only --case tiny runs\n")
    short = bench("--case", "tiny", "--steps", "3", "--warm-up", "2")
    assert "expected a step of warm-up at least, and two more steps" in short.stderr
