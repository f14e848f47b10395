"""Blocks computed a second time in backward instead of being kept (Chen et al. 2016, arXiv:1604.06174).

Every block of transformers asks its own flag whether to; the fused blocks do too (fused/families.py). What backward
computes again is the same to the last bit, random numbers included, so that this changes memory and time alone.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def can_recompute(model: Any) -> bool:
    """Whether the model's blocks are of the kind that can be told to."""
    return any(isinstance(module, GradientCheckpointingLayer) for module in model.modules())


def recompute_blocks(model: Any) -> None:
    """Keep only the input of every block from now on, while training. What transformers offers for this also
    lets the embeddings ask for a gradient, and backpropagation would not end at the lowest block that is trained."""
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
            module.gradient_checkpointing = True
