"""What the objectives over judged answers have in common: log p of whole answers, and what is told of them.

N answers · P pairs (answers 2p and 2p+1 of a pack: the preferred one first) · S supervised positions
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nomoat.data.pack import Packed
from nomoat.train.objectives import Loss


@dataclass(frozen=True)
class Answers:
    """Every answer [N]: log p a token, log p minus log p of the reference (both summed over its trained tokens), how
    many those are, and whether it was found good."""

    mean_logp_N: torch.Tensor
    log_ratio_N: torch.Tensor
    tokens_N: torch.Tensor
    good_N: torch.Tensor


def answers(logp_S: torch.Tensor, packed: Packed) -> Answers:
    """The answers of a pack of judged groups."""
    assert packed.judged is not None
    logp_N = answer_logps(logp_S, packed)
    tokens_N = torch.zeros_like(logp_N).index_add(0, packed.row_S, packed.weights_S.to(logp_S.dtype))
    judged = packed.judged
    return Answers(logp_N / tokens_N, logp_N - judged.reference_N, tokens_N, judged.good_N)


def answer_logps(logp_S: torch.Tensor, packed: Packed) -> torch.Tensor:
    """log p of every answer of a pack of judged groups [N], summed over its trained tokens."""
    assert packed.judged is not None
    zeros_N = torch.zeros(len(packed.judged.good_N), dtype=logp_S.dtype, device=logp_S.device)
    return zeros_N.index_add(0, packed.row_S, logp_S * packed.weights_S)


def preferred_minus_other(value_N: torch.Tensor) -> torch.Tensor:
    """[P] of [N], where answers stand in pairs."""
    return value_N[0::2] - value_N[1::2]


def mean_of(losses: torch.Tensor, margins: torch.Tensor) -> Loss:
    """The mean of losses [P] or [N] as a sum and its weight. `margins` say by how much the model follows each
    judgement: their mean is told, and the share of judgements that are followed at all."""
    margins = margins.detach()
    count = torch.tensor(float(len(losses)), device=losses.device)
    return Loss(losses.sum(), count, {"margin": margins.sum(), "accuracy": (margins > 0).float().sum()})
