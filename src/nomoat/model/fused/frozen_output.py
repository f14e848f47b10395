"""The output layer where it does not learn: some rows and columns of logits at a time, which stay in the cache.

S supervised positions · H width · V vocabulary · C rows and B columns of one piece
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from nomoat.model.fused import kernels
from nomoat.model.fused.parts import pieces

ROWS, COLUMNS = 1024, 2048
"""The logits of one piece at most. Smaller ones multiply more slowly, larger ones leave the cache."""


class FrozenLogprobs(torch.autograd.Function):
    """log p of targets [S] for hidden states [S, H] and an output layer [V, H], float32 [S].

    What a row of logits does to its hidden state, W[target] - Σ_v p_v W[v], is summed up while they come, as flash
    attention sums values (Dao et al. 2022, arXiv:2205.14135); backward only scales it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_SH: torch.Tensor,
        weight_VH: torch.Tensor,
        targets_S: torch.Tensor,
        with_gradient: bool,
    ) -> torch.Tensor:
        compute_VH = weight_VH.to(hidden_SH.dtype)
        logp_S = hidden_SH.new_empty(len(targets_S), dtype=torch.float32)
        to_hidden = torch.empty_like(hidden_SH) if with_gradient else None
        for rows in pieces(len(targets_S), ROWS):
            h_CH, t_C = hidden_SH[rows], targets_S[rows]
            shares = kernels.Shares.none_yet(t_C)
            sum_CH = h_CH.new_zeros(h_CH.shape, dtype=torch.float32)
            for columns in pieces(len(compute_VH), COLUMNS):
                part_BH = compute_VH[columns]
                logits_CB = h_CH @ part_BH.T
                fades_C1 = kernels.share_on(
                    logits_CB, t_C, columns.start, shares, with_gradient=with_gradient
                )
                if fades_C1 is not None:
                    torch.addcmul(logits_CB @ part_BH, sum_CH, fades_C1, out=sum_CH)
            total_C = shares.total()
            logp_S[rows] = shares.own - shares.highest - total_C.log()
            if to_hidden is not None:
                sum_CH.addcmul_(compute_VH[t_C], shares.others[:, None])
                to_hidden[rows] = sum_CH.div_(total_C[:, None])
        ctx.save_for_backward(to_hidden)
        return logp_S

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_S: torch.Tensor) -> tuple[Any, ...]:
        (to_hidden,) = ctx.saved_tensors
        return to_hidden * grad_S[:, None].to(to_hidden.dtype), None, None, None
