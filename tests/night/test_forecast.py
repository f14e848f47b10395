"""The memory that a night's plan says, as the recipe's keys change it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from nomoat.model import load
from nomoat.model.bits import NF4_BYTES
from nomoat.model.load import count_parameters, read_shape, resolve_base
from nomoat.night.forecast import expected_judgements, expected_pace, plan_finetuning, plan_pretraining_memory
from nomoat.plan.cost import adapter_share
from nomoat.plan.planner import FIXED_SECONDS, Plan
from nomoat.plan.probe import MachineProfile
from nomoat.recipe import Evaluate, Recipe
from nomoat.recipe_training import Prefer, Pretrain, Reinforce, RewardModel, Sft

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
    return plan_of(Recipe(sft=Sft(**sft)), {"sft": DATA})


def plan_of(recipe: Recipe, data: dict[str, Any], profile: MachineProfile = ROOMY, **keys: Any) -> Plan:
    return plan_finetuning(
        recipe,
        BASE,
        data,
        profile=profile,
        started=datetime.now(),
        trained=dict.fromkeys(data, "no"),
        **{"prompts": 10, "checked_prompts": 10, "has_rival": False, **keys},
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
    keys = {"micro_batch_tokens": 4096}
    saved = plan(**keys).memory_bytes - plan(**keys, lora_layers=2).memory_bytes
    assert saved == 17 * 4 * 4096 * width * (layers - 2)


def test_logits_are_counted_as_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """512 rows at a time, so that more tokens take no more of them; all at once by a model that makes its own; and none
    by a reward model."""
    vocabulary, keys = read_shape(BASE).vocabulary, {"micro_batch_tokens": 4096}
    in_pieces = plan(**keys).memory_bytes
    monkeypatch.setattr(load, "PLAIN_OUTPUT", set())
    assert plan(**keys).memory_bytes - in_pieces == 3 * 4 * (4096 - 512) * vocabulary
    recipe = Recipe(sft=Sft(micro_batch_tokens=512), reward=RewardModel(**keys))
    largest = plan_of(recipe, {"sft": DATA, "reward": DATA}).memory_bytes
    assert largest == in_pieces - 3 * 4 * 512 * vocabulary


def test_an_output_layer_that_learns_needs_room_beside_it() -> None:
    shape, parameters = read_shape(BASE), count_parameters(BASE)
    adapter = round(parameters * adapter_share(16, shape.width))
    keys = {"micro_batch_tokens": 2048}
    more = plan(**keys, method="full").memory_bytes - plan(**keys).memory_bytes
    assert more == (parameters - adapter) * 12.0 + 6 * shape.vocabulary * shape.width


def test_a_base_from_scratch_is_counted_too() -> None:
    section = Pretrain(train=["text.jsonl"])
    asked = plan_pretraining_memory(section, ROOMY)
    assert (asked.gradient_checkpointing, asked.sentences) == ("auto", ())
    weights = 2048 * 256 + 6 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 768)
    activations, logits = 17 * 4 * 2048 * 256 * 6, 3 * 4 * 512 * 2048
    assert asked.bytes == 16 * weights + 6 * 2048 * 256 + activations + logits
    smaller = plan_pretraining_memory(section.model_copy(update={"optim": "adamw_8bit"}), ROOMY)
    assert asked.bytes - smaller.bytes == weights * (6.0 - 8 / 256)


def test_each_stage_that_trains_is_told_whether_to_compute_blocks_twice() -> None:
    recipe = Recipe(
        sft=Sft(gradient_checkpointing=False),
        prefer=Prefer(prompts=["asked.jsonl"]),
        reinforce=Reinforce(prompts=["asked.jsonl"]),
    )
    data = {"sft": DATA, "prefer": DATA, "reinforce": DATA}
    kept = plan_of(recipe, data)
    assert kept.gradient_checkpointing == {"sft": False, "prefer": "auto", "reinforce": "auto"}
    small = replace(ROOMY, memory_bytes=round(kept.memory_bytes / 4))
    told = plan_of(recipe, data, small).gradient_checkpointing
    assert told == {"sft": False, "prefer": True, "reinforce": True}


def test_answers_to_learn_from_and_the_champions_are_counted() -> None:
    recipe = Recipe(
        sft=Sft(),
        prefer=Prefer(prompts=["asked.jsonl"], max_new_tokens=100),
        evaluate=Evaluate(prompts=["mine.jsonl"]),
    )
    data = {"sft": DATA, "prefer": expected_judgements(recipe, 50)}
    without, both = plan_of(recipe, data), plan_of(recipe, data, has_rival=True, drawn_answers=200)
    kinds = ["sft", "prefer", "merge", "quantize", "evaluate"]
    assert [stage.kind for stage in without.stages] == kinds
    assert [stage.kind for stage in both.stages] == ["sft", "prefer", "sample", *kinds[2:], "gate"]
    seconds = {stage.kind: stage.seconds for stage in both.stages}
    pace = expected_pace(ROOMY, count_parameters(BASE))
    # a prompt is 100 tokens long in the mean; answers are half as long as they may be
    assert seconds["sample"] == pytest.approx(
        200 * (100 / pace.read_tokens_per_s + 50 / pace.write_tokens_per_s)
    )


def test_prompts_without_checks_leave_the_gate_to_read_rows() -> None:
    recipe = Recipe(sft=Sft(), evaluate=Evaluate(prompts=["mine.jsonl"]))
    pace = expected_pace(ROOMY, count_parameters(BASE))

    def gate_seconds(**keys: Any) -> float:
        return sum(
            stage.seconds for stage in plan_of(recipe, {"sft": DATA}, **keys).stages if stage.kind == "gate"
        )

    rows = gate_seconds(checked_prompts=0)
    assert rows == gate_seconds(checked_prompts=0, has_rival=True)
    assert rows == pytest.approx(
        FIXED_SECONDS + 2 * 5_000 / pace.read_tokens_per_s
    )  # two files read the half of the held-out rows that did not steer training
    assert gate_seconds(checked_prompts=4) == 0  # what the base passes is known by then
    four, ten = (gate_seconds(checked_prompts=n, has_rival=True) for n in (4, 10))
    assert four - FIXED_SECONDS == pytest.approx(0.4 * (ten - FIXED_SECONDS))
