"""The model families that can be written as GGUF: one row a family, and what the rows mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, GGUFWriter, RopeScalingType

from nomoat.errors import ModelError


@dataclass(frozen=True)
class Family:
    """How llama.cpp's idea of an architecture differs from transformers'.

    Attributes:
        arch: llama.cpp's name for it.
        interleaved: llama.cpp rotates neighbouring values of a head and transformers its two halves, so the
            rows of the query and key matrices change places.
        norm_plus_one: transformers multiplies by 1 + weight, llama.cpp by weight.
        window_period: of so many layers the last attends to everything and the others to a window; 0 where
            llama.cpp knows no window.
        scores_from: the last of a layer's tensors that the attention scores are linear in; '' where llama.cpp
            and transformers always divide the scores by the same number.
        wide_scale_layers: at this depth alone llama.cpp divides scores by sqrt(hidden / heads) and not by
            sqrt(head_dim).
        no_rope_period: of so many layers the last has no rotation; 0 for none.
    """

    arch: MODEL_ARCH
    interleaved: bool = False
    norm_plus_one: bool = False
    window_period: int = 0
    scores_from: str = ""
    wide_scale_layers: int = 0
    no_rope_period: int = 0


FAMILIES = {
    "LlamaForCausalLM": Family(MODEL_ARCH.LLAMA, interleaved=True),
    "MistralForCausalLM": Family(MODEL_ARCH.LLAMA, interleaved=True),
    "Qwen2ForCausalLM": Family(MODEL_ARCH.QWEN2),
    "Qwen3ForCausalLM": Family(MODEL_ARCH.QWEN3),
    "GemmaForCausalLM": Family(MODEL_ARCH.GEMMA, norm_plus_one=True),
    "Gemma2ForCausalLM": Family(
        MODEL_ARCH.GEMMA2, norm_plus_one=True, window_period=2, scores_from="q_proj", wide_scale_layers=46
    ),
    "Gemma3ForCausalLM": Family(
        MODEL_ARCH.GEMMA3, norm_plus_one=True, window_period=6, scores_from="q_norm", wide_scale_layers=62
    ),
    "Phi3ForCausalLM": Family(MODEL_ARCH.PHI3),
    "SmolLM3ForCausalLM": Family(MODEL_ARCH.SMOLLM3, interleaved=True, no_rope_period=4),
}


def family_of(config: Any) -> Family:
    """The row for a transformers config.

    Raises:
        ModelError: the architecture has no row, or the config asks for what llama.cpp cannot compute.
    """
    names = list(config.architectures or [])
    if len(names) != 1 or names[0] not in FAMILIES:
        raise ModelError(
            f"config.json: architectures: got {names}; GGUF can be written for {', '.join(FAMILIES)}",
            hint="Choose another base: what cannot be a GGUF file could not be served.",
        )
    family = FAMILIES[names[0]]
    _check_computable(config, family, names[0])
    return family


def head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def context_length(config: Any, family: Family) -> int:
    """Tokens up to which llama.cpp computes what transformers does; the file does not claim more.

    Where llama.cpp has no window the two part beyond the window. LongRoPE has one set of factors up to its
    original context and one beyond; transformers goes by the text's length and llama.cpp by the context's, so
    in a longer context it would compute short texts with the wrong set.
    """
    limits = [int(config.max_position_embeddings)]
    window = getattr(config, "sliding_window", None)
    if window and not family.window_period and _uses_window(config):
        limits.append(int(window))
    if _rope(config)["rope_type"] == "longrope":
        limits.append(_original_context(config, _rope(config)))
    return min(limits)


def write_hyperparameters(writer: GGUFWriter, config: Any, family: Family) -> None:
    """Everything llama.cpp's loader asks of the architecture, vocabulary aside."""
    dim = head_dim(config)
    writer.add_context_length(context_length(config, family))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(_rotated_dim(config))
    if family.window_period:
        writer.add_sliding_window(config.sliding_window)
    if getattr(config, "attn_logit_softcapping", None):
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if getattr(config, "final_logit_softcapping", None):
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    _write_rope(writer, config)


def rope_tensors(config: Any) -> dict[str, np.ndarray]:
    """Rotation factors that llama.cpp reads as tensors: float32 [rotated_dim / 2] each."""
    rope = _rope(config)
    if rope["rope_type"] == "llama3":
        return {"rope_freqs.weight": _llama3_factors(rope, _rotated_dim(config))}
    if rope["rope_type"] == "longrope":
        return {
            f"rope_factors_{kind}.weight": np.asarray(rope[f"{kind}_factor"], dtype=np.float32)
            for kind in ("long", "short")
        }
    return {}


def score_factor(config: Any, family: Family) -> float:
    """What `family.scores_from` has to be multiplied by, for llama.cpp to divide the scores by sqrt(
    query_pre_attn_scalar) as transformers does. 1 for the published models."""
    if not family.scores_from:
        return 1.0
    wide = config.num_hidden_layers == family.wide_scale_layers
    divisor = config.hidden_size // config.num_attention_heads if wide else head_dim(config)
    return math.sqrt(divisor / config.query_pre_attn_scalar)


def interleave(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows [n_heads * head_dim, ...]: from the two halves of each head to neighbouring pairs."""
    pairs = rows.reshape(n_heads, 2, rows.shape[0] // n_heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


def _write_rope(writer: GGUFWriter, config: Any) -> None:
    rope = _rope(config)
    writer.add_rope_freq_base(rope["rope_theta"])
    by_layer = config.rope_parameters.get("sliding_attention")
    if by_layer is not None:
        writer.add_rope_freq_base_swa(by_layer["rope_theta"])
    kind = rope["rope_type"]
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType.LINEAR if kind == "linear" else RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
    if kind in ("yarn", "longrope"):
        writer.add_rope_scaling_orig_ctx_len(_original_context(config, rope))
    if kind == "longrope":
        writer.add_rope_scaling_attn_factors(_longrope_attention_factor(config, rope))


def _rope(config: Any) -> dict[str, Any]:
    """The rotation of the layers that attend to everything."""
    parameters: dict[str, Any] = config.rope_parameters
    rope: dict[str, Any] = parameters.get("full_attention", parameters)
    return rope


def _original_context(config: Any, rope: dict[str, Any]) -> int:
    return int(
        rope.get("original_max_position_embeddings")
        or getattr(config, "original_max_position_embeddings", None)
        or config.max_position_embeddings
    )


def _rotated_dim(config: Any) -> int:
    return int(head_dim(config) * (_rope(config).get("partial_rotary_factor") or 1.0))


def _llama3_factors(rope: dict[str, Any], dim: int) -> np.ndarray:
    """Llama 3.1's scaling as divisors of each frequency: 1 for short waves, `factor` for long ones, and a
    blend between."""
    frequencies = rope["rope_theta"] ** -(np.arange(0, dim, 2, dtype=np.float64) / dim)
    waves = 2 * math.pi / frequencies
    original, low, high = (
        rope["original_max_position_embeddings"],
        rope["low_freq_factor"],
        rope["high_freq_factor"],
    )
    blend = np.clip((original / waves - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - blend) / rope["factor"] + blend)).astype(np.float32)


def _longrope_attention_factor(config: Any, rope: dict[str, Any]) -> float:
    if rope.get("attention_factor"):
        return float(rope["attention_factor"])
    original = _original_context(config, rope)
    factor = rope.get("factor") or config.max_position_embeddings / original
    return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0


def _uses_window(config: Any) -> bool:
    kinds = getattr(config, "layer_types", None)
    return kinds is None or "sliding_attention" in kinds


_YARN_DEFAULTS = {"attention_factor": None, "beta_fast": 32, "beta_slow": 1, "mscale": None, "truncate": True}


def _check_computable(config: Any, family: Family, name: str) -> None:
    layers = config.num_hidden_layers
    kind = _rope(config)["rope_type"]
    scalings = {"default", "linear", "yarn"} | ({"longrope"} if name == "Phi3ForCausalLM" else set())
    if family.arch == MODEL_ARCH.LLAMA:
        scalings.add("llama3")
    if kind not in scalings:
        raise _refusal(name, "rope_parameters.rope_type", kind, " or ".join(sorted(scalings)))
    if family.interleaved and _rotated_dim(config) != head_dim(config):
        raise _refusal(name, "partial_rotary_factor", _rope(config)["partial_rotary_factor"], "1")
    for key, default in _YARN_DEFAULTS.items() if kind == "yarn" else ():
        if _rope(config).get(key, default) not in (default, None):
            raise _refusal(name, f"rope_parameters.{key}", _rope(config)[key], f"{default}")
    if family.window_period:
        wanted = [
            "full_attention" if (i + 1) % family.window_period == 0 else "sliding_attention"
            for i in range(layers)
        ]
        if list(config.layer_types) != wanted:
            raise _refusal(
                name, "layer_types", config.layer_types, f"every {family.window_period}th layer full"
            )
    if family.no_rope_period:
        rotated = [int((i + 1) % family.no_rope_period != 0) for i in range(layers)]
        if list(config.no_rope_layers) != rotated:
            raise _refusal(
                name, "no_rope_layers", config.no_rope_layers, f"every {family.no_rope_period}th layer 0"
            )
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    wanted_activation = ("gelu_pytorch_tanh", "gelu") if family.norm_plus_one else ("silu",)
    if activation not in wanted_activation:
        raise _refusal(name, "hidden_act", activation, wanted_activation[0])
    if getattr(config, "use_bidirectional_attention", None):
        raise _refusal(name, "use_bidirectional_attention", True, "False")


def _refusal(name: str, key: str, found: object, expected: str) -> ModelError:
    return ModelError(f"config.json: {key}: got {found}; llama.cpp computes {name} only with {expected}")
