"""The plan of a night: what it has to do, counted from its files, against what this machine can do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import torch

from nomoat.engine.pace import Pace
from nomoat.model.bits import NF4_BYTES
from nomoat.model.fused.output import logits_at_once
from nomoat.model.load import Machine, Shape, count_parameters, count_vocabulary, read_shape
from nomoat.night.deadline import seconds_allowed
from nomoat.night.fidelity import PROMPTS as COMPARED_PROMPTS
from nomoat.night.fidelity import TOKENS as COMPARED_TOKENS
from nomoat.night.gate import MOST_ROWS as GATE_ROWS
from nomoat.night.recipes import adapter_keys, micro_batch_tokens, preference_keys, reward_adapter
from nomoat.plan.cost import MOMENT_BYTES, Prices, adapter_share
from nomoat.plan.memory import MemoryPlan, StepSize, plan_memory
from nomoat.plan.planner import Capacity, Limits, Plan, Training, Work, plan_night
from nomoat.plan.probe import MachineProfile
from nomoat.recipe import Budget, Recipe
from nomoat.recipe_training import Optimiser, Prefer, Pretrain, Reinforce, Sft
from nomoat.train.reinforce import HELD_OUT_PROMPTS
from nomoat.train.run import COMPASS_TOKENS

COMPASS_TIMES = 11
"""Held-out losses of a training at its default `eval_steps`."""
JUDGING_SHARE = 0.5
"""Of the held-out rows, by `steering_and_judging`; the others are read for the held-out losses of a training."""
READING_SHARE = 0.3
SAMPLED_READS = 4
"""Writing a token reads all weights for the few rows of a batch: about so many times slower than reading one."""
GRADIENT_BYTES, OUTPUT_BYTES = 4.0, 6.0
"""Of a trained number its gradient; of one in an output layer that learns what is beside that for a while: the number
rounded for its products, and what is about to be added to its gradient."""
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


def _number_bytes(adapter: Mapping[str, Any], profile: MachineProfile) -> int:
    """Of frozen weights, and of what blocks keep for backward."""
    return 2 if _machine(profile).bf16 and adapter["method"] == "lora" else 4


def _weights_bytes(
    adapter: Mapping[str, Any], base: Path, parameters: int, vocabulary: int, profile: MachineProfile
) -> float:
    """The base as training holds it."""
    number = _number_bytes(adapter, profile)
    whole = (  # NF4 is for blocks alone
        count_vocabulary(base, vocabulary) if adapter["load_in_4bit"] else parameters
    )
    return number * whole + NF4_BYTES * (parameters - whole)


def _output(
    kind: str, adapter: Mapping[str, Any], shape: Shape, tokens: int, number_bytes: int
) -> tuple[int, float]:
    """Logits that are there at once, and bytes beside an output layer that learns; a reward model has neither."""
    if kind == "reward":
        return 0, 0.0
    at_once = logits_at_once(tokens, shape.vocabulary, number_bytes)
    logits = at_once if shape.plain_output else tokens * shape.vocabulary
    return logits, OUTPUT_BYTES * shape.vocabulary * shape.width if adapter["method"] == "full" else 0.0


def plan_pretraining_memory(section: Pretrain, profile: MachineProfile) -> MemoryPlan:
    """What training a base from scratch takes; all of its weights learn, held in float32."""
    keys = section.hidden_size * section.num_key_value_heads // section.num_attention_heads
    block = section.hidden_size * (2 * section.hidden_size + 2 * keys + 3 * section.intermediate_size)
    parameters = section.vocab_size * section.hidden_size + section.num_hidden_layers * block
    tokens = micro_batch_tokens(section, _machine(profile), "full")
    step = StepSize(
        weights_bytes=4.0 * parameters + OUTPUT_BYTES * section.vocab_size * section.hidden_size,
        trainable=parameters,
        trained_bytes=GRADIENT_BYTES + MOMENT_BYTES[section.optim],
        micro_batch_tokens=tokens,
        width=section.hidden_size,
        layers=section.num_hidden_layers,
        logits=logits_at_once(tokens, section.vocab_size, 4),
    )
    return plan_memory(step, section.gradient_checkpointing, profile.memory_bytes)


def expected_pace(profile: MachineProfile, parameters: int) -> Pace:
    """How fast a file of a model may answer, before there is one: a token written reads all weights, at about a
    byte each, once; a token of a prompt takes two operations a weight, at a third of the matrix speed."""
    read = profile.cpu_gflops * 1e9 * READING_SHARE / (2.0 * parameters)
    return Pace(read, min(MOST_WRITTEN_PER_S, profile.cpu_bytes_per_s / parameters))


def plan_finetuning(
    recipe: Recipe,
    base: Path,
    data: dict[str, dict[str, Any]],
    *,
    prompts: int,
    checked_prompts: int,
    profile: MachineProfile,
    started: datetime,
    trained: Mapping[str, Trained],
    has_rival: bool,
    pace: Pace | None = None,
    drawn_answers: int = 0,
) -> Plan:
    """Forecast the stages after those that read `data`, and how long training may take. `data` holds the reports of
    these by the stage that learns from them, in the order of training.

    `trained` says of each of these how much of it an earlier run has done: work that is there is never refused for
    lack of time, only finished sooner. `checked_prompts` of the prompts have checks; `has_rival`: a champion will be
    asked these for the gate. Where there are none, two files read held-out rows for it. `pace` is how fast the base's
    own file answers, once it was measured; a guess refuses nothing. So many `drawn_answers` are yet to be written, for
    `prefer` to learn from.
    """
    adapters = {kind: reward_adapter(recipe) if kind == "reward" else adapter_keys(recipe) for kind in data}
    shape, parameters = read_shape(base), count_parameters(base)
    evaluated = next(report for kind, report in data.items() if kind != "reward")
    held_out_tokens, held_out_rows = evaluated["tokens"]["held_out"], max(1, evaluated["rows"]["held_out"])
    measured_share = min(JUDGING_SHARE, recipe.evaluate.max_held_out_rows / held_out_rows)
    measured_tokens = round(held_out_tokens * measured_share)
    gate_share = min(JUDGING_SHARE, min(recipe.evaluate.max_held_out_rows, GATE_ROWS) / held_out_rows)

    def training(kind: str, report: dict[str, Any]) -> Training:
        section, adapter = getattr(recipe, kind), adapters[kind]
        is_adapter = adapter["method"] == "lora"
        share = adapter_share(adapter["lora_r"], shape.width) if is_adapter else 1.0
        top = (
            min(1.0, adapter["lora_layers"] / shape.layers) if is_adapter and adapter["lora_layers"] else 1.0
        )
        tokens = micro_batch_tokens(section, _machine(profile), adapter["method"])
        number = _number_bytes(adapter, profile)
        logits, beside_output = _output(kind, adapter, shape, tokens, number)
        weights = _weights_bytes(adapter, base, parameters, shape.vocabulary, profile)
        return Training(
            kind=kind,
            frozen=is_adapter,
            top=top,
            step=StepSize(
                weights_bytes=weights + beside_output,
                trainable=round(parameters * share),
                trained_bytes=GRADIENT_BYTES + MOMENT_BYTES[section.optim],
                micro_batch_tokens=tokens,
                width=shape.width,
                layers=math.ceil(top * shape.layers),
                logits=logits,
                number_bytes=number,
            ),
            gradient_checkpointing=section.gradient_checkpointing,
            **_tokens_read(section, report, is_done=trained[kind] == "done"),
        )

    work = Work(
        parameters=parameters,
        trainings=tuple(training(kind, report) for kind, report in data.items()),
        held_out_tokens=measured_tokens,
        prompts=prompts,
        prompt_tokens=round(held_out_tokens / held_out_rows),
        compared_prompts=COMPARED_PROMPTS,
        compared_tokens=COMPARED_TOKENS,
        max_new_tokens=recipe.evaluate.max_new_tokens,
        files=len(recipe.quantize.types) + 1,
        drawn_answers=drawn_answers,
        drawn_tokens=recipe.prefer.max_new_tokens if recipe.prefer else 0,
        rival_prompts=checked_prompts if has_rival else 0,
        gate_tokens=0 if checked_prompts else 2 * round(held_out_tokens * gate_share),
    )
    may_refuse = set(trained.values()) == {"no"} and pace is not None
    pace = pace or expected_pace(profile, parameters)
    capacity = Capacity(
        gflops=profile.gflops,
        read_tokens_per_s=pace.read_tokens_per_s,
        write_tokens_per_s=pace.write_tokens_per_s,
        memory_bytes=profile.memory_bytes,
        watts=profile.watts,
    )
    limits = budget_left(recipe.budget, profile, started)
    return plan_night(work, capacity, prices_of(recipe.budget), limits, may_refuse=may_refuse)


def _tokens_read(section: Optimiser, report: dict[str, Any], *, is_done: bool) -> dict[str, int]:
    """What a stage reads of the rows of a report, under the names of `Training`."""
    if is_done:
        return {"train_tokens": 0, "below_tokens": 0, "read_tokens": 0}
    if isinstance(section, Reinforce):
        return _reinforcement(section, report["rows"])
    tokens = report["tokens"]
    train_tokens = round(tokens["train"] * section.num_train_epochs)
    if section.max_steps is not None:
        train_tokens = min(train_tokens, section.max_steps * section.tokens_per_step)
    compass_tokens = min(round((1 - JUDGING_SHARE) * tokens["held_out"]), COMPASS_TOKENS)
    read_tokens, below_tokens = COMPASS_TIMES * compass_tokens, train_tokens
    if isinstance(section, Sft) and keeps_frozen(section):
        below_tokens = min(train_tokens, tokens["train"])
    if isinstance(section, Prefer):
        loss = preference_keys(section)
        # KTO reads every prompt with the answer to another as well: once for the reference, and in every step
        times = 2 if loss.needs_kl else 1
        read_tokens = times * read_tokens + (train_tokens if loss.needs_kl else 0)
        read_tokens += times * (tokens["train"] + compass_tokens) if loss.needs_reference else 0
    return {"train_tokens": train_tokens, "below_tokens": below_tokens, "read_tokens": read_tokens}


def expected_judgements(recipe: Recipe, prompts: int) -> dict[str, Any]:
    """What a report on pairs that are yet to be made may say: a pair a prompt, of two answers that together have as
    many tokens as the longest one."""
    assert recipe.prefer is not None
    pair, held_out = recipe.prefer.max_new_tokens, round(recipe.data.held_out * prompts)
    return {
        "tokens": {"train": (prompts - held_out) * pair, "held_out": held_out * pair},
        "rows": {"train": prompts - held_out, "held_out": held_out},
    }


def _reinforcement(section: Reinforce, rows: dict[str, int]) -> dict[str, int]:
    """What reinforcement reads and writes, as if every answer had its full length: a token that is written counts as
    `SAMPLED_READS` that are read at once, and every answer is read by the reference too."""
    answers = section.num_generations * section.max_new_tokens
    prompts = max(1, section.tokens_per_step // answers)
    steps = math.ceil(rows["train"] * section.num_train_epochs / prompts)
    if section.max_steps is not None:
        steps = min(steps, section.max_steps)
    train_tokens = steps * min(prompts, rows["train"]) * answers
    held_out = COMPASS_TIMES * min(rows["held_out"], HELD_OUT_PROMPTS) * section.max_new_tokens
    read_tokens = (1 + SAMPLED_READS) * train_tokens + SAMPLED_READS * held_out
    return {
        "train_tokens": train_tokens * section.num_iterations,
        "below_tokens": train_tokens,
        "read_tokens": read_tokens,
    }


def _machine(profile: MachineProfile) -> Machine:
    return Machine(profile.device, torch.bfloat16 if profile.dtype == "bfloat16" else torch.float32)
