"""Learning to score: pairs of answers, of which one was preferred, or neither.

With d = score of the first answer minus that of the second, and σ(d) the probability that the first is preferred.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nomoat.data.pack import Packed
from nomoat.train.objectives import Loss
from nomoat.train.objectives.answers import preferred_minus_other


def bradley_terry(score_N: torch.Tensor, packed: Packed) -> Loss:
    """-log σ(d - m), a pair (Bradley and Terry 1952, Biometrika 39:324-345), where m is the margin by which the first
    should win (Llama 2, Touvron et al. 2023, arXiv:2307.09288, equation 2). A tie is half a win of each,
    -½·log σ(d) - ½·log σ(-d), which needs no further parameter and is least where the scores are the same.

    "accuracy" counts ties, of judgements or scores, as a half.
    """
    assert packed.judged is not None
    judged = packed.judged
    d_P = preferred_minus_other(score_N)
    tie_P = judged.good_N[0::2] == judged.good_N[1::2]
    half_P = -0.5 * (F.logsigmoid(d_P) + F.logsigmoid(-d_P))
    loss_P = torch.where(tie_P, half_P, -F.logsigmoid(d_P - judged.margin_P))
    d_P = torch.where(tie_P, 0.0, d_P.detach())
    metrics = {"margin": d_P.sum(), "accuracy": (0.5 + 0.5 * d_P.sign()).sum()}
    return Loss(loss_P.sum(), torch.tensor(float(len(d_P)), device=d_P.device), metrics)
