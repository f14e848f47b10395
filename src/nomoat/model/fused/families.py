"""Which transformers blocks are computed by the fused halves, and how theirs are read.

A block is read anew at every call, so that an adapter switched off, or weights that were moved, are seen. What is
not in the table, or is asked for something the halves do not do, takes transformers' own path with the packed
attention: the same numbers, more slowly.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from nomoat.data.pack import Segments
from nomoat.model.cache import Reading, Writing
from nomoat.model.fused.blocks import Attend, AttentionHalf, Feed, MlpHalf, Norm
from nomoat.model.fused.linear import Linear
from nomoat.model.fused.segments import planned

FUSED = {
    "LlamaDecoderLayer",
    "MistralDecoderLayer",
    "Qwen2DecoderLayer",
    "Qwen3DecoderLayer",
    "Phi3DecoderLayer",
    "SmolLM3DecoderLayer",
}
"""Blocks that are norm, attention, norm, SwiGLU, with rotary positions over whole heads."""


def fuse(model: torch.nn.Module) -> None:
    """Let the blocks of a transformers decoder compute packed rows by the fused halves, where they can. The model
    stays what it is: same parameters, same names, and its own path for all else.

    A block may be told as `wanted_S` the tokens whose states are read, [S], and gives no others; fused, it makes none.
    """
    for block in model.modules():
        if type(block).__name__ in FUSED:
            # a weak reference: a block that pointed at itself would outlive its model, weights and all
            block.forward = partial(_forward, weakref.ref(block))


def _forward(
    block_ref: weakref.ref[Any],
    hidden_states: torch.Tensor,
    *args: Any,
    segments: Segments | Reading | Writing | None = None,
    position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
    wanted_S: torch.Tensor | None = None,
    **keys: Any,
) -> torch.Tensor:
    """A block's forward: fused for packed rows on a processor."""
    block = block_ref()
    assert block is not None
    if (
        not isinstance(segments, Segments)
        or position_embeddings is None
        or not _can_fuse(block, hidden_states, segments, keys)
    ):
        plain: torch.Tensor = type(block).forward(
            block, hidden_states, *args, segments=segments, position_embeddings=position_embeddings, **keys
        )
        return plain if wanted_S is None else plain[:, wanted_S]
    halves = partial(_halves, block, turns=position_embeddings, segments=segments, wanted_S=wanted_S)
    if block.gradient_checkpointing and block.training:  # as transformers' own blocks do: model/recompute.py
        again: torch.Tensor = block._gradient_checkpointing_func(halves, hidden_states)
        return again
    return halves(hidden_states)


def _halves(
    block: Any,
    x_1TH: torch.Tensor,
    *,
    turns: tuple[torch.Tensor, torch.Tensor],
    segments: Segments,
    wanted_S: torch.Tensor | None,
) -> torch.Tensor:
    """Both halves of a block, of x [1, T, H]; [1, S, H] where only some are wanted."""
    attention, mlp = read_attention(block), read_mlp(block)
    dtype = product_dtype(x_1TH)
    cos_sin = (t[0].to(dtype) for t in turns)
    with torch.autocast(x_1TH.device.type, enabled=False):
        told = attention, *cos_sin, planned(segments), dtype, wanted_S
        x_SH = Attend.apply(x_1TH[0], *told, *attention.tensors())
        x_SH = Feed.apply(x_SH, mlp, dtype, *mlp.tensors())
    return x_SH[None]


def product_dtype(x: torch.Tensor) -> torch.dtype:
    """What products of x are computed in: autocast's dtype where it is on, else that of x."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _can_fuse(block: Any, x: torch.Tensor, segments: Segments, keys: dict[str, Any]) -> bool:
    if x.device.type != "cpu" or keys.get("past_key_values") is not None:
        return False
    attention, config = block.self_attn, block.self_attn.config
    window = getattr(attention, "sliding_window", None) or getattr(config, "sliding_window", None)
    if window is not None and _longest(segments) > window:
        return False
    return is_read(block)


def is_read(block: Any) -> bool:
    """Whether `read_attention` and `read_mlp` say all that the block does."""
    if type(block).__name__ not in FUSED:
        return False
    config = block.self_attn.config
    dropout = getattr(config, "attention_dropout", 0.0) or getattr(config, "resid_pdrop", 0.0)
    turns_a_part = (config.rope_parameters or {}).get("partial_rotary_factor", 1.0) != 1.0
    if (block.training and dropout) or config.hidden_act != "silu" or turns_a_part:
        return False
    return all(_is_plain(layer, block.training) for layer in _linears(block))


def _longest(segments: Segments) -> int:
    """Tokens that the last token of any segment sees."""
    pairs = zip(segments.starts, segments.spans, strict=True)
    return max(first + end - start for first, (start, end) in pairs)


def _linears(block: Any) -> list[Any]:
    names = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj")
    found = [getattr(block.self_attn, name, None) for name in names]
    found += [
        getattr(block.mlp, name, None) for name in ("gate_proj", "up_proj", "gate_up_proj", "down_proj")
    ]
    return [layer for layer in found if layer is not None]


def _is_plain(layer: Any, training: bool) -> bool:
    """A linear layer, or one with a single plain LoRA adapter that is not folded in and drops nothing."""
    if type(layer) is torch.nn.Linear:
        return True
    adapters = getattr(layer, "active_adapters", None)
    if adapters is None or type(getattr(layer, "base_layer", None)) is not torch.nn.Linear:
        return False
    if layer.merged or len(adapters) != 1 or adapters[0] not in layer.lora_A:
        return False
    (name,) = adapters
    drops = training and not isinstance(layer.lora_dropout[name], torch.nn.Identity)
    return not drops and not layer.use_dora.get(name, False) and layer.lora_B[name].bias is None


def _read(layer: Any) -> Linear:
    if type(layer) is torch.nn.Linear:
        return Linear(layer.weight, layer.bias)
    base = layer.base_layer
    if layer.disable_adapters:
        return Linear(base.weight, base.bias)
    (name,) = layer.active_adapters
    return Linear(
        base.weight, base.bias, layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
    )


def _norm(module: Any) -> Norm:
    return Norm(module.weight, module.variance_epsilon)


def read_attention(block: Any) -> AttentionHalf:
    """The block's first half, with the weights it has now."""
    module = block.self_attn
    names = ("qkv_proj",) if hasattr(module, "qkv_proj") else ("q_proj", "k_proj", "v_proj")
    config, width = module.config, module.head_dim
    heads, shared = config.num_attention_heads, config.num_key_value_heads
    return AttentionHalf(
        norm=_norm(block.input_layernorm),
        qkv=tuple(_read(getattr(module, name)) for name in names),
        widths=(heads * width, shared * width, shared * width),
        out=_read(module.o_proj),
        head_width=width,
        scaling=module.scaling,
        rotates=bool(getattr(module, "use_rope", True)),
        head_norms=(_norm(module.q_norm), _norm(module.k_norm)) if hasattr(module, "q_norm") else None,
    )


def read_mlp(block: Any) -> MlpHalf:
    """The block's second half, with the weights it has now."""
    module = block.mlp
    names = ("gate_up_proj",) if hasattr(module, "gate_up_proj") else ("gate_proj", "up_proj")
    return MlpHalf(
        norm=_norm(block.post_attention_layernorm),
        gate_up=tuple(_read(getattr(module, name)) for name in names),
        down=_read(module.down_proj),
    )


PLAIN_OUTPUT = {
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Phi3ForCausalLM",
    "SmolLM3ForCausalLM",
    "GemmaForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
}
"""Models whose logits are hidden states times a matrix, capped at most."""


@dataclass(frozen=True)
class Output:
    """A model's decoder, and the layer [V, H] that makes logits of its hidden states."""

    decoder: Any
    weight: torch.Tensor
    softcap: float | None


def read_output(model: Any) -> Output | None:
    """The output layer that `fused.output` can compute; None where the model must do so itself."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if type(inner).__name__ not in PLAIN_OUTPUT:
        return None
    head = inner.get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.bias is not None:
        return None
    return Output(inner.get_decoder(), head.weight, getattr(inner.config, "final_logit_softcapping", None))
