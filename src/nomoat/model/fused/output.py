"""The output layer at the supervised positions, forward and backward together, in pieces.

No [T, V] matrix is made, and none of [S, V]: a piece of some rows is computed, read and thrown away.

S supervised positions · H width · V vocabulary · C rows of one piece
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

PIECE_NUMBERS = 8 << 20
"""Numbers in the logits of one piece: 32 MiB of float32."""


class Logprobs(torch.autograd.Function):
    """log p of targets [S] for hidden states [S, H] and an output layer [V, H], float32 [S].

    The gradient of one log-probability to its hidden state, W[target] - Σ_v p_v W[v], does not depend on the
    loss, so it is made while the probabilities are at hand, and backward only scales it. That of a trained output
    layer does: it is made for `expected_S`, the gradient of maximum likelihood, and if the loss turns out to be
    another one, the logits are computed a second time. `softcap` is Gemma 2's tanh cap on the logits.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_SH: torch.Tensor,
        weight_VH: torch.Tensor,
        targets_S: torch.Tensor,
        softcap: float | None,
        expected_S: torch.Tensor,
        with_gradient: bool,
    ) -> torch.Tensor:
        compute_VH = weight_VH.to(hidden_SH.dtype)
        logp_S = hidden_SH.new_empty(len(targets_S), dtype=torch.float32)
        to_hidden = torch.empty_like(hidden_SH) if with_gradient else None
        trains = with_gradient and weight_VH.requires_grad
        of_weight = torch.zeros_like(weight_VH) if trains else None
        for piece in _pieces(len(targets_S), len(weight_VH)):
            h_CH, t_C = hidden_SH[piece], targets_S[piece]
            logp_CV, slope_CV = _log_softmax(h_CH, compute_VH, softcap)
            logp_S[piece] = logp_CV.gather(1, t_C[:, None])[:, 0]
            if to_hidden is None:
                continue
            p_CV, chosen_CH = logp_CV.exp_(), compute_VH[t_C]
            if slope_CV is not None:
                chosen_CH = chosen_CH * slope_CV.gather(1, t_C[:, None]).to(chosen_CH.dtype)
                p_CV.mul_(slope_CV)
            torch.addmm(chosen_CH, p_CV.to(compute_VH.dtype), compute_VH, alpha=-1.0, out=to_hidden[piece])
            if of_weight is not None:
                _add_of_weight(of_weight, p_CV, slope_CV, h_CH, t_C, expected_S[piece])
        ctx.softcap, ctx.of_weight = softcap, of_weight
        ctx.save_for_backward(to_hidden, *((hidden_SH, weight_VH, targets_S, expected_S) if trains else ()))
        return logp_S

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_S: torch.Tensor) -> tuple[Any, ...]:
        to_hidden, *trained = ctx.saved_tensors
        of_weight, ctx.of_weight = ctx.of_weight, None  # autograd copies a gradient that somebody else holds
        if trained and not torch.equal(grad_S, trained[-1]):
            of_weight = _of_weight(grad_S, *trained[:-1], softcap=ctx.softcap)
        return to_hidden * grad_S[:, None].to(to_hidden.dtype), of_weight, None, None, None, None


def logprobs(
    hidden_SH: torch.Tensor,
    weight_VH: torch.Tensor,
    targets_S: torch.Tensor,
    *,
    expected_S: torch.Tensor,
    softcap: float | None = None,
) -> torch.Tensor:
    """`Logprobs`, which makes a gradient only where one will be asked for."""
    wanted = torch.is_grad_enabled() and (hidden_SH.requires_grad or weight_VH.requires_grad)
    with torch.autocast(hidden_SH.device.type, enabled=False):
        result: torch.Tensor = Logprobs.apply(hidden_SH, weight_VH, targets_S, softcap, expected_S, wanted)
    return result


def _of_weight(
    grad_S: torch.Tensor,
    hidden_SH: torch.Tensor,
    weight_VH: torch.Tensor,
    targets_S: torch.Tensor,
    *,
    softcap: float | None,
) -> torch.Tensor:
    """Gradient to the output layer: Σ_s g_s (onehot - p)ᵀ h."""
    total_VH = torch.zeros_like(weight_VH)
    compute_VH = weight_VH.to(hidden_SH.dtype)
    for piece in _pieces(len(targets_S), len(weight_VH)):
        h_CH = hidden_SH[piece]
        logp_CV, slope_CV = _log_softmax(h_CH, compute_VH, softcap)
        p_CV = logp_CV.exp_() if slope_CV is None else logp_CV.exp_().mul_(slope_CV)
        _add_of_weight(total_VH, p_CV, slope_CV, h_CH, targets_S[piece], grad_S[piece])
    return total_VH


def _add_of_weight(
    total_VH: torch.Tensor,
    p_CV: torch.Tensor,
    slope_CV: torch.Tensor | None,
    h_CH: torch.Tensor,
    t_C: torch.Tensor,
    g_C: torch.Tensor,
) -> None:
    """Add one piece's share; `p_CV` (already times the slope) is used up."""
    hit_C1 = g_C[:, None] if slope_CV is None else g_C[:, None] * slope_CV.gather(1, t_C[:, None])
    to_logits = p_CV.mul_(-g_C[:, None]).scatter_add_(1, t_C[:, None], hit_C1)
    if total_VH.dtype == h_CH.dtype:
        total_VH.addmm_(to_logits.to(h_CH.dtype).T, h_CH)
    else:  # pieces add up in the dtype of the weight
        total_VH.add_(to_logits.to(h_CH.dtype).T @ h_CH)


def _log_softmax(
    h_CH: torch.Tensor, weight_VH: torch.Tensor, softcap: float | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """log p [C, V] in float32, and with a cap the slope of the capped logits."""
    logits_CV = (h_CH @ weight_VH.T).float()
    if softcap is None:
        return torch.log_softmax(logits_CV, dim=-1), None
    share_CV = logits_CV.div_(softcap).tanh_()
    return torch.log_softmax(share_CV * softcap, dim=-1), 1.0 - share_CV.square()


def _pieces(rows: int, vocabulary: int) -> list[slice]:
    step = max(1, PIECE_NUMBERS // vocabulary)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
