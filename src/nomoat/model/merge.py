"""Model folders: written, read back, and proved to be the model that was trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nomoat.data.pack import Packed, Rows, Tokens, Trained, pack
from nomoat.errors import ModelError
from nomoat.model.load import Machine, load_model

# fp32: a merged product is rounded once where the adapter's sum is rounded twice; logits of tens differ by
# some 1e-5. In bf16 the weights themselves are rounded to 8 bits.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}

PROBE_ROWS = 4


def merge_dtype(parameters: int, base_dtype: torch.dtype) -> torch.dtype:
    """float32 up to two billion parameters, where nothing is rounded away and the disk does not mind;
    above, the base's own."""
    return torch.float32 if parameters <= 2_000_000_000 else base_dtype


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a transformers model folder: config, safetensors, tokenizer with its chat template."""
    model.config.dtype = next(model.parameters()).dtype
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@torch.no_grad()
def probe_logits(model: Any, rows: Sequence[tuple[Tokens, Trained]], device: str) -> torch.Tensor:
    """float32 logits [T, V] at every position of some rows: what two forms of one model are compared by."""
    packed: Packed = pack(rows, device)
    output = model(
        input_ids=packed.tokens_T[None],
        position_ids=packed.positions_T[None],
        segments=packed.segments,
        use_cache=False,
    )
    logits: torch.Tensor = output.logits[0].float().cpu()
    return logits


def probe_rows(rows: Rows) -> list[tuple[Tokens, Trained]]:
    """The rows that two forms of one model are compared on."""
    return [rows[index] for index in range(min(PROBE_ROWS, len(rows)))]


def check_saved(
    trained_TV: torch.Tensor,
    folder: Path,
    rows: Sequence[tuple[Tokens, Trained]],
    machine: Machine,
    dtype: torch.dtype,
) -> float:
    """Read a model folder back and compare its logits with `probe_logits` of the model it was made from.

    Returns the largest difference of two logits; raises ModelError where it is more than rounding.
    """
    model = load_model(folder, machine, weights=dtype).eval()
    difference = (trained_TV - probe_logits(model, rows, machine.device)).abs().max().item()
    if not difference <= TOLERANCE[dtype]:
        raise ModelError(
            f"the saved model is not the trained one: logits differ by up to {difference:.3g} "
            f"(rounding explains {TOLERANCE[dtype]:g})",
            hint="This is a fault of nomoat or of the base's architecture; please report it with the base's name.",
        )
    return difference
