"""Nights on real input: a model trained elsewhere, and instructions that people wrote."""

from __future__ import annotations

import gzip
from itertools import islice
from pathlib import Path

import pytest

from helpers import stories260k
from helpers.nights import last_night, run
from nomoat.chat.conversation import Conversation, Message
from nomoat.engine.base import Sampling
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.night.sources import STARTER

pytestmark = pytest.mark.slow


def test_a_model_trained_elsewhere_goes_through_a_night_and_answers(
    shared_data: Path, tmp_path: Path
) -> None:
    base = stories260k.build(tmp_path / "base", shared_data.parent)
    with (STARTER / "train.jsonl").open(encoding="utf-8") as lines:
        (tmp_path / "rows.jsonl").write_text("".join(islice(lines, 60)), encoding="utf-8")
    summary = run(
        tmp_path, f"base={base}", f"data.train={tmp_path / 'rows.jsonl'}", "sft.max_seq_len=512",
        "sft.tokens_per_step=2048", "sft.max_steps=12", "sft.num_train_epochs=4", "sft.eval_steps=6",
        "quantize.types=[F16,Q8_0,Q4_K_M]",
    )  # fmt: skip
    assert last_night(tmp_path)[0].status == "done"
    assert summary.data_reports[0]["template"]["origin"] == "default"  # this tokenizer has no chat template
    assert summary.trainings[0].facts["best_loss"] < summary.trainings[0].facts["first_loss"]
    fidelity = {row["type"]: row for row in summary.fidelity}
    assert fidelity["F16"]["same_greedy_share"] == 1.0
    assert fidelity["Q8_0"]["same_top_share"] > 0.95
    ask = Conversation((Message("user", "A story about a dog."),))
    with LlamaCppEngine(
        tmp_path / summary.served_file, tokenizer_dir=tmp_path / summary.model_path
    ) as engine:
        (answer,) = engine.generate([ask], Sampling(max_new_tokens=48))
        assert "".join(engine.stream(ask, Sampling(max_new_tokens=48))) == answer.text
    words = answer.text.split()
    assert len(words) > 10
    assert sum(word.strip('.,!"').isalpha() for word in words) > 0.9 * len(words), answer.text


def test_two_thousand_real_instructions_lower_the_held_out_loss(shared_data: Path, tmp_path: Path) -> None:
    rows = tmp_path / "alpaca.jsonl"
    source = shared_data / "alpaca" / "alpaca_random_sample.jsonl.gz"
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        rows.write_text("".join(islice(lines, 2000)), encoding="utf-8")
    summary = run(
        tmp_path, "base=embedded", f"data.train={rows}", "sft.max_seq_len=512", "sft.tokens_per_step=2048",
        "sft.max_steps=15", "sft.eval_steps=15", "data.held_out=0.02", "evaluate.samples=2",
        "evaluate.max_new_tokens=48", "quantize.types=[F16]",
    )  # fmt: skip
    assert last_night(tmp_path)[0].status == "done"
    counts = summary.data_reports[0]["rows"]
    assert counts["read"] == 2000
    assert (
        sum(counts[key] for key in ("train", "held_out", "bad", "cut_to_nothing", "without_answer")) == 2000
    )
    assert summary.trainings[0].facts["best_loss"] < summary.trainings[0].facts["first_loss"] - 0.2
    (loss,) = summary.comparison.metrics
    assert loss.difference.high < 0
    assert summary.comparison.verdict == "better"
    assert summary.fidelity[0]["same_top_share"] >= 0.98
