"""Random LoRA adapters as PEFT saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM


def adapted(base: Path, folder: Path, *, seed: int = 1, **changed: Any) -> Any:
    """A PEFT model of a random adapter, by default of rank 4 on all linear layers, which is saved in `folder`."""
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | changed
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    lora = LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **settings)
    peft_model = get_peft_model(model, lora).eval()
    peft_model.save_pretrained(folder)
    return peft_model
