"""The memory that a night's plan says, as the recipe's keys change it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from nomoat.model.bits import NF4_BYTES
from nomoat.model.load import count_parameters, read_shape, resolve_base
from nomoat.night.forecast import plan_finetuning, plan_pretraining_memory
from nomoat.plan.cost import adapter_share
from nomoat.plan.planner import Plan
from nomoat.plan.probe import MachineProfile
from nomoat.recipe import Pretrain, Recipe, Sft

ROOMY = MachineProfile(
    device="cpu",
    device_name="a processor",
    dtype="float32",
    threads=1,
    cores=1,
    memory_bytes=16 << 30,
    disk_free_bytes=16 << 30,
    gflops=100.0,
    cpu_gflops=100.0,
    cpu_bytes_per_s=1e10,
    watts=30.0,
    watts_said="30 W",
    energy_counter=None,
    python="3.11",
    torch="2",
    transformers="5",
)
DATA = {"tokens": {"train": 100_000, "held_out": 10_000}, "rows": {"train": 900, "held_out": 100}}
BASE = resolve_base("embedded", Path())


def plan(**sft: Any) -> Plan:
    recipe = Recipe(sft=Sft(**sft))
    return plan_finetuning(
        recipe, BASE, {"sft": DATA}, 10, ROOMY, datetime.now(), trained={"sft": "no"}, has_rival=False
    )


def test_four_bits_hold_the_blocks_alone() -> None:
    parameters, shape = count_parameters(BASE), read_shape(BASE)
    blocks = parameters - shape.vocabulary * shape.width
    saved = plan().memory_bytes - plan(load_in_4bit=True).memory_bytes
    assert saved == pytest.approx(blocks * (4.0 - NF4_BYTES))


def test_moments_in_eight_bits_are_counted_so() -> None:
    trained = round(count_parameters(BASE) * adapter_share(16, read_shape(BASE).width))
    for optim in ("adamw_8bit", "paged_adamw_8bit"):
        assert plan().memory_bytes - plan(optim=optim).memory_bytes == trained * (8.0 - 2.0 - 8 / 256)


def test_blocks_below_the_adapter_keep_nothing() -> None:
    layers, width = read_shape(BASE).layers, read_shape(BASE).width
    saved = plan().memory_bytes - plan(lora_layers=2).memory_bytes
    assert saved == 17 * 4 * 2048 * width * (layers - 2)


def test_a_base_from_scratch_is_counted_too() -> None:
    section = Pretrain(train=["text.jsonl"])
    asked = plan_pretraining_memory(section, ROOMY)
    assert (asked.gradient_checkpointing, asked.sentences) == ("auto", ())
    weights = 2048 * 256 + 6 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 768)
    activations, logits = 17 * 4 * 2048 * 256 * 6, 3 * 4 * 2048 * 2048
    assert asked.bytes == 16 * weights + activations + logits
    smaller = plan_pretraining_memory(section.model_copy(update={"optim": "adamw_8bit"}), ROOMY)
    assert asked.bytes - smaller.bytes == weights * (6.0 - 8 / 256)
