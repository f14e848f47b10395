"""What work costs: FLOPs, bytes, seconds, joules and dollars. Pure functions over numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

JOULES_PER_KWH = 3.6e6
GGUF_BYTES = {
    "F32": 4.0,
    "F16": 2.0,
    "BF16": 2.0,
    "Q8_0": 1.0625,
    "Q6_K": 0.82,
    "Q5_K_M": 0.71,
    "Q4_K_M": 0.605,
}
"""Bytes of a weight in a GGUF file: blocks with their scales, mixed as in Llama 2 7B (llama.cpp's table)."""

MOMENT_BYTES = {
    "adamw_torch": 8.0,
    "adamw_8bit": 2.0 + 8 / 256,
    "paged_adamw_8bit": 2.0 + 8 / 256,
}
"""What AdamW keeps of a trained number: two moments, in float32, or in a byte each with a scale for 256 of them."""


@dataclass(frozen=True)
class Prices:
    """What the owner pays: the machine by the hour, its electricity by the kilowatt-hour."""

    dollars_per_hour: float
    dollars_per_kwh: float

    def dollars(self, seconds: float, joules: float) -> float:
        """Cost of so many seconds and joules."""
        return seconds / 3600 * self.dollars_per_hour + joules / JOULES_PER_KWH * self.dollars_per_kwh


def train_flops(
    parameters: int,
    tokens: int,
    *,
    frozen: bool,
    top: float = 1.0,
    below_tokens: int = 0,
    recomputed: bool = False,
) -> float:
    """Floating-point operations of training on `tokens`.

    2N a token forward, 2N back to the activations, 2N back to the weights (Kaplan et al. 2020,
    arXiv:2001.08361, section 2.1); frozen weights need no gradient of their own. Attention scores are left
    out: at 512 tokens they are a few per cent. Where only the share `top` of the blocks trains, those below are
    read forward, for `below_tokens`. Blocks that are `recomputed` in backward are read forward twice.
    """
    each = (4.0 if frozen else 6.0) + (2.0 if recomputed else 0.0)
    return each * parameters * top * tokens + forward_flops(parameters, below_tokens) * (1.0 - top)


def forward_flops(parameters: int, tokens: int) -> float:
    """Floating-point operations of reading `tokens`."""
    return 2.0 * parameters * tokens


def adapter_share(lora_r: int, width: int) -> float:
    """An adapter's size as a share of its base's: 2·r·w numbers beside the w² of a square layer of width w."""
    return min(1.0, 2.0 * lora_r / width)


def train_bytes(
    states: float,
    *,
    micro_batch_tokens: int,
    width: int,
    layers: int,
    logits: int,
    number_bytes: float,
    recomputed: bool,
) -> float:
    """Memory of a training step: `states` (weights, gradients and moments), the activations that backward
    needs, of `number_bytes` each, and so many `logits` at once, with their shares and gradient in float32.

    Some 34 activations of the model's width are kept a token and layer (Korthikanti et al. 2022,
    arXiv:2205.05198, equation 1, which counts bytes: 17 numbers of two). Of layers that are
    `recomputed` only the input is, and what one of them makes while backward is in it.
    """
    kept = layers + 17.0 if recomputed else 17.0 * layers
    activations = kept * micro_batch_tokens * width * number_bytes
    return states + activations + 3.0 * 4.0 * logits


def disk_bytes(parameters: int, trainable: int, *, weight_bytes: int, types: Sequence[str]) -> float:
    """Disk that a night of fine-tuning takes: checkpoints, the model's folder of `weight_bytes` a number, and
    GGUF files of `types`.

    A checkpoint holds weights and two moments in float32 of what is trained, and beside it lie the best
    weights so far. There are at most three of each: the oldest goes when the newest is whole.
    """
    checkpoints = 3 * (12.0 + 4.0) * trainable
    return checkpoints + parameters * (weight_bytes + sum(GGUF_BYTES[type] for type in types))
