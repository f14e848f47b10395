"""The output layer at the supervised positions, forward and backward together, in pieces.

No [T, V] matrix is made, and none of [S, V]: a piece of some rows is computed, read and overwritten by the next.
On a processor, where the layer does not learn and has no cap, a piece is smaller still (`frozen_output.py`).

S supervised positions · H width · V vocabulary · C rows of one piece
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from nomoat.model.fused import kernels
from nomoat.model.fused.frozen_output import FrozenLogprobs
from nomoat.model.fused.parts import pieces

PIECE_ROWS, PIECE_BYTES, COLUMNS = 512, 48 << 20, 4096
"""The logits of one piece at most, with fewer rows or with more of which a processor multiplies more slowly; and the
columns of them whose gradient to the layer is added up at once."""


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
        for piece, room_CV in _pieces(len(targets_S), compute_VH):
            h_CH, t_C = hidden_SH[piece], targets_S[piece]
            logits_CV, slope_CV = _logits(h_CH, compute_VH, softcap, room_CV)
            logp_S[piece], scale_C1 = kernels.log_share(logits_CV, t_C, with_gradient=with_gradient)
            if to_hidden is None or scale_C1 is None:
                continue
            to_logits_CV = _uncapped(logits_CV, slope_CV, compute_VH.dtype)
            torch.mm(to_logits_CV, compute_VH, out=to_hidden[piece]).mul_(scale_C1)
            if of_weight is not None:
                _add_of_weight(of_weight, to_logits_CV, h_CH, scale_C1 * expected_S[piece, None])
        ctx.softcap, ctx.of_weight = softcap, of_weight
        ctx.save_for_backward(to_hidden, *((hidden_SH, weight_VH, targets_S, expected_S) if trains else ()))
        return logp_S

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_S: torch.Tensor) -> tuple[Any, ...]:
        to_hidden, *trained = ctx.saved_tensors
        of_weight, ctx.of_weight = ctx.of_weight, None  # autograd copies a gradient that somebody else holds
        if trained and not torch.equal(grad_S, trained[-1]):
            of_weight = None  # it is as large as the layer
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
    """`Logprobs`, or `FrozenLogprobs` (see above); a gradient is made only where one will be asked for."""
    wanted = torch.is_grad_enabled() and (hidden_SH.requires_grad or weight_VH.requires_grad)
    result: torch.Tensor
    with torch.autocast(hidden_SH.device.type, enabled=False):
        if softcap is None and not weight_VH.requires_grad and hidden_SH.device.type == "cpu":
            result = FrozenLogprobs.apply(hidden_SH, weight_VH, targets_S, wanted)
        else:
            result = Logprobs.apply(hidden_SH, weight_VH, targets_S, softcap, expected_S, wanted)
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
    for piece, room_CV in _pieces(len(targets_S), compute_VH):
        h_CH = hidden_SH[piece]
        logits_CV, slope_CV = _logits(h_CH, compute_VH, softcap, room_CV)
        _, scale_C1 = kernels.log_share(logits_CV, targets_S[piece], with_gradient=True)
        assert scale_C1 is not None
        to_logits_CV = _uncapped(logits_CV, slope_CV, compute_VH.dtype)
        _add_of_weight(total_VH, to_logits_CV, h_CH, scale_C1 * grad_S[piece, None])
    return total_VH


def _add_of_weight(
    total_VH: torch.Tensor, to_logits_CV: torch.Tensor, h_CH: torch.Tensor, weight_C1: torch.Tensor
) -> None:
    """Add one piece's share: what a change of its logits does, its rows weighed."""
    weighed_CH = (h_CH * weight_C1).to(h_CH.dtype)
    if total_VH.dtype == h_CH.dtype:
        total_VH.addmm_(to_logits_CV.T, weighed_CH)
    else:  # pieces add up in the dtype of the weight, into which a processor copies what it adds: so not all at once
        most = COLUMNS if total_VH.device.type == "cpu" else len(total_VH)
        for columns in pieces(len(total_VH), most):
            total_VH[columns].add_(to_logits_CV[:, columns].T @ weighed_CH)


def _logits(
    h_CH: torch.Tensor, weight_VH: torch.Tensor, softcap: float | None, room_CV: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits [C, V], made in `room_CV`, or with a cap those that are capped, and their slope."""
    logits_CV = torch.mm(h_CH, weight_VH.T, out=room_CV)
    if softcap is None:
        return logits_CV, None
    share_CV = logits_CV.float().div_(softcap).tanh_()
    return share_CV * softcap, 1.0 - share_CV.square()


def _uncapped(to_logits_CV: torch.Tensor, slope_CV: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """The gradient to the logits before their cap, from that to those after it."""
    return to_logits_CV if slope_CV is None else to_logits_CV.mul_(slope_CV).to(dtype)


def logits_at_once(rows: int, vocabulary: int, number_bytes: int) -> int:
    """Numbers in the largest piece of so many rows."""
    return min(rows, _most_rows(vocabulary, number_bytes)) * vocabulary


def _most_rows(vocabulary: int, number_bytes: int) -> int:
    return min(PIECE_ROWS, max(1, PIECE_BYTES // (vocabulary * number_bytes)))


def _pieces(rows: int, weight_VH: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """The rows of each piece, and room for its logits [C, V], which every piece uses again."""
    room = None
    for piece in pieces(rows, _most_rows(len(weight_VH), weight_VH.itemsize)):
        count = piece.stop - piece.start
        room = weight_VH.new_empty(count, len(weight_VH)) if room is None else room
        yield piece, room[:count]
