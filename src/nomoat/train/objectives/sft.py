"""Supervised fine-tuning."""

from __future__ import annotations

import torch

from nomoat.data.pack import Packed
from nomoat.train.objectives import Loss


def sft(logp_S: torch.Tensor, packed: Packed) -> Loss:
    """Maximum likelihood of the supervised tokens: -Σ w·log p, to be divided by Σ w.

    The same for instructions, conversations and plain text: only the mask differs. The division by the
    weight of the whole step (not of each micro-batch) is what makes gradient accumulation exact.
    """
    return Loss(total=-(logp_S * packed.weights_S).sum(), weight=packed.weights_S.sum())
