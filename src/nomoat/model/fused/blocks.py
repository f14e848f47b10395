"""The two halves of a decoder block as one autograd function each, for packed tokens.

A half keeps its input, the products that are dear to make again, and nothing else; what is cheap is made again
in backward. Gradients are made only for what is trained; a half below which nothing is trained ends
backpropagation.

T tokens · S tokens whose outputs are wanted · H width · N query heads · K key/value heads · D head width
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from nomoat.model.fused import kernels, linear, segments
from nomoat.model.fused.linear import Linear


@dataclass(frozen=True)
class Norm:
    """An RMSNorm."""

    weight: torch.Tensor
    eps: float


@dataclass(frozen=True)
class AttentionHalf:
    """x + o(attention(rotate(q), rotate(k), v)) of the normed x.

    `qkv` is three layers, or one whose outputs stand side by side; `widths` says how wide each part is.
    `head_norms` are Qwen 3's, of every head; some of SmolLM 3's blocks do not rotate.
    """

    norm: Norm
    qkv: tuple[Linear, ...]
    widths: tuple[int, int, int]
    out: Linear
    head_width: int
    scaling: float
    head_norms: tuple[Norm, Norm] | None = None
    rotates: bool = True

    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        """What may be trained, in the order of the gradients."""
        norms = [norm.weight for norm in self.head_norms] if self.head_norms else []
        layers = (*self.qkv, self.out)
        return self.norm.weight, *norms, *(t for layer in layers for t in layer.tensors())


@dataclass(frozen=True)
class MlpHalf:
    """x + down(SiLU(gate)·up) of the normed x; `gate_up` is two layers, or one with both side by side."""

    norm: Norm
    gate_up: tuple[Linear, ...]
    down: Linear

    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        """What may be trained, in the order of the gradients."""
        return self.norm.weight, *(t for layer in (*self.gate_up, self.down) for t in layer.tensors())


class Attend(torch.autograd.Function):
    """`AttentionHalf` of x [T, H], with rotary cos and sin [T, D] and the plan of its segments. Products are in
    `dtype`, the residual sum in that of x. Of the outputs only those of the rows `wanted_S` are made, where it is."""

    @staticmethod
    def forward(
        ctx: Any,
        x_TH: torch.Tensor,
        half: AttentionHalf,
        cos_TD: torch.Tensor,
        sin_TD: torch.Tensor,
        plan: segments.Plan,
        dtype: torch.dtype,
        wanted_S: torch.Tensor | None,
        *tensors: torch.Tensor | None,
    ) -> torch.Tensor:
        normed_TH, scale_T1 = kernels.rms_norm(x_TH, half.norm.weight, half.norm.eps, dtype)
        raw, low_TR = linear.forward(half.qkv, normed_TH)
        del normed_TH
        raw_q, raw_k, v_TKD = (part.view(len(x_TH), -1, half.head_width) for part in _parts(raw, half.widths))
        head_scales: list[torch.Tensor] = []
        q_TND, k_TKD = raw_q, raw_k
        if half.head_norms is not None:
            (q_TND, q_scale), (k_TKD, k_scale) = (
                kernels.rms_norm(y, norm.weight, norm.eps, dtype)
                for y, norm in zip((raw_q, raw_k), half.head_norms, strict=True)
            )
            head_scales = [raw_q, q_scale, raw_k, k_scale]
        if half.rotates:
            q_TND, k_TKD = (kernels.rotate(y, cos_TD, sin_TD) for y in (q_TND, k_TKD))
        mixed_TND, sums_TN = segments.forward(q_TND, k_TKD, v_TKD, plan, half.scaling)
        (out_SH,), out_low = linear.forward((half.out,), _of(mixed_TND.flatten(1), wanted_S))
        ctx.half, ctx.plan, ctx.dtype, ctx.wanted_S = half, plan, dtype, wanted_S
        ctx.save_for_backward(
            x_TH,
            scale_T1,
            cos_TD,
            sin_TD,
            q_TND,
            k_TKD,
            v_TKD,
            mixed_TND,
            sums_TN,
            low_TR,
            out_low,
            *head_scales,
        )
        return _sum(out_SH, _of(x_TH, wanted_S))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_SH: torch.Tensor) -> tuple[Any, ...]:
        half: AttentionHalf = ctx.half
        x_TH, scale_T1, cos_TD, sin_TD, *rest = ctx.saved_tensors
        q_TND, k_TKD, v_TKD, mixed_TND, sums_TN, low_TR, out_low, *head_scales = rest
        mixed_SO = _of(mixed_TND.flatten(1), ctx.wanted_S)
        grads = (grad_SH.to(ctx.dtype),)
        to_mixed, of_out = linear.backward((half.out,), mixed_SO, out_low, grads, needs_input=True)
        assert to_mixed is not None
        to_mixed = _to_all(to_mixed, ctx.wanted_S, len(x_TH))
        to_q, to_k, to_v = segments.backward(
            to_mixed.view_as(mixed_TND), q_TND, k_TKD, v_TKD, mixed_TND, sums_TN, ctx.plan, half.scaling
        )
        if half.rotates:
            to_q, to_k = (kernels.rotate(grad, cos_TD, sin_TD, back=True) for grad in (to_q, to_k))
        of_head_norms: list[torch.Tensor | None] = []
        if half.head_norms is not None:
            raw_q, q_scale, raw_k, k_scale = head_scales
            to_q, of_q = _norm_backward(to_q, raw_q, half.head_norms[0], q_scale)
            to_k, of_k = _norm_backward(to_k, raw_k, half.head_norms[1], k_scale)
            of_head_norms = [of_q, of_k]
        to_qkv = _joined((to_q.flatten(1), to_k.flatten(1), to_v.flatten(1)), half.qkv)
        needs_input = ctx.needs_input_grad[0] or half.norm.weight.requires_grad
        normed_TH = kernels.rms_norm_again(x_TH, half.norm.weight, scale_T1, ctx.dtype)
        to_normed, of_qkv = linear.backward(half.qkv, normed_TH, low_TR, to_qkv, needs_input=needs_input)
        to_x, of_norm = None, None
        if to_normed is not None:
            more_TH = _to_all(grad_SH, ctx.wanted_S, len(x_TH))
            to_x, of_norm = _norm_backward(to_normed, x_TH, half.norm, scale_T1, more_TH)
        return to_x, None, None, None, None, None, None, of_norm, *of_head_norms, *of_qkv, *of_out


class Feed(torch.autograd.Function):
    """`MlpHalf` of x [T, H], its products in `dtype`."""

    @staticmethod
    def forward(
        ctx: Any, x_TH: torch.Tensor, half: MlpHalf, dtype: torch.dtype, *tensors: torch.Tensor | None
    ) -> torch.Tensor:
        normed_TH, scale_T1 = kernels.rms_norm(x_TH, half.norm.weight, half.norm.eps, dtype)
        both, low_TR = linear.forward(half.gate_up, normed_TH)
        del normed_TH
        width = sum(y_TO.shape[1] for y_TO in both) // 2
        gate_TI, up_TI = _parts(both, (width, width))
        (out_TH,), down_low = linear.forward((half.down,), kernels.swiglu(gate_TI, up_TI))
        ctx.half, ctx.dtype = half, dtype
        ctx.save_for_backward(x_TH, scale_T1, gate_TI, up_TI, low_TR, down_low)
        return _sum(out_TH, x_TH)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TH: torch.Tensor) -> tuple[Any, ...]:
        half: MlpHalf = ctx.half
        x_TH, scale_T1, gate_TI, up_TI, low_TR, down_low = ctx.saved_tensors
        mixed_TI = kernels.swiglu(gate_TI, up_TI)
        grads = (grad_TH.to(ctx.dtype),)
        to_mixed, of_down = linear.backward((half.down,), mixed_TI, down_low, grads, needs_input=True)
        del mixed_TI
        assert to_mixed is not None
        to_gate_up = _joined(kernels.swiglu_backward(to_mixed, gate_TI, up_TI), half.gate_up)
        needs_input = ctx.needs_input_grad[0] or half.norm.weight.requires_grad
        normed_TH = kernels.rms_norm_again(x_TH, half.norm.weight, scale_T1, ctx.dtype)
        to_normed, of_gate_up = linear.backward(
            half.gate_up, normed_TH, low_TR, to_gate_up, needs_input=needs_input
        )
        to_x, of_norm = None, None
        if to_normed is not None:
            to_x, of_norm = _norm_backward(to_normed, x_TH, half.norm, scale_T1, grad_TH)
        return to_x, None, None, of_norm, *of_gate_up, *of_down


def _of(x_TH: torch.Tensor, wanted_S: torch.Tensor | None) -> torch.Tensor:
    return x_TH if wanted_S is None else x_TH[wanted_S]


def _to_all(grad_SH: torch.Tensor, wanted_S: torch.Tensor | None, rows: int) -> torch.Tensor:
    """The gradient to all rows from that to the wanted ones; a row may be wanted twice."""
    if wanted_S is None:
        return grad_SH
    return grad_SH.new_zeros(rows, grad_SH.shape[1]).index_add_(0, wanted_S, grad_SH)


def _sum(out_TH: torch.Tensor, x_TH: torch.Tensor) -> torch.Tensor:
    """The residual sum, in the dtype of x; `out_TH` is used up."""
    return out_TH.add_(x_TH) if out_TH.dtype == x_TH.dtype else x_TH + out_TH


def _parts(outputs: Sequence[torch.Tensor], widths: tuple[int, ...]) -> Sequence[torch.Tensor]:
    """One tensor a part, whether the layers were one or several."""
    return outputs if len(outputs) == len(widths) else outputs[0].split(widths, dim=1)


def _joined(grads: Sequence[torch.Tensor], layers: Sequence[Linear]) -> Sequence[torch.Tensor]:
    """One gradient a layer."""
    return grads if len(grads) == len(layers) else (torch.cat(list(grads), dim=1),)


def _norm_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    norm: Norm,
    scale: torch.Tensor,
    more: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradient to the norm's input, `more` with it, and to its weight where that is trained."""
    of_weight = None
    if norm.weight.requires_grad:
        width = x.shape[-1]
        of_weight = kernels.rms_norm_weight_backward(
            grad.reshape(-1, width), x.reshape(-1, width), scale.reshape(-1, 1)
        ).to(norm.weight.dtype)
    return kernels.rms_norm_backward(grad, x, norm.weight, scale, more), of_weight
