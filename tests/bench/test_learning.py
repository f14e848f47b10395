"""The benchmark of learning from judgements: fresh prompts, the interval, and a whole run on few steps."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from helpers import forked
from learned.fresh import fresh_prompts
from learned.stages import Run
from learning import difference

ROOT = Path(__file__).parents[2]


def test_fresh_prompts_are_the_same_every_time_and_apart_from_each_other() -> None:
    rows = fresh_prompts(12)  # asserts by itself that they are apart from all that ships
    assert len({row.combination for row in rows}) == 12
    assert rows == fresh_prompts(12)


def test_the_difference_takes_a_prompt_and_all_its_seeds_as_one_observation() -> None:
    draws = np.random.default_rng(0)
    sft = draws.random(400) < 0.4
    better = draws.random(400) < 0.6
    one, three = (
        difference(sft.tolist(), [Run("m", s, passed=better.tolist()) for s in range(n)]) for n in (1, 3)
    )
    assert one == three, "the same answers three times say no more than once"
    gap_N = better.astype(float) - sft
    half = stats.t.ppf(0.975, 399) * gap_N.std(ddof=1) / 20
    assert (one.low, one.high) == pytest.approx((gap_N.mean() - half, gap_N.mean() + half), abs=0.01)


@pytest.mark.slow
def test_a_whole_run_on_few_steps_is_found_again(tmp_path: Path) -> None:
    asked = tmp_path / "asked.jsonl"
    rows = [
        {
            "messages": [{"role": "user", "content": f"Story {n}."}],
            "checks": [{"kind": "includes", "words": ["the"]}],
        }
        for n in range(8)
    ]
    asked.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ["data.held_out=0.4", "sft.max_steps=2", f"reinforce.prompts={asked}", "reinforce.max_steps=8"]
    words += ["reinforce.max_new_tokens=12", "reinforce.num_generations=2", "reinforce.tokens_per_step=64"]
    words += ["reinforce.max_seq_len=64", "reinforce.num_train_epochs=12", "evaluate.max_prompts=2"]
    words += ["evaluate.max_new_tokens=8", "evaluate.max_held_out_rows=4", "quantize.types=[Q8_0]"]
    out, plot = tmp_path / "out.json", tmp_path / "plot.png"
    command = [sys.executable, "bench/learning.py", "--workspace", str(tmp_path / "work"), "--prompts", "4"]
    command += ["--method", "grpo", "--seeds", "1", "--set", *words]
    command += ["--json", str(out), "--plot", str(plot)]
    said = []
    for _ in range(2):
        run = forked.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, timeout=600)
        assert run.returncode == 0, run.stderr[-2000:]
        said.append(json.loads(out.read_text())["methods"])
    first, again = (found["grpo"]["runs"][0] for found in said)
    assert first["points"] == again["points"], "what was done is not done again"
    steps = [point["step"] for point in first["points"]]
    assert steps == [3, 5, 7, 8], (
        "a training is stopped in the step after a quarter, a half and three quarters"
    )
    assert len(first["passed"]) == 4
    assert plot.read_bytes().startswith(b"\x89PNG")
