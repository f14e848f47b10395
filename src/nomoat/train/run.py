"""One training run: from the recipe's keys to the loop's numbers, and its curve to a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nomoat.data.pack import Head, PacksItself, Rows, StepPlan
from nomoat.errors import ModelError
from nomoat.model.load import Machine
from nomoat.model.logprobs import row_losses, token_logprobs
from nomoat.train.checkpoint import CheckpointFolder
from nomoat.train.hooks import Hooks
from nomoat.train.loop import HeldOut, LoopSettings, ObjectiveOf, Reads, TrainResult, train
from nomoat.train.objectives.sft import sft
from nomoat.train.schedule import Schedule

# Held-out loss during training is a compass, not the verdict: this many tokens steer as well as all of them.
COMPASS_TOKENS = 32_768


@dataclass(frozen=True)
class TrainingKeys:
    """The recipe's training keys under their own names (docs/recipe.md says what each is)."""

    learning_rate: float
    num_train_epochs: float
    max_steps: int | None
    tokens_per_step: int
    micro_batch_tokens: int
    lr_scheduler_type: str
    warmup_ratio: float
    weight_decay: float
    adam_beta2: float
    optim: str
    max_grad_norm: float
    eval_steps: int | None
    save_steps: int | None
    seed: int


def run_training(
    model: Any,
    rows: Rows,
    held_out: Rows,
    checkpoints: Path,
    *,
    keys: TrainingKeys,
    gradient_checkpointing: bool | Literal["auto"] = "auto",
    machine: Machine,
    hooks: Hooks,
) -> TrainResult:
    """Train `model` on `rows` by maximum likelihood and leave its best weights in it, as `run_loop` does."""
    compass = compass_rows(held_out)
    return run_loop(
        model,
        rows,
        lambda *_: sft,
        lambda tokens: row_losses(model, compass, batch_tokens=tokens, device=machine.device),
        checkpoints,
        keys=keys,
        gradient_checkpointing=gradient_checkpointing,
        machine=machine,
        hooks=hooks,
    )


def run_loop(
    model: Any,
    rows: Rows | PacksItself,
    objective_of: ObjectiveOf,
    held_out: HeldOut,
    checkpoints: Path,
    *,
    keys: TrainingKeys,
    gradient_checkpointing: bool | Literal["auto"] = "auto",
    machine: Machine,
    hooks: Hooks,
    reads: Reads = token_logprobs,
) -> TrainResult:
    """Train `model` on `rows` and leave the weights of the lowest held-out loss in it.

    `checkpoints` is a folder that the caller removes once the result is safe. Raises ModelError when there
    is not one step to make.
    """
    plan = StepPlan(
        rows.lengths,
        tokens_per_step=keys.tokens_per_step,
        epochs=keys.num_train_epochs,
        max_steps=keys.max_steps,
        seed=keys.seed,
    )
    if not len(plan):
        raise ModelError("there are no rows to train on")
    tenth = max(1, len(plan) // 10)
    return train(
        model,
        rows,
        plan,
        objective_of,
        schedule=Schedule(
            kind=keys.lr_scheduler_type,
            learning_rate=keys.learning_rate,
            total_steps=len(plan),
            warmup_steps=round(keys.warmup_ratio * len(plan)),
        ),
        settings=LoopSettings(
            micro_batch_tokens=keys.micro_batch_tokens,
            max_grad_norm=keys.max_grad_norm,
            weight_decay=keys.weight_decay,
            adam_betas=(0.9, keys.adam_beta2),
            optim=keys.optim,
            eval_steps=keys.eval_steps or tenth,
            save_steps=keys.save_steps or tenth,
            autocast_bf16=machine.bf16,
            device=machine.device,
            gradient_checkpointing=gradient_checkpointing,
        ),
        checkpoints=CheckpointFolder(checkpoints, machine.device),
        held_out=held_out,
        hooks=hooks,
        reads=reads,
    )


def compass_rows(held_out: Rows) -> Rows:
    """The held-out rows that steer training: as many from the top as hold `COMPASS_TOKENS`, at least one."""
    count = max(1, int((held_out.lengths.cumsum() <= COMPASS_TOKENS).sum()))
    return held_out if count >= len(held_out) else Head(held_out, count)
