"""Both sides of DPO: nomoat's `prefer` as a night calls it, and TRL's DPOTrainer, on the same pairs, base and
adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset

from nomoat.model.load import load_tokenizer
from nomoat.night.recipes import default_micro_batch_tokens
from nomoat.train.hooks import Hooks, Progress
from nomoat.train.prefer import PreferenceKeys, prefer
from nomoat.train.run import TrainingKeys
from training.material import CURVE_TOKENS_PER_STEP, LORA_ALPHA, SEED, TOKENS_PER_STEP, PairMaterial
from training.ours import NEVER
from training.peers import Metered, peer_model, peer_settings, run_peer
from training.process import Job, Meter
from training.settings import NOMOAT

BETA = 0.1


def train(job: Job, meter: Meter) -> None:
    """Train as the job says; ends when the meter does."""
    (_ours if job.side == NOMOAT else _trl)(job, meter)


def _ours(job: Job, meter: Meter) -> None:
    material, case = job.material, job.case
    assert isinstance(material, PairMaterial)
    real_N, supervised_N = material.real_tokens().sum(1), material.count_supervised()
    if job.curve_steps is None:
        plan = material.plan(passes=job.passes)
        ends = {len(material.plan(passes=done)) for done in range(1, job.passes + 1)}
    else:
        plan, ends = material.curve_plan(job.curve_steps), {job.curve_steps}

    def on_progress(progress: Progress) -> None:
        pairs = plan[progress.step - 1]
        meter.step(progress.loss, real_N[pairs].sum(), supervised_N[pairs].sum())
        if progress.step in ends:
            meter.pass_ends()

    scratch = Path(job.folder) / f"nomoat-{job.curve_steps or 'speed'}"
    (scratch / "checkpoints").mkdir(parents=True)
    prefer(
        material.base,
        load_tokenizer(material.base),
        material.pairs.groups,
        material.held_out_pairs.groups,
        material.held_out,
        scratch,
        scratch / "checkpoints",
        adapter=None,
        after_sft=False,
        base_name="base",
        base_sha256="",
        method=case.method,
        lora_r=case.lora_r,
        lora_alpha=LORA_ALPHA,
        lora_dropout=0.0,
        lora_target_modules="all-linear",
        lora_layers=case.lora_layers,
        load_in_4bit=False,
        loss=PreferenceKeys("sigmoid", BETA, 0.0, 0.0, 1.0, 1.0),
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


def _trl(job: Job, meter: Meter) -> None:
    from trl import DPOConfig, DPOTrainer

    class Judged(Metered, DPOTrainer):
        marks, unmarked = "completion_mask", 0

        def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
            return dataset  # the rows are tokens already

    Judged.job, Judged.meter = job, meter
    settings, tokenizer = peer_settings(job)
    longest_first = settings.get("train_sampling_strategy") == "sequential"
    trainer = Judged(
        model=peer_model(job),
        args=DPOConfig(max_length=job.case.max_tokens, beta=BETA, loss_type=["sigmoid"], **settings),
        train_dataset=_rows(job, longest_first=longest_first),
        processing_class=tokenizer,
    )
    run_peer(trainer, meter)


def _rows(job: Job, *, longest_first: bool) -> Dataset:
    """The pairs of a pass as tokens; in their own order for the curve, whose steps name them."""
    material = job.material
    assert isinstance(material, PairMaterial)
    pairs, longest_N = material.pairs, material.real_tokens().max(1)
    order = list(range(len(pairs)))
    if longest_first and job.curve_steps is None:
        order.sort(key=lambda pair: -longest_N[pair])
    groups = [pairs.groups[pair] for pair in order]
    return Dataset.from_list(
        [
            {
                "prompt_ids": group.prompt.tolist(),
                "chosen_ids": group.answers[0][0].tolist(),
                "rejected_ids": group.answers[1][0].tolist(),
            }
            for group in groups
        ]
    )
