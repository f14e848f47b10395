"""Linear layers that share an input, with their adapters: one small product more beside the frozen one.

y = x Wᵀ + bias + scale · (x Aᵀ) Bᵀ, as PEFT computes it. Forward keeps x and x Aᵀ; backward makes no gradient for a
frozen weight, and no copy of one.

All products are in the dtype of x; gradients come in those of the weights.

T tokens · I inputs · O outputs · R ranks of all layers together
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Linear:
    """A linear layer as it is: `weight` [O, I], perhaps a bias [O] and an adapter A [r, I], B [O, r]."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    lora_a: torch.Tensor | None = None
    lora_b: torch.Tensor | None = None
    scale: float = 1.0

    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        """What may be trained, in the order in which `backward` gives gradients."""
        return self.weight, self.bias, self.lora_a, self.lora_b


def forward(layers: Sequence[Linear], x_TI: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """The layers' outputs [T, O], and x Aᵀ of all their adapters, [T, R]."""
    down_RI = _all_a(layers, x_TI)
    low_TR = None if down_RI is None else x_TI @ down_RI.T
    outputs = []
    for layer, low_Tr in zip(layers, _split(layers, low_TR), strict=True):
        weight_IO = layer.weight.to(x_TI.dtype).T
        if layer.bias is None:
            y_TO = x_TI @ weight_IO
        else:
            y_TO = torch.addmm(layer.bias.to(x_TI.dtype), x_TI, weight_IO)
        if layer.lora_b is not None:
            assert low_Tr is not None
            y_TO.addmm_(low_Tr, layer.lora_b.to(x_TI.dtype).T, alpha=layer.scale)
        outputs.append(y_TO)
    return outputs, low_TR


def backward(
    layers: Sequence[Linear],
    x_TI: torch.Tensor,
    low_TR: torch.Tensor | None,
    grads_TO: Sequence[torch.Tensor],
    *,
    needs_input: bool,
) -> tuple[torch.Tensor | None, list[torch.Tensor | None]]:
    """Gradient to x (None unless needed) and to every layer's `tensors`, None for what is frozen."""
    to_low = [
        None if layer.lora_b is None else (grad_TO @ layer.lora_b.to(grad_TO.dtype)).mul_(layer.scale)
        for layer, grad_TO in zip(layers, grads_TO, strict=True)
    ]
    adapted = [grad for grad in to_low if grad is not None]
    to_low_TR = torch.cat(adapted, dim=1) if adapted else None
    to_a_RI = None if to_low_TR is None else to_low_TR.T @ x_TI
    gradients: list[torch.Tensor | None] = []
    at = 0
    for layer, grad_TO, low_Tr in zip(layers, grads_TO, _split(layers, low_TR), strict=True):
        of_weight = (grad_TO.T @ x_TI).to(layer.weight.dtype) if layer.weight.requires_grad else None
        gradients.append(of_weight)
        bias = layer.bias
        gradients.append(
            grad_TO.sum(0, dtype=bias.dtype) if bias is not None and bias.requires_grad else None
        )
        if layer.lora_a is None or layer.lora_b is None:
            gradients += [None, None]
            continue
        assert to_a_RI is not None
        assert low_Tr is not None
        rank = layer.lora_a.shape[0]
        gradients.append(to_a_RI[at : at + rank].to(layer.lora_a.dtype))
        gradients.append((grad_TO.T @ low_Tr).mul_(layer.scale).to(layer.lora_b.dtype))
        at += rank
    if not needs_input:
        return None, gradients
    to_x_TI = grads_TO[0] @ layers[0].weight.to(x_TI.dtype)
    for layer, grad_TO in zip(layers[1:], grads_TO[1:], strict=True):
        to_x_TI.addmm_(grad_TO, layer.weight.to(x_TI.dtype))
    if to_low_TR is not None:
        down_RI = _all_a(layers, x_TI)
        assert down_RI is not None
        to_x_TI.addmm_(to_low_TR, down_RI)
    return to_x_TI, gradients


def _all_a(layers: Sequence[Linear], x_TI: torch.Tensor) -> torch.Tensor | None:
    found = [layer.lora_a.to(x_TI.dtype) for layer in layers if layer.lora_a is not None]
    if len(found) > 1:
        return torch.cat(found)
    return found[0] if found else None


def _split(layers: Sequence[Linear], low_TR: torch.Tensor | None) -> list[torch.Tensor | None]:
    parts: list[torch.Tensor | None] = []
    at = 0
    for layer in layers:
        if layer.lora_a is None or low_TR is None:
            parts.append(None)
            continue
        parts.append(low_TR[:, at : at + layer.lora_a.shape[0]])
        at += layer.lora_a.shape[0]
    return parts
