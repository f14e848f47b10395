"""Elementwise pieces of a decoder block, forward and backward, in as few passes over memory as torch has.

They are not compiled: in float32 they are a small part of a step, and compiling took a minute (docs/log.md).

T tokens · H width · N heads · D head width · I width of the MLP
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def rms_norm(x_TH: torch.Tensor, weight_H: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467), rounded as transformers does, and 1/rms, float32 [T, 1]."""
    wide = x_TH.float()
    scale_T1 = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return rms_norm_again(x_TH, weight_H, scale_T1), scale_T1


def rms_norm_again(x_TH: torch.Tensor, weight_H: torch.Tensor, scale_T1: torch.Tensor) -> torch.Tensor:
    """The same output from what was kept: cheaper than keeping it too."""
    return (x_TH.float() * scale_T1).to(x_TH.dtype).mul_(weight_H)


def rms_norm_backward(
    grad_TH: torch.Tensor, x_TH: torch.Tensor, weight_H: torch.Tensor, scale_T1: torch.Tensor
) -> torch.Tensor:
    """Gradient to x."""
    unit = x_TH.float() * scale_T1
    inner = grad_TH.float() * weight_H.float()
    share_T1 = (inner * unit).mean(-1, keepdim=True)
    return inner.addcmul_(unit, share_T1, value=-1.0).mul_(scale_T1).to(x_TH.dtype)


def rms_norm_weight_backward(
    grad_TH: torch.Tensor, x_TH: torch.Tensor, scale_T1: torch.Tensor
) -> torch.Tensor:
    """Gradient to the weight, [H]."""
    return (x_TH.float() * scale_T1).mul_(grad_TH).sum(0)


def rotate(x_TND: torch.Tensor, cos_TD: torch.Tensor, sin_TD: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al. 2021, arXiv:2104.09864), halves as in transformers. With -sin, its gradient."""
    half = x_TND.shape[-1] // 2
    cos_T1D, sin_T1D = cos_TD[:, None], sin_TD[:, None]
    turned = x_TND * cos_T1D
    turned[..., :half].addcmul_(x_TND[..., half:], sin_T1D[..., :half], value=-1.0)
    turned[..., half:].addcmul_(x_TND[..., :half], sin_T1D[..., half:])
    return turned


def swiglu(gate_TI: torch.Tensor, up_TI: torch.Tensor) -> torch.Tensor:
    """SiLU(gate)·up (Shazeer 2020, arXiv:2002.05202)."""
    return F.silu(gate_TI).mul_(up_TI)


def swiglu_backward(
    grad_TI: torch.Tensor, gate_TI: torch.Tensor, up_TI: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients to gate and up; `grad_TI` is used up."""
    to_up = F.silu(gate_TI).mul_(grad_TI)
    to_gate: torch.Tensor = torch.ops.aten.silu_backward(grad_TI.mul_(up_TI), gate_TI)
    return to_gate, to_up
