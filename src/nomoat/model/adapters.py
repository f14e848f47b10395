"""LoRA adapters in PEFT's layout, bound to the fingerprint of their base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from nomoat.errors import ModelError
from nomoat.model.tensors import write_tensors

_BASE_KEY = "base_sha256"


def add_lora(
    model: Any,
    *,
    lora_r: int,
    lora_alpha: float,
    lora_dropout: float,
    target_modules: str | list[str],
    seed: int,
    lora_layers: int | None = None,
    task_type: str = "CAUSAL_LM",
) -> Any:
    """Freeze the model and inject LoRA (Hu et al. 2021, arXiv:2106.09685) into `target_modules`. With `task_type`
    "SEQ_CLS" its scalar head is trained too.

    "all-linear" means every linear layer but the output layer; `lora_layers` takes only that many blocks, from the
    top. Returns a PeftModel. Raises ModelError for modules or more blocks than there are.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    if lora_layers is not None and target_modules == "all-linear":
        target_modules = _linear_names(model)  # PEFT chooses blocks only among layers that are named
    config = LoraConfig(
        r=lora_r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=target_modules,
        layers_to_transform=None if lora_layers is None else _top(model, lora_layers),
        task_type=task_type,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        linear = _linear_names(model)
        raise ModelError(
            f"sft.lora_target_modules: {target_modules} is not in this model",
            hint=f'Its linear layers are: {", ".join(linear)}; or "all-linear".',
        ) from error


def _linear_names(model: Any) -> list[str]:
    """Names of the linear layers but the output layer."""
    head = model.get_output_embeddings()
    return sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        }
    )


def _top(model: Any, lora_layers: int) -> list[int]:
    count = model.config.get_text_config().num_hidden_layers
    if lora_layers > count:
        raise ModelError(
            f"sft.lora_layers: {lora_layers} is more than the {count} blocks of this model",
            hint=f"Give 1 to {count}, or leave it out for all.",
        )
    return list(range(count - lora_layers, count))


def save_adapter(model: Any, folder: Path, *, base: str, base_sha256: str) -> None:
    """Write adapter_model.safetensors and adapter_config.json; same adapter, same bytes."""
    from peft import get_peft_model_state_dict

    tensors = {k: v.detach().contiguous().cpu() for k, v in get_peft_model_state_dict(model).items()}
    metadata = {"format": "pt", _BASE_KEY: base_sha256}
    write_tensors(folder / "adapter_model.safetensors", tensors, metadata)
    config = model.peft_config["default"].to_dict()
    config["base_model_name_or_path"] = base
    config["inference_mode"] = True
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    text = json.dumps(plain, indent=2, sort_keys=True, default=str)
    (folder / "adapter_config.json").write_text(text + "\n")


def load_adapter(model: Any, folder: Path, *, base_sha256: str, trainable: bool = False) -> Any:
    """Put a saved adapter on its base, frozen, or to be trained further; ModelError if it was trained on another
    base."""
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    check_base(folder, base_sha256)
    config = LoraConfig.from_pretrained(str(folder))
    config.inference_mode = not trainable
    config.base_model_name_or_path = None  # the fingerprint has said which base it is; a path says nothing
    peft_model = get_peft_model(model, config)
    set_peft_model_state_dict(peft_model, load_file(folder / "adapter_model.safetensors"))
    return peft_model.eval()


def check_base(folder: Path, base_sha256: str) -> None:
    """Refuse an adapter that says it was trained on another base than the one of this fingerprint (ModelError);
    one that was not trained here says nothing."""
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        bound_to = (file.metadata() or {}).get(_BASE_KEY)
    if bound_to is not None and bound_to != base_sha256:
        raise ModelError(
            f"{folder}: this adapter was trained on another base "
            f"(sha256 {bound_to[:12]}…, this one is {base_sha256[:12]}…)",
            hint="Give the base it was trained on, or train a new adapter.",
        )
