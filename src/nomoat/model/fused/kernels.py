"""Elementwise pieces of a decoder block and of the output layer, forward and backward.

On a processor they are C (`train.c`), in one pass over memory each; elsewhere, without a compiler, or in another
precision, they are what torch makes of them. C computes in float32 and rounds once, to the dtype that is asked for.

T tokens · H width · N heads · D head width · I width of the MLP ·
C rows of logits · V vocabulary · B some of its columns
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from nomoat.model.fused import compiled
from nomoat.model.fused.compiled import at


def rms_norm(
    x_TH: torch.Tensor, weight_H: torch.Tensor, eps: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467) of the last dimension in `dtype`, and 1/rms, float32
    [T, 1]."""
    if (library := _library(x_TH, weight_H, dtype)) is not None:
        y_TH = torch.empty_like(x_TH, dtype=dtype)
        scale_T1 = x_TH.new_empty(*x_TH.shape[:-1], 1, dtype=torch.float32)
        library.rms_norm(at(x_TH), at(weight_H), eps, at(y_TH), at(scale_T1), *_rows(x_TH))
        return y_TH, scale_T1
    wide = x_TH.float()
    scale_T1 = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return rms_norm_again(x_TH, weight_H, scale_T1, dtype), scale_T1


def rms_norm_again(
    x_TH: torch.Tensor, weight_H: torch.Tensor, scale_T1: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """The same output from what was kept: cheaper than keeping it too."""
    if (library := _library(x_TH, weight_H, dtype)) is not None:
        y_TH = torch.empty_like(x_TH, dtype=dtype)
        library.rms_norm_again(at(x_TH), at(weight_H), at(scale_T1), at(y_TH), *_rows(x_TH))
        return y_TH
    return (x_TH.float() * scale_T1).mul_(weight_H).to(dtype)


def rms_norm_backward(
    grad_TH: torch.Tensor,
    x_TH: torch.Tensor,
    weight_H: torch.Tensor,
    scale_T1: torch.Tensor,
    more_TH: torch.Tensor | None = None,
) -> torch.Tensor:
    """Gradient to x, in its dtype, and `more_TH` with it."""
    if (library := _library(x_TH, weight_H, grad_TH.dtype)) is not None and grad_TH.is_contiguous():
        to_x = torch.empty_like(x_TH)
        more = None if more_TH is None else more_TH.contiguous()
        pointers = map(at, (grad_TH, x_TH, weight_H, scale_T1, more, to_x))
        library.rms_norm_backward(*pointers, *_rows(x_TH))
        return to_x
    unit = x_TH.float() * scale_T1
    inner = grad_TH.float() * weight_H.float()
    share_T1 = (inner * unit).mean(-1, keepdim=True)
    to_x = inner.addcmul_(unit, share_T1, value=-1.0).mul_(scale_T1).to(x_TH.dtype)
    return to_x if more_TH is None else to_x.add_(more_TH)


def rms_norm_weight_backward(
    grad_TH: torch.Tensor, x_TH: torch.Tensor, scale_T1: torch.Tensor
) -> torch.Tensor:
    """Gradient to the weight, [H]."""
    return (x_TH.float() * scale_T1).mul_(grad_TH).sum(0)


def rotate(
    x_TND: torch.Tensor, cos_TD: torch.Tensor, sin_TD: torch.Tensor, *, back: bool = False
) -> torch.Tensor:
    """Rotary positions (Su et al. 2021, arXiv:2104.09864), halves as in transformers; `back` turns the other way, which
    is the gradient."""
    rows, heads, width = x_TND.shape
    half, sign = width // 2, -1.0 if back else 1.0
    if (library := _library(x_TND[:1], cos_TD, x_TND.dtype)) is not None and sin_TD.is_contiguous():
        turned = x_TND.new_empty(rows, heads, width)
        angles = at(cos_TD), at(sin_TD), sign
        library.rotate(at(x_TND), x_TND.stride(0), *angles, at(turned), rows, heads, width)
        return turned
    cos_T1D, sin_T1D = cos_TD[:, None], sin_TD[:, None]
    turned = x_TND * cos_T1D
    turned[..., :half].addcmul_(x_TND[..., half:], sin_T1D[..., :half], value=-sign)
    turned[..., half:].addcmul_(x_TND[..., :half], sin_T1D[..., half:], value=sign)
    return turned


def swiglu(gate_TI: torch.Tensor, up_TI: torch.Tensor) -> torch.Tensor:
    """SiLU(gate)·up (Shazeer 2020, arXiv:2002.05202)."""
    if (library := _beside(gate_TI, up_TI)) is not None:
        y_TI = torch.empty(gate_TI.shape, dtype=gate_TI.dtype)
        library.swiglu(at(gate_TI), at(up_TI), gate_TI.stride(0), at(y_TI), *gate_TI.shape)
        return y_TI
    return F.silu(gate_TI).mul_(up_TI)


def swiglu_backward(
    grad_TI: torch.Tensor, gate_TI: torch.Tensor, up_TI: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients to gate and up; `grad_TI` is used up."""
    if (library := _beside(gate_TI, up_TI)) is not None and grad_TI.is_contiguous():
        to_gate, to_up = (torch.empty(gate_TI.shape, dtype=gate_TI.dtype) for _ in range(2))
        pointers = (at(t) for t in (grad_TI, gate_TI, up_TI))
        library.swiglu_backward(*pointers, gate_TI.stride(0), at(to_gate), at(to_up), *gate_TI.shape)
        return to_gate, to_up
    to_up = F.silu(gate_TI).mul_(grad_TI)
    to_gate = torch.ops.aten.silu_backward(grad_TI.mul_(up_TI), gate_TI)
    return to_gate, to_up


def log_share(
    logits_CV: torch.Tensor, targets_C: torch.Tensor, *, with_gradient: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """log p of each row's target, float32 [C]; with a gradient, the logits become the gradient of that to them, but for
    what each row is still to be multiplied with, float32 [C, 1]."""
    if (library := _library(logits_CV, logits_CV, logits_CV.dtype)) is not None:
        logp_C = logits_CV.new_empty(len(logits_CV), dtype=torch.float32)
        scale_C1 = torch.empty_like(logp_C)[:, None] if with_gradient else None
        pointers = map(at, (logits_CV, targets_C, logp_C, scale_C1))
        library.log_share(*pointers, *logits_CV.shape)
        return logp_C, scale_C1
    logp_CV = torch.log_softmax(logits_CV.float(), dim=-1)
    logp_C = logp_CV.gather(1, targets_C[:, None])[:, 0]
    if not with_gradient:
        return logp_C, None
    at_target = -torch.expm1(logp_C)
    logits_CV.copy_(logp_CV.exp_().neg_()).scatter_(
        1, targets_C[:, None], at_target[:, None].to(logits_CV.dtype)
    )
    return logp_C, torch.ones_like(logp_C)[:, None]


@dataclass(frozen=True)
class Shares:
    """What is known of the softmax of C rows once some columns were seen, float32 [C]: the `highest` logit, the sum of
    e^(x - highest) of all `others` than the target, and the target's `own` logit, if it was among them."""

    highest: torch.Tensor
    others: torch.Tensor
    own: torch.Tensor

    @staticmethod
    def none_yet(like_C: torch.Tensor) -> Shares:
        highest, others, own = like_C.new_zeros(3, len(like_C), dtype=torch.float32)
        return Shares(highest.fill_(-torch.inf), others, own)

    def total(self) -> torch.Tensor:
        """The sum over all columns, when all were seen, [C]."""
        return self.others + (self.own - self.highest).exp_()


def share_on(
    logits_CB: torch.Tensor, targets_C: torch.Tensor, first: int, shares: Shares, *, with_gradient: bool
) -> torch.Tensor | None:
    """`shares` with B columns more, from `first` on. With a gradient, the logits become -e^(x - highest), 0 at the
    target, and what was made of earlier columns is to be multiplied with what comes back, float32 [C, 1]."""
    highest, others, own = shares.highest, shares.others, shares.own
    if (library := _library(logits_CB, logits_CB, logits_CB.dtype)) is not None:
        fades_C1 = torch.empty_like(highest)[:, None] if with_gradient else None
        pointers = map(at, (highest, others, own, fades_C1))
        library.share_on(at(logits_CB), at(targets_C), first, *pointers, *logits_CB.shape)
        return fades_C1
    there_C = (targets_C >= first) & (targets_C < first + logits_CB.shape[1])
    place_C1 = (targets_C - first).where(there_C, 0)[:, None]
    wide_CB = logits_CB.float()
    most_C, found_C = torch.maximum(highest, wide_CB.amax(1)), wide_CB.gather(1, place_C1)[:, 0]
    own.copy_(found_C.where(there_C, own))
    wide_CB.scatter_(1, place_C1, found_C.where(~there_C, -torch.inf)[:, None])
    wide_CB.sub_(most_C[:, None]).exp_()
    fades_C1 = (highest - most_C).exp_()[:, None]
    others.mul_(fades_C1[:, 0]).add_(wide_CB.sum(1))
    highest.copy_(most_C)
    if not with_gradient:
        return None
    logits_CB.copy_(wide_CB.neg_())
    return fades_C1


def _library(x: torch.Tensor, other: torch.Tensor, dtype: torch.dtype) -> ctypes.CDLL | None:
    """What computes rows that lie one after the other; `other` has the dtype of x."""
    if x.device.type != "cpu" or other.dtype != x.dtype or not (x.is_contiguous() and other.is_contiguous()):
        return None
    return compiled.training(x.dtype, dtype)


def _beside(gate_TI: torch.Tensor, up_TI: torch.Tensor) -> ctypes.CDLL | None:
    """What computes both, whose rows lie equally far apart."""
    alike = gate_TI.stride() == up_TI.stride() and gate_TI.stride(1) == 1 and gate_TI.dtype == up_TI.dtype
    return compiled.training(gate_TI.dtype, gate_TI.dtype) if alike and gate_TI.device.type == "cpu" else None


def _rows(x: torch.Tensor) -> tuple[int, int]:
    """Rows, and how wide they are."""
    return x.numel() // x.shape[-1], x.shape[-1]
