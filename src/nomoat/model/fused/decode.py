"""A decoder that writes one token a row: what it does between two tokens, and nothing else.

For so few tokens a step's time is weights read from memory and calls made by Python. So the layers that share an
input are put side by side once, with their adapters folded in, and a block is some twenty calls.

R rows · H width · D head width · I inputs · O outputs
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from nomoat.model.cache import Writing
from nomoat.model.fused import compiled, kernels, linear, native
from nomoat.model.fused.blocks import AttentionHalf, MlpHalf, Norm
from nomoat.model.fused.families import Output, is_read, read_attention, read_mlp, read_output
from nomoat.model.fused.linear import Linear
from nomoat.model.fused.native import NativeBlock

FOLDED_BYTES = 1 << 30
"""Layers are copied, to stand side by side, in a decoder of at most this size; in a larger one they stay."""

_ROWS_IN_MIND = 16

Step = Callable[[torch.Tensor, Writing], torch.Tensor]
"""Token ids [R] and where they go -> logits [R, V] of the tokens after them, float32, until the next step."""

Layer = Callable[[torch.Tensor], torch.Tensor]


def read_step(model: Any) -> Step | None:
    """The step of a causal language model with the weights it has now; None where only the model itself knows its
    step. Without gradient: call it under `torch.no_grad`."""
    output = read_output(model)
    if output is None or output.softcap is not None or not all(map(is_read, output.decoder.layers)):
        return None
    if (output.decoder.config.rope_parameters or {}).get("rope_type", "default") in ("dynamic", "longrope"):
        return None  # their angles depend on the longest position
    norm, weight_VH = _norm(output.decoder.norm), output.weight
    blocks = [_Block.of(block) for block in output.decoder.layers]
    if (library := _library(output, blocks)) is not None:
        native_blocks = [block.in_c(library) for block in blocks]
        head = native.output_layer(library, norm, weight_VH)
        return _step(output.decoder, native_blocks, head, torch.float32)
    if sum(block.numbers for block in blocks) * weight_VH.itemsize <= FOLDED_BYTES:
        blocks = [block.folded(weight_VH.dtype, transposed=True) for block in blocks]
    return _step(output.decoder, blocks, _output_layer(norm, weight_VH), weight_VH.dtype)


def _library(output: Output, blocks: Sequence[_Block]) -> Any:
    """The functions in C, where the model is on a processor and may be copied, in float32 whatever it is in: a small
    change that an adapter has learned would be rounded away in bfloat16."""
    if not all(p.device.type == "cpu" for p in (output.weight, *output.decoder.parameters())):
        return None
    numbers = max(sum(block.numbers for block in blocks), output.weight.numel())
    return compiled.decoding() if numbers * torch.float32.itemsize <= FOLDED_BYTES else None


def _step(
    decoder: Any, blocks: Sequence[_Block | NativeBlock], output_layer: Layer, dtype: torch.dtype
) -> Step:
    embed, turn = decoder.get_input_embeddings(), decoder.rotary_emb

    def step(tokens_R: torch.Tensor, writing: Writing) -> torch.Tensor:
        x_RH = embed(tokens_R).to(dtype)
        turns = [t[0].contiguous() for t in turn(x_RH, position_ids=writing.positions_R[None])]
        for index, block in enumerate(blocks):
            x_RH = block(x_RH, turns, writing, index)
        return output_layer(x_RH)

    return step


@dataclass(frozen=True)
class _Block:
    attention: AttentionHalf
    mlp: MlpHalf
    window: int | None

    @staticmethod
    def of(block: Any) -> _Block:
        module = block.self_attn
        window = getattr(module, "sliding_window", getattr(module.config, "sliding_window", None))
        return _Block(read_attention(block), read_mlp(block), window)

    @property
    def numbers(self) -> int:
        """How many its linear layers hold."""
        layers = *self.attention.qkv, self.attention.out, *self.mlp.gate_up, self.mlp.down
        return sum(layer.weight.numel() for layer in layers)

    def folded(self, dtype: torch.dtype, *, transposed: bool) -> _Block:
        """The same block with one layer where several share an input, and without adapters. `transposed` weights lie
        as [I, O], where torch multiplies few rows fastest."""
        a, m, fold = self.attention, self.mlp, partial(_fold, dtype=dtype, transposed=transposed)
        attention = AttentionHalf(
            a.norm,
            (fold(a.qkv),),
            a.widths,
            fold((a.out,)),
            a.head_width,
            a.scaling,
            a.head_norms,
            a.rotates,
        )
        return _Block(attention, MlpHalf(m.norm, (fold(m.gate_up),), fold((m.down,))), self.window)

    def in_c(self, library: Any) -> NativeBlock:
        """The same block in C."""
        block = self.folded(torch.float32, transposed=False)
        return NativeBlock.of(library, block.attention, block.mlp, block.window)

    def __call__(
        self, x_RH: torch.Tensor, turns: Sequence[torch.Tensor], writing: Writing, index: int
    ) -> torch.Tensor:
        half = self.attention
        qkv = _apply(half.qkv, _normed(x_RH, half.norm))
        q, k, v = (
            part.unflatten(1, (-1, half.head_width))
            for part in (qkv.split(half.widths, dim=1) if isinstance(qkv, torch.Tensor) else qkv)
        )
        if half.head_norms is not None:
            q, k = (_normed(y, norm) for y, norm in zip((q, k), half.head_norms, strict=True))
        if half.rotates:
            q, k = (kernels.rotate(y, *turns) for y in (q, k))
        mixed = writing.attend(index, q, k, v, scaling=half.scaling, window=self.window)
        x_RH = _add(half.out, mixed.flatten(1), x_RH)
        both = _apply(self.mlp.gate_up, _normed(x_RH, self.mlp.norm))
        gate, up = both.chunk(2, dim=1) if isinstance(both, torch.Tensor) else both
        return _add(self.mlp.down, kernels.swiglu(gate, up), x_RH)


def _apply(layers: tuple[Linear, ...], x_RI: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
    outputs, _ = linear.forward(layers, x_RI)
    return outputs[0] if len(outputs) == 1 else outputs


def _add(layer: Linear, x_RI: torch.Tensor, residual_RO: torch.Tensor) -> torch.Tensor:
    if layer.lora_a is None and layer.bias is None:
        return torch.addmm(residual_RO, x_RI, layer.weight.T)
    (y_RO,), _ = linear.forward((layer,), x_RI)
    return y_RO.add_(residual_RO)


def _normed(x: torch.Tensor, norm: Norm) -> torch.Tensor:
    return kernels.rms_norm(x, norm.weight, norm.eps, x.dtype)[0]


def _norm(module: Any) -> Norm:
    return Norm(module.weight, module.variance_epsilon)


def _output_layer(norm: Norm, weight_VH: torch.Tensor) -> Layer:
    """The last norm and the output layer: most of a step of a small model. oneDNN's own order of a copy is read
    faster than the weight as it stands."""
    plain = weight_VH.device.type != "cpu" or weight_VH.dtype != torch.float32
    if plain or weight_VH.nbytes > FOLDED_BYTES or not torch.backends.mkldnn.is_available():
        return lambda x_RH: (_normed(x_RH, norm) @ weight_VH.T).float()
    ordered = torch.ops.mkldnn._reorder_linear_weight(weight_VH.detach(), _ROWS_IN_MIND)
    return lambda x_RH: torch.ops.mkldnn._linear_pointwise(_normed(x_RH, norm), ordered, None, "none", [], "")


def _fold(layers: Sequence[Linear], *, dtype: torch.dtype, transposed: bool) -> Linear:
    """Layers with one input as one, their outputs side by side and their adapters added to their weights."""
    weight = torch.cat([_with_adapter(layer, dtype) for layer in layers])
    if transposed:
        weight = weight.T.contiguous().T
    biases = [layer.bias for layer in layers]
    if all(bias is None for bias in biases):
        return Linear(weight, None)
    return Linear(
        weight,
        torch.cat(
            [
                weight.new_zeros(len(layer.weight)) if bias is None else bias.to(dtype)
                for layer, bias in zip(layers, biases, strict=True)
            ]
        ),
    )


def _with_adapter(layer: Linear, dtype: torch.dtype) -> torch.Tensor:
    if layer.lora_a is None or layer.lora_b is None:
        return layer.weight.detach().to(dtype)
    change = layer.lora_b.float() @ layer.lora_a.float()
    return (layer.weight.float() + change.mul_(layer.scale)).to(dtype)
