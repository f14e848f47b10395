"""Objectives: pure functions from token log-probabilities to a loss. One function a method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from nomoat.data.pack import Packed


@dataclass(frozen=True)
class Loss:
    """`total` is a sum over the batch, `weight` what it must be divided by, so that micro-batches of any
    size add up to the same step. `metrics` are sums of the same kind, for whoever watches."""

    total: torch.Tensor
    weight: torch.Tensor
    metrics: dict[str, torch.Tensor] = field(default_factory=dict)


Objective = Callable[[torch.Tensor, Packed], Loss]
