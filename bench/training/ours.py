"""nomoat's side: `finetune`, or `prefer` on pairs, as a night calls it, whatever it does inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nomoat.model.load import load_tokenizer
from nomoat.night.recipes import default_micro_batch_tokens
from nomoat.train.finetune import finetune
from nomoat.train.hooks import Hooks, Progress
from nomoat.train.prefer import PreferenceKeys, prefer
from nomoat.train.run import TrainingKeys
from training.material import (
    BETA,
    CURVE_TOKENS_PER_STEP,
    LORA_ALPHA,
    SEED,
    TOKENS_PER_STEP,
    PairMaterial,
)
from training.process import Job, Meter

NEVER, OPTIM = 1_000_000, "adamw_torch"


def train(job: Job, meter: Meter) -> None:
    """Train as the job says; ends when the meter does."""
    material, case = job.material, job.case
    scratch = Path(job.folder) / f"nomoat-{job.curve_steps or 'speed'}"
    (scratch / "checkpoints").mkdir(parents=True)
    base, folders = material.base, (scratch, scratch / "checkpoints")
    tokenizer = load_tokenizer(base)
    keys: dict[str, Any] = {
        "base_name": "base",
        "base_sha256": "",
        "method": case.method,
        "lora_r": case.lora_r,
        "lora_alpha": LORA_ALPHA,
        "lora_dropout": 0.0,
        "lora_target_modules": "all-linear",
        "lora_layers": case.lora_layers,
        "load_in_4bit": False,
        "keys": _training_keys(job),
        "machine": job.machine,
        "hooks": _hooks(job, meter),
    }
    if isinstance(material, PairMaterial):
        learned, held_out = material.pairs.groups, material.held_out_pairs.groups
        loss = PreferenceKeys("sigmoid", BETA, 0.0, 0.0, 1.0, 1.0)
        judged: dict[str, Any] = {"adapter": None, "after_sft": False, "loss": loss}
        prefer(base, tokenizer, learned, held_out, material.held_out, *folders, **judged, **keys)
    else:
        rows, cached = material.rows, case.lora_layers is not None
        finetune(base, tokenizer, rows, material.held_out, *folders, frozen_cache=cached, **keys)


def _training_keys(job: Job) -> TrainingKeys:
    return constant_keys(
        learning_rate=job.case.learning_rate,
        # one pass more than is measured: at its last step a run evaluates and saves
        num_train_epochs=job.passes + 1,
        max_steps=None if job.curve_steps is None else job.curve_steps + 1,
        tokens_per_step=TOKENS_PER_STEP if job.curve_steps is None else CURVE_TOKENS_PER_STEP,
        micro_batch_tokens=job.settings.get(
            "micro_batch_tokens", default_micro_batch_tokens(job.machine, job.case.method)
        ),
    )


def constant_keys(
    *,
    learning_rate: float,
    num_train_epochs: float,
    max_steps: int | None,
    tokens_per_step: int,
    micro_batch_tokens: int,
) -> TrainingKeys:
    """AdamW at a constant rate, with no evaluation and no checkpoint on the way."""
    return TrainingKeys(
        learning_rate=learning_rate,
        num_train_epochs=num_train_epochs,
        max_steps=max_steps,
        tokens_per_step=tokens_per_step,
        micro_batch_tokens=micro_batch_tokens,
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        weight_decay=0.0,
        adam_beta2=0.999,
        optim=OPTIM,
        max_grad_norm=1.0,
        eval_steps=NEVER,
        save_steps=NEVER,
        seed=SEED,
    )


def _hooks(job: Job, meter: Meter) -> Hooks:
    """Each step told to the meter with what it read."""
    material = job.material
    read_N, supervised_N = material.tokens_read(), material.count_supervised()
    if job.curve_steps is None:
        plan = material.plan(passes=job.passes)
        ends = {len(material.plan(passes=done)) for done in range(1, job.passes + 1)}
    else:
        plan, ends = material.curve_plan(job.curve_steps), {job.curve_steps}

    def on_progress(progress: Progress) -> None:
        rows = plan[progress.step - 1]
        meter.step(progress.loss, read_N[rows].sum(), supervised_N[rows].sum())
        if progress.step in ends:
            meter.pass_ends()

    return Hooks(on_progress=on_progress)
