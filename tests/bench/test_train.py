"""The training benchmark: what it counts, when it says that curves differ, and a whole run on a miniature model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig

import nomoat
from training.cases import CASES, M, S, pass_flops
from training.figures import Curves, side_figures
from training.material import add_adapter
from training.process import Pass
from training.table import case_table

ASSETS = Path(nomoat.__file__).parent / "assets"
ROW_TOKENS = 40


@pytest.mark.parametrize("name", ["tiny-full", "tiny-lora"])
def test_the_flops_said_are_those_that_torch_counts(name: str) -> None:
    case = CASES[name]
    shape, length = case.shape, ROW_TOKENS
    model: Any = AutoModelForCausalLM.from_config(
        LlamaConfig(
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            intermediate_size=shape.intermediate,
            vocab_size=shape.vocabulary,
            tie_word_embeddings=True,
        ),
        attn_implementation="eager",
    )
    if case.lora:
        model = add_adapter(model, case)
    ids = torch.randint(shape.vocabulary, (1, length))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    counted = counter.get_total_flops()

    masked_half = 6 * shape.layers * shape.width * length**2  # eager attention computes it, too
    # nothing below the first block learns, so its first products send no gradient further back
    keys = shape.width // shape.heads * shape.kv_heads
    not_sent = 2 * length * shape.width * (shape.width + 2 * keys + 3 * case.lora_r) if case.lora else 0
    ours = pass_flops(case, np.array([length]), supervised=length)
    assert ours is not None
    assert counted == ours.everywhere + masked_half - not_sent
    assert ours.needed == ours.everywhere


def test_the_shapes_are_those_of_the_issue() -> None:
    assert (S.body + S.head, M.body + M.head) == (15_187_968, 134_479_872)
    assert M.adapter(16, layers=30) == 4_884_480


def test_fewer_supervised_tokens_need_less_of_what_follows_the_last_attention() -> None:
    weights, adapter = 288 * 288 + 3 * 288 * 768, 16 * (2 * 288 + 3 * (288 + 768))
    for name, a_token in (
        ("s-lora", 4 * (S.head + weights) + 6 * adapter),
        ("s-full", 6 * (S.head + weights)),
    ):
        flops = pass_flops(CASES[name], np.array([100, 50]), supervised=90)
        assert flops is not None
        assert flops.everywhere - flops.needed == a_token * (150 - 90)


def test_top_blocks_alone_have_no_share_of_the_peak() -> None:
    """Who keeps what the frozen blocks make has less to compute, so there is no one count of FLOPs."""
    case = CASES["m-top"]
    assert case.trainable == M.adapter(16, layers=6)
    flops = pass_flops(case, np.array([100, 50]), supervised=90)
    done = Pass(
        seconds=2.0, cpu_seconds=2.0, real_tokens=150, supervised_tokens=90, losses=[1.0], peak_bytes=10**9
    )
    figures = {
        "pass": {"rows": 2, "real_tokens": 150, "supervised_tokens": 90},
        "gemm_peak_flops_per_second": 1e11,
        "sides": {"nomoat": side_figures(done, [done], flops, 1e11)},
        "ratios": {},
    }
    title, _, row = case_table(case, figures).splitlines()[1:]
    assert "of LoRA on the top 6 blocks" in title
    assert row.split() == ["nomoat", "75", "45", "1.00", "GB", "–", "–"]


def test_curves_agree_within_the_tolerance_only() -> None:
    losses = {"one": [8.0, 7.0], "two": [8.0, 7.0 * (1 + 9e-5)]}
    assert Curves.of(losses, 1e-4).agree
    apart = Curves.of(losses | {"three": [8.0, 7.0 * (1 - 9e-5)]}, 1e-4)
    assert not apart.agree
    assert apart.at_step == 1
    assert "DIFFER" in apart.said()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_losses_that_are_no_numbers_never_agree(bad: float) -> None:
    assert not Curves.of({"one": [8.0, bad], "two": [8.0, bad]}, 1e-4).agree


def test_curves_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Curves.of({"one": [8.0, 7.0], "two": [8.0]}, 1e-4)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("trl") is None, reason="trl is not installed: pip install -e '.[dev]'")
def test_a_whole_run_on_a_miniature_model(bench: Callable[..., str], tmp_path: Path) -> None:
    words = ["--quick", "--case", "tiny-lora", "--threads", "1"]
    words += ["--data", str(ASSETS / "starter" / "train.jsonl"), "--tokenizer", str(ASSETS / "base")]
    assert "loss curves agree: 2 steps" in bench("train.py", *words, "--json", str(tmp_path / "out.json"))

    result = json.loads((tmp_path / "out.json").read_text())
    assert set(result["skipped"]) == {"llama-factory"}
    case = result["cases"]["tiny-lora"]
    sides = {"trl-default", "trl", "trainer", "nomoat"}
    assert set(case["sides"]) == set(case["settings"]) == set(case["curves"]["losses"]) == sides
    assert set(case["ratios"]) == sides - {"nomoat"}
    assert case["curves"]["agree"]
    assert all(len(losses) == 2 for losses in case["curves"]["losses"].values())
    assert len({round(losses[0], 3) for losses in case["curves"]["losses"].values()}) == 1

    done = case["pass"]
    assert done["rows"] == 32
    assert 0 < done["supervised_tokens"] < done["real_tokens"]
    for side, figures in case["sides"].items():
        (seconds,) = figures["seconds"]
        speed = figures["real_tokens_per_second"]
        assert speed["min"] == speed["median"] == speed["max"] == done["real_tokens"] / seconds, side
        share = done["flops"]["everywhere"] / seconds / case["gemm_peak_flops_per_second"]
        assert figures["mfu"] == pytest.approx(share), side
        assert 0 < figures["mfu_needed"] < figures["mfu"] < 1, side
        assert 1e8 < figures["peak_bytes"] < 1e10, side
    ours, theirs = case["sides"]["nomoat"], case["sides"]["trl"]
    assert case["ratios"]["trl"]["speed"]["median"] == theirs["seconds"][0] / ours["seconds"][0]
    assert case["ratios"]["trl"]["memory"] == ours["peak_bytes"] / theirs["peak_bytes"]
