"""Learning from pairs without a reference."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nomoat.data.pack import Packed
from nomoat.train.objectives import Loss
from nomoat.train.objectives.answers import answers, mean_of, preferred_minus_other


def simpo(
    logp_S: torch.Tensor, packed: Packed, *, beta: float, gamma: float, label_smoothing: float = 0.0
) -> Loss:
    """-(1-ε)·log σ(m) - ε·log σ(-m), a pair, with m = β·(log p a token of the preferred - of the other) - γ (Meng et
    al. 2024, arXiv:2405.14734, equation 6)."""
    h_P = beta * preferred_minus_other(answers(logp_S, packed).mean_logp_N)
    m_P = h_P - gamma
    loss_P = -(1 - label_smoothing) * F.logsigmoid(m_P) - label_smoothing * F.logsigmoid(-m_P)
    return mean_of(loss_P, h_P)


def orpo(logp_S: torch.Tensor, packed: Packed, *, beta: float) -> Loss:
    """-log P(preferred) - β·log σ(log odds(preferred) - log odds(other)), a pair, where log P is log p a token and
    odds = P / (1 - P) (Hong et al. 2024, arXiv:2403.07691, equations 3, 4, 6 and 7; their λ is β here).

    Both terms are means over pairs. The first is of the answer given its prompt, as in the paper; TRL's counts the
    prompt's tokens too.
    """
    # below 0 by a hair, for the odds of a certain answer are infinite
    mean_logp_N = answers(logp_S, packed).mean_logp_N.clamp(max=-1e-6)
    # log odds = log P - log(1 - P); expm1 keeps the digits of 1 - P where P is near 1
    log_odds_N = mean_logp_N - torch.log(-torch.expm1(mean_logp_N))
    h_P = preferred_minus_other(log_odds_N)
    loss_P = -mean_logp_N[0::2] - beta * F.logsigmoid(h_P)
    return mean_of(loss_P, h_P)
