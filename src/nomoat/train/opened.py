"""The model that a stage trains: all weights of a base, an adapter that is trained further, or a fresh one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nomoat.model.adapters import add_lora, load_adapter
from nomoat.model.load import Machine, load_model


def open_to_train(
    base: Path,
    machine: Machine,
    *,
    adapter: Path | None = None,
    base_sha256: str,
    method: str,
    lora_r: int,
    lora_alpha: float,
    lora_dropout: float,
    lora_target_modules: str | list[str],
    lora_layers: int | None,
    load_in_4bit: bool,
    seed: int,
) -> Any:
    """The weights of `base` in float32, all trained (method "full": AdamW's small steps vanish in bfloat16), or frozen
    behind `adapter`, or behind a fresh one where that is None. Everything random from here on follows from `seed`.

    Raises ModelError where base or adapter do not open, or do not belong together.
    """
    torch.manual_seed(seed)  # for a base with dropout of its own
    if method == "full":
        model = load_model(base, machine, weights=torch.float32)
        model.requires_grad_(True)
        return model
    bare = load_model(base, machine, four_bit=load_in_4bit)
    if adapter is not None:
        return load_adapter(bare, adapter, base_sha256=base_sha256, trainable=True)
    return add_lora(
        bare,
        lora_r=lora_r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=lora_target_modules,
        seed=seed,
        lora_layers=lora_layers,
    )
