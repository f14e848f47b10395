"""What bitsandbytes does: a frozen base held in four bits (QLoRA, Dettmers et al. 2023, arXiv:2305.14314)."""

from __future__ import annotations

from typing import Any

import torch

from nomoat.errors import ModelError

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Of a weight in NF4 with double quantisation: four bits, a byte for 64 of them, and four bytes for 256 such bytes
(section 3 of the paper)."""


def require_bitsandbytes(key: str, device: str) -> None:
    """ModelError where the recipe's `key` needs bitsandbytes, and it is not there or does not compute on `device`."""
    hint = f'Install it with pip install "nomoat[gpu]", or take {key} out.'
    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        ones = torch.ones(64, 1, device=device)
        packed, state = quantize_4bit(ones, quant_type="nf4")
        whole = torch.equal(dequantize_4bit(packed, state), ones)
    except ModuleNotFoundError as error:
        raise ModelError(f"{key} needs bitsandbytes, which is not installed", hint=hint) from error
    except (ImportError, OSError, RuntimeError, AttributeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{key} needs bitsandbytes, which does not run on this machine ({device}): {reason}", hint=hint
        ) from error
    if not whole:
        raise ModelError(f"{key} needs bitsandbytes, which computes wrongly on this machine", hint=hint)


def in_four_bits(dtype: torch.dtype) -> Any:
    """transformers' configuration of a base in NF4 with double quantisation, computed in `dtype`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
