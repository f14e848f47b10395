"""The peers' sides: transformers' Trainer and TRL's SFTTrainer on the same rows, base and adapter."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from training.material import SEED, labels_of
from training.process import Job, Meter
from training.settings import DPO_DEFAULT, TRAINER, TRL_DEFAULT, Settings


def train(job: Job, meter: Meter) -> None:
    """Train as the job says; ends when the meter does."""
    settings, tokenizer = peer_settings(job)
    # Trainer sorts 50 batches at a time, but of data as short as one pass here only a quarter; sorting all of it
    # beforehand wastes as little padding as grouping does on data of real size.
    grouped = settings.get("train_sampling_strategy") == "group_by_length"
    if grouped:
        settings["train_sampling_strategy"] = "sequential"
    make = _trainer if job.side == TRAINER else _trl
    run_peer(make(job, meter, settings, tokenizer, _rows(job, longest_first=grouped)), meter)


def run_peer(trainer: Trainer, meter: Meter) -> None:
    """Train, pass by pass."""
    trainer.add_callback(_PassEnds(meter))
    trainer.train()


def peer_settings(job: Job) -> tuple[Settings, Any]:
    """What every peer is told, with what this one is set to, and the tokenizer."""
    settings = {
        "output_dir": f"{job.side}-output",
        "num_train_epochs": job.passes,
        "learning_rate": job.case.learning_rate,
        "lr_scheduler_type": "constant",
        "bf16": job.bf16,
        "use_cpu": job.device == "cpu",
        "seed": SEED,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    } | job.settings
    if job.curve_steps is not None:
        settings["gradient_accumulation_steps"] = 1  # each of the given batches is a step
    tokenizer = AutoTokenizer.from_pretrained(job.material.base, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return settings, tokenizer


class _PassEnds(TrainerCallback):
    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self._meter.pass_ends()


class Metered:
    """Mixed into a Trainer: counts every batch; for the curve it reads the batches of nomoat's plan."""

    job: Job
    meter: Meter
    marks, unmarked = "labels", -100
    """Where a batch says what is supervised, and what stands where nothing is."""

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any) -> torch.Tensor:
        real = inputs["attention_mask"].sum() if "attention_mask" in inputs else inputs["input_ids"].numel()
        supervised = (inputs[self.marks] != self.unmarked).sum()
        loss: torch.Tensor = super().training_step(model, inputs, *rest)  # type: ignore[misc]
        self.meter.step(loss, real, supervised)
        return loss

    def get_train_dataloader(self) -> Any:
        if self.job.curve_steps is None:
            return super().get_train_dataloader()  # type: ignore[misc]
        steps = self.job.material.curve_plan(self.job.curve_steps).steps
        trainer: Any = self
        return DataLoader(trainer.train_dataset, batch_sampler=steps, collate_fn=trainer.data_collator)


def _trainer(job: Job, meter: Meter, settings: Settings, tokenizer: Any, rows: Dataset) -> Trainer:
    class Metering(Metered, Trainer):
        pass

    Metering.job, Metering.meter = job, meter
    return Metering(
        model=peer_model(job),
        args=TrainingArguments(**settings),
        train_dataset=rows,
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )


def _trl(job: Job, meter: Meter, settings: Settings, tokenizer: Any, rows: Dataset) -> Trainer:
    from trl import SFTConfig, SFTTrainer

    class Metering(Metered, SFTTrainer):
        pass

    Metering.job, Metering.meter = job, meter
    if job.curve_steps is not None and settings.pop("packing", False):
        settings["padding_free"] = True  # what packing does to a batch, here to the rows of a given step
    max_length = None if settings.get("padding_free") else job.case.max_tokens  # TRL asks for this
    return Metering(
        model=peer_model(job),
        args=SFTConfig(max_length=max_length, **settings),
        train_dataset=rows,
        processing_class=tokenizer,
    )


def peer_model(job: Job) -> Any:
    """Base and adapter as a peer opens them."""
    dtype = (
        torch.float32 if job.side in (TRL_DEFAULT, DPO_DEFAULT) else job.weights
    )  # TRL opens a base so, bf16 or not
    model = AutoModelForCausalLM.from_pretrained(
        job.material.base, dtype=dtype, attn_implementation="sdpa", local_files_only=True
    ).to(job.device)
    if not job.case.lora:
        return model
    from peft import PeftModel

    return PeftModel.from_pretrained(model, job.material.adapter, is_trainable=True)


def _rows(job: Job, *, longest_first: bool) -> Dataset:
    """The rows of a pass, tokenised and labelled; in their own order for the curve, whose steps name them."""
    rows = job.material.rows
    order = list(range(len(rows)))
    if longest_first and job.curve_steps is None:
        order.sort(key=lambda row: -rows.lengths[row])
    examples = [
        {"input_ids": tokens.tolist(), "labels": labels_of(tokens, trained)}
        for tokens, trained in (rows[row] for row in order)
    ]
    return Dataset.from_list(examples)
