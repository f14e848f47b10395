"""nomoat's side: `finetune` as a night calls it, whatever it does inside."""

from __future__ import annotations

from pathlib import Path

from nomoat.model.load import load_tokenizer
from nomoat.night.recipes import default_micro_batch_tokens
from nomoat.train.finetune import finetune
from nomoat.train.hooks import Hooks, Progress
from nomoat.train.run import TrainingKeys
from training.material import CURVE_TOKENS_PER_STEP, LORA_ALPHA, SEED, TOKENS_PER_STEP
from training.process import Job, Meter

NEVER = 1_000_000


def train(job: Job, meter: Meter) -> None:
    """Train as the job says; ends when the meter does."""
    material, case = job.material, job.case
    rows, supervised_N = material.rows, material.count_supervised()
    if job.curve_steps is None:
        plan = material.plan(passes=job.passes)
        ends = {len(material.plan(passes=done)) for done in range(1, job.passes + 1)}
    else:
        plan, ends = material.curve_plan(job.curve_steps), {job.curve_steps}

    def on_progress(progress: Progress) -> None:
        step_rows = plan[progress.step - 1]
        meter.step(progress.loss, rows.lengths[step_rows].sum(), supervised_N[step_rows].sum())
        if progress.step in ends:
            meter.pass_ends()

    scratch = Path(job.folder) / f"nomoat-{job.curve_steps or 'speed'}"
    scratch.mkdir()
    finetune(
        material.base,
        load_tokenizer(material.base),
        rows,
        material.held_out,
        scratch,
        scratch / "checkpoints",
        base_name="base",
        base_sha256="",
        method=case.method,
        lora_r=case.lora_r,
        lora_alpha=LORA_ALPHA,
        lora_dropout=0.0,
        lora_target_modules="all-linear",
        lora_layers=case.lora_layers,
        frozen_cache=case.lora_layers is not None,
        load_in_4bit=False,
        keys=TrainingKeys(
            learning_rate=case.learning_rate,
            # one pass more than is measured: at its last step a run evaluates and saves
            num_train_epochs=job.passes + 1,
            max_steps=None if job.curve_steps is None else job.curve_steps + 1,
            tokens_per_step=TOKENS_PER_STEP if job.curve_steps is None else CURVE_TOKENS_PER_STEP,
            micro_batch_tokens=job.settings.get(
                "micro_batch_tokens", default_micro_batch_tokens(job.machine, case.method)
            ),
            lr_scheduler_type="constant",
            warmup_ratio=0.0,
            weight_decay=0.0,
            adam_beta2=0.999,
            optim="adamw_torch",
            max_grad_norm=1.0,
            eval_steps=NEVER,
            save_steps=NEVER,
            seed=SEED,
        ),
        machine=job.machine,
        hooks=Hooks(on_progress=on_progress),
    )
