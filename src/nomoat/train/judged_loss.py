"""The held-out loss of judged answers, under any objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nomoat.data.judged import JudgedRows
from nomoat.data.pack import fill
from nomoat.model.load import Machine
from nomoat.model.logprobs import token_logprobs
from nomoat.train.loop import Reads, autocast
from nomoat.train.objectives import Objective


@dataclass(frozen=True)
class JudgedLoss:
    """The mean loss of judged rows, and the means of what else the objective tells."""

    mean: float
    batch_tokens: int
    metrics: dict[str, float]


def judged_loss(
    model: Any,
    rows: JudgedRows,
    objective: Objective,
    *,
    batch_tokens: int,
    machine: Machine,
    reads: Reads = token_logprobs,
) -> JudgedLoss:
    """The loss of all groups, in batches of so many tokens and in the precision of training; the caller sees to the
    model's mode and to gradients."""
    total = weight = 0.0
    sums: dict[str, float] = {}
    for batch in fill(range(len(rows)), rows.lengths, batch_tokens):
        packed = rows.pack(batch, machine.device)
        with autocast(machine.device, machine.bf16):
            found = objective(reads(model, packed), packed)
        total, weight = total + found.total.item(), weight + found.weight.item()
        for name, value in found.metrics.items():
            sums[name] = sums.get(name, 0.0) + value.item()
    return JudgedLoss(total / weight, batch_tokens, {name: value / weight for name, value in sums.items()})
