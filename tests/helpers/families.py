"""A tiny random-weight model of every family of the first night, and a tokenizer to go with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

FAMILIES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
    "smollm3",
)


def tiny_config(family: str, vocab_size: int, **special: Any) -> Any:
    """The family's own config class, two layers small; a wide initialisation makes its choices decisive."""
    import transformers

    name = {
        "llama": "LlamaConfig",
        "mistral": "MistralConfig",
        "qwen2": "Qwen2Config",
        "qwen3": "Qwen3Config",
        "gemma": "GemmaConfig",
        "gemma2": "Gemma2Config",
        "gemma3": "Gemma3TextConfig",
        "phi3": "Phi3Config",
        "smollm3": "SmolLM3Config",
    }[family]
    keys: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **special,
    }
    if family in ("gemma2", "gemma3", "mistral"):
        keys.setdefault("sliding_window", 24)  # shorter than the test rows, so that it is really used
    if family == "phi3":
        keys.pop("head_dim")
    return getattr(transformers, name)(**keys)


def tiny_model(
    family: str, vocab_size: int, *, seed: int = 0, attention: str = "eager", **special: Any
) -> Any:
    """Random weights from a seed, in float32."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = tiny_config(family, vocab_size, **special)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32)
    return model.eval()


def tiny_tokenizer(texts: list[str] | None = None, vocab_size: int = 400) -> Any:
    """A byte-level BPE tokenizer with ChatML, trained on the spot."""
    from nomoat.train.new_model import train_tokenizer

    sample = texts or ["The cat sat on the mat and looked at the moon.", "Write a story about a dog."] * 20
    return train_tokenizer(sample, vocab_size=vocab_size, max_seq_len=512)


def save_tiny(family: str, folder: Path, *, seed: int = 0, **special: Any) -> Path:
    """A whole model folder: config, safetensors, tokenizer. `special` are keys of its config."""
    tokenizer = tiny_tokenizer()
    model = tiny_model(
        family,
        len(tokenizer),
        seed=seed,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        **special,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
