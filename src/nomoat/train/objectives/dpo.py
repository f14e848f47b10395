"""Direct preference optimisation and its relatives: pairs of answers against a reference.

With h = log-ratio of the preferred answer minus that of the other, log-ratio = log p - log p_reference.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nomoat.data.pack import Packed
from nomoat.train.objectives import Loss
from nomoat.train.objectives.answers import answers, mean_of, preferred_minus_other


def dpo(logp_S: torch.Tensor, packed: Packed, *, beta: float, label_smoothing: float = 0.0) -> Loss:
    """-(1-ε)·log σ(β·h) - ε·log σ(-β·h), a pair (Rafailov et al. 2023, arXiv:2305.18290, equation 7; ε, the share of
    judgements taken to be wrong, is Mitchell's conservative DPO, 2023)."""
    h_P = beta * preferred_minus_other(answers(logp_S, packed).log_ratio_N)
    loss_P = -(1 - label_smoothing) * F.logsigmoid(h_P) - label_smoothing * F.logsigmoid(-h_P)
    return mean_of(loss_P, h_P)


def robust(logp_S: torch.Tensor, packed: Packed, *, beta: float, label_smoothing: float) -> Loss:
    """[-(1-ε)·log σ(β·h) + ε·log σ(-β·h)] / (1-2ε): unbiased where a share ε < 1/2 of the judgements is flipped
    (Chowdhury et al. 2024, arXiv:2403.00409, equation 11)."""
    h_P = beta * preferred_minus_other(answers(logp_S, packed).log_ratio_N)
    loss_P = -(1 - label_smoothing) * F.logsigmoid(h_P) + label_smoothing * F.logsigmoid(-h_P)
    return mean_of(loss_P / (1 - 2 * label_smoothing), h_P)


def hinge(logp_S: torch.Tensor, packed: Packed, *, beta: float) -> Loss:
    """max(0, 1 - β·h), a pair (SLiC, Zhao et al. 2023, arXiv:2305.10425, with DPO's rewards: Liu et al. 2023,
    arXiv:2309.06657)."""
    h_P = beta * preferred_minus_other(answers(logp_S, packed).log_ratio_N)
    return mean_of(F.relu(1 - h_P), h_P)


def ipo(logp_S: torch.Tensor, packed: Packed, *, beta: float) -> Loss:
    """(h - 1/(2β))², a pair (Azar et al. 2023, arXiv:2310.12036, equation 17), with log-ratios a token, as the authors
    compute them, so that β means the same for short and long answers."""
    found = answers(logp_S, packed)
    h_P = preferred_minus_other(found.log_ratio_N / found.tokens_N)
    return mean_of((h_P - 1 / (2 * beta)) ** 2, h_P)
