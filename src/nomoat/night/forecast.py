"""The plan of a night: what it has to do, counted from its files, against what this machine can do."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from nomoat.model.load import read_shape
from nomoat.night.deadline import seconds_allowed
from nomoat.plan.cost import Prices
from nomoat.plan.planner import Capacity, Limits, Plan, Work, plan_night
from nomoat.plan.probe import MachineProfile
from nomoat.recipe import Budget, Recipe


def prices_of(budget: Budget) -> Prices:
    """The recipe's prices."""
    return Prices(budget.price_dollars_per_hour, budget.price_dollars_per_kwh)


def count_parameters(folder: Path) -> int:
    """Numbers in the safetensors of a model folder, from their headers alone."""
    from safetensors import safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                size = 1
                for side in file.get_slice(name).get_shape():
                    size *= side
                total += size
    return total


def plan_finetuning(
    recipe: Recipe, base: Path, data: dict[str, Any], prompts: int, profile: MachineProfile, started: datetime
) -> Plan:
    """Forecast the stages after `data` (its report) and how long training may take."""
    sft = recipe.sft
    assert sft is not None
    shape = read_shape(base)
    parameters = count_parameters(base)
    # an adapter on a square layer of width w has 2·r·w numbers; a decoder has about 12 w² a layer
    share = min(1.0, 2.0 * sft.lora_r / shape.width) if sft.method == "lora" else 1.0
    train_tokens = round(data["tokens"]["train"] * sft.num_train_epochs)
    if sft.max_steps is not None:
        train_tokens = min(train_tokens, sft.max_steps * sft.tokens_per_step)
    work = Work(
        parameters=parameters,
        trainable=round(parameters * share),
        frozen=sft.method == "lora",
        train_tokens=train_tokens,
        held_out_tokens=data["tokens"]["held_out"],
        prompts=prompts,
        max_new_tokens=recipe.evaluate.max_new_tokens,
        micro_batch_tokens=sft.micro_batch_tokens,
        width=shape.width,
        layers=shape.layers,
        vocabulary=shape.vocabulary,
        files=len(recipe.quantize.types) + 1,
    )
    capacity = Capacity(
        gflops=profile.gflops,
        weight_bytes=2 if profile.dtype == "bfloat16" and sft.method == "lora" else 4,
        memory_bytes=profile.memory_bytes,
        watts=profile.watts,
    )
    budget = recipe.budget
    allowed = seconds_allowed(budget.until, budget.hours, started)
    elapsed = (datetime.now() - started).total_seconds()
    limits = Limits(None if allowed is None else allowed - elapsed, budget.dollars)
    return plan_night(work, capacity, prices_of(budget), limits)
