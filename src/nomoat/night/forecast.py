"""The plan of a night: what it has to do, counted from its files, against what this machine can do."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from nomoat.engine.pace import Pace
from nomoat.model.load import count_parameters, read_shape
from nomoat.night.deadline import seconds_allowed
from nomoat.night.fidelity import PROMPTS as COMPARED_PROMPTS
from nomoat.night.fidelity import TOKENS as COMPARED_TOKENS
from nomoat.plan.cost import Prices, adapter_share
from nomoat.plan.planner import Capacity, Limits, Plan, Work, plan_night
from nomoat.plan.probe import MachineProfile
from nomoat.recipe import Budget, Recipe, Sft
from nomoat.train.run import COMPASS_TOKENS

COMPASS_TIMES = 11
"""Held-out losses of a training at its default `eval_steps`."""
READING_SHARE = 0.3
MOST_WRITTEN_PER_S = 300.0
"""However small the model, choosing and decoding a token takes a while."""


def prices_of(budget: Budget) -> Prices:
    """The recipe's prices."""
    return Prices(budget.price_dollars_per_hour, budget.price_dollars_per_kwh)


Trained = Literal["no", "begun", "done"]


def budget_left(budget: Budget, profile: MachineProfile, started: datetime) -> Limits:
    """What the budget still allows, now: the time and the money since `started` are spent."""
    elapsed_s = (datetime.now() - started).total_seconds()
    allowed_s = seconds_allowed(budget.until, budget.hours, started)
    spent = prices_of(budget).dollars(elapsed_s, elapsed_s * profile.watts)
    return Limits(
        None if allowed_s is None else allowed_s - elapsed_s,
        None if budget.dollars is None else budget.dollars - spent,
    )


def keeps_frozen(sft: Sft) -> bool:
    """Whether training keeps the frozen blocks' outputs on the disk."""
    adapts_the_top = sft.method == "lora" and sft.lora_layers is not None
    return adapts_the_top and sft.frozen_cache and sft.num_train_epochs > 1


def expected_pace(profile: MachineProfile, parameters: int) -> Pace:
    """How fast a file of a model may answer, before there is one: a token written reads all weights, at about a
    byte each, once; a token of a prompt takes two operations a weight, at a third of the matrix speed."""
    read = profile.cpu_gflops * 1e9 * READING_SHARE / (2.0 * parameters)
    return Pace(read, min(MOST_WRITTEN_PER_S, profile.cpu_bytes_per_s / parameters))


def plan_finetuning(
    recipe: Recipe,
    base: Path,
    data: dict[str, Any],
    prompts: int,
    profile: MachineProfile,
    started: datetime,
    *,
    trained: Trained,
    has_rival: bool,
    pace: Pace | None = None,
) -> Plan:
    """Forecast the stages after `data` (its report) and how long training may take.

    `trained` says how much of the training an earlier run has done: work that is there is never refused for
    lack of time, only finished sooner. `has_rival`: a champion will be asked the same prompts for the gate, or be
    measured on the held-out rows where there are none. `pace` is how fast the base's own file answers, once it was
    measured; a guess refuses nothing.
    """
    sft = recipe.sft
    assert sft is not None
    shape = read_shape(base)
    parameters = count_parameters(base)
    share = adapter_share(sft.lora_r, shape.width) if sft.method == "lora" else 1.0
    train_tokens = round(data["tokens"]["train"] * sft.num_train_epochs)
    if sft.max_steps is not None:
        train_tokens = min(train_tokens, sft.max_steps * sft.tokens_per_step)
    if trained == "done":
        train_tokens = 0
    held_out_tokens, held_out_rows = data["tokens"]["held_out"], max(1, data["rows"]["held_out"])
    top = min(1.0, sft.lora_layers / shape.layers) if sft.method == "lora" and sft.lora_layers else 1.0
    below_tokens = train_tokens
    if keeps_frozen(sft):
        below_tokens = min(train_tokens, data["tokens"]["train"])
    measured_tokens = round(held_out_tokens * min(1.0, recipe.evaluate.max_held_out_rows / held_out_rows))
    are_checked = bool(recipe.evaluate.prompts) or not recipe.data.train
    work = Work(
        parameters=parameters,
        trainable=round(parameters * share),
        frozen=sft.method == "lora",
        top=top,
        below_tokens=below_tokens,
        train_tokens=train_tokens,
        held_out_tokens=measured_tokens,
        compass_tokens=0 if trained == "done" else COMPASS_TIMES * min(held_out_tokens, COMPASS_TOKENS),
        prompts=prompts,
        prompt_tokens=round(held_out_tokens / held_out_rows),
        compared_prompts=COMPARED_PROMPTS,
        compared_tokens=COMPARED_TOKENS,
        max_new_tokens=recipe.evaluate.max_new_tokens,
        micro_batch_tokens=max(sft.micro_batch_tokens, sft.max_seq_len),
        width=shape.width,
        layers=shape.layers,
        vocabulary=shape.vocabulary,
        files=len(recipe.quantize.types) + 1,
        rival_prompts=prompts if has_rival and are_checked else 0,
        rival_tokens=measured_tokens if has_rival and not are_checked else 0,
    )
    may_refuse = trained == "no" and pace is not None
    pace = pace or expected_pace(profile, parameters)
    capacity = Capacity(
        gflops=profile.gflops,
        read_tokens_per_s=pace.read_tokens_per_s,
        write_tokens_per_s=pace.write_tokens_per_s,
        weight_bytes=2 if profile.dtype == "bfloat16" and sft.method == "lora" else 4,
        memory_bytes=profile.memory_bytes,
        watts=profile.watts,
    )
    limits = budget_left(recipe.budget, profile, started)
    return plan_night(work, capacity, prices_of(recipe.budget), limits, may_refuse=may_refuse)
