"""Supervised fine-tuning of a base on prepared rows: adapter or full weights, best checkpoint kept."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from nomoat.data.pack import Rows
from nomoat.errors import ModelError
from nomoat.model.adapters import save_adapter
from nomoat.model.fused.parts import frozen_blocks
from nomoat.model.load import Machine
from nomoat.model.merge import check_saved, probe_logits, probe_rows, save_model
from nomoat.train.frozen import rows_below
from nomoat.train.hooks import Hooks
from nomoat.train.loop import TrainResult
from nomoat.train.opened import open_to_train
from nomoat.train.run import TrainingKeys, compass_rows, run_training


def finetune(
    base: Path,
    tokenizer: Any,
    rows: Rows,
    held_out: Rows,
    out: Path,
    scratch: Path,
    *,
    base_name: str,
    base_sha256: str,
    method: str,
    lora_r: int,
    lora_alpha: float,
    lora_dropout: float,
    lora_target_modules: str | list[str],
    lora_layers: int | None,
    frozen_cache: bool,
    load_in_4bit: bool,
    keys: TrainingKeys,
    machine: Machine,
    hooks: Hooks,
    gradient_checkpointing: bool | Literal["auto"] = "auto",
) -> TrainResult:
    """Train and write `out/adapter/` (PEFT layout, method "lora") or `out/model/` (method "full").

    Full fine-tuning holds its weights in float32, since AdamW's small steps vanish in bfloat16. A run is
    resumed from the checkpoints in `scratch`. Raises ModelError when training never beat the base, since
    such a night would serve the base under another name, or where the folder does not read back as the model.
    """
    model = open_to_train(
        base,
        machine,
        base_sha256=base_sha256,
        method=method,
        lora_r=lora_r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        lora_target_modules=lora_target_modules,
        lora_layers=lora_layers,
        load_in_4bit=load_in_4bit,
        seed=keys.seed,
    )
    if method == "lora" and frozen_cache and keys.num_train_epochs > 1 and frozen_blocks(model):
        keep = partial(
            rows_below, model, batch_tokens=keys.micro_batch_tokens, device=machine.device, hooks=hooks
        )
        rows = keep(rows, scratch / "below" / "train")
        held_out = keep(compass_rows(held_out), scratch / "below" / "held_out")
    result = run_training(
        model,
        rows,
        held_out,
        scratch,
        keys=keys,
        machine=machine,
        hooks=hooks,
        gradient_checkpointing=gradient_checkpointing,
    )
    if result.best_step == 0:
        lowest = min(point["loss"] for point in result.curve.held_out[1:])
        raise ModelError(
            f"training changed nothing for the better: the held-out loss was {result.first_loss:.4f} before the "
            f"first step and never lower after it (best {lowest:.4f})",
            hint="Lower sft.learning_rate, look at the rows with `nomoat check`, or give more of them.",
        )
    if method == "lora":
        keep_adapter(model, tokenizer, out / "adapter", base_name=base_name, base_sha256=base_sha256)
    else:
        probes = probe_rows(held_out)
        trained_TV = probe_logits(model.eval(), probes, machine.device)
        save_model(model, tokenizer, out / "model")
        del model
        check_saved(trained_TV, out / "model", probes, machine, torch.float32)
    return result


def keep_adapter(model: Any, tokenizer: Any, folder: Path, *, base_name: str, base_sha256: str) -> None:
    """Write an adapter in PEFT's layout, with the tokenizer and its template."""
    folder.mkdir(exist_ok=True)
    save_adapter(model, folder, base=base_name, base_sha256=base_sha256)
    tokenizer.save_pretrained(folder)
