"""Learning from answers that were each found good or bad."""

from __future__ import annotations

import torch

from nomoat.data.pack import Packed
from nomoat.train.objectives import Loss
from nomoat.train.objectives.answers import answers, mean_of


def kto(
    logp_S: torch.Tensor,
    packed: Packed,
    *,
    beta: float,
    kl: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Loss:
    """w·(1 - σ(±β·(log-ratio - z))), an answer: + and `desirable_weight` where it was found good, - and
    `undesirable_weight` where not (Ethayarajh et al. 2024, arXiv:2402.01306, equation 8). z is `kl`, how far the model
    has gone from the reference, in nats and at least 0: no gradient goes through it.
    """
    found = answers(logp_S, packed)
    good_N = found.good_N
    sign_N = torch.where(good_N, 1.0, -1.0)
    weight_N = torch.where(good_N, desirable_weight, undesirable_weight)
    loss_N = weight_N * (1 - torch.sigmoid(sign_N * beta * (found.log_ratio_N - max(0.0, kl))))
    return mean_of(loss_N, sign_N * beta * found.log_ratio_N)
