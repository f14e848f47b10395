"""Which ggml type each tensor of a file gets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from gguf import GGMLQuantizationType as Ggml
from gguf import LlamaFileType

from nomoat.quantize.ggml import FLOAT_TYPES, block_size

GgufType = Literal["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"]


@dataclass(frozen=True)
class Mixture:
    """A kind of file: llama.cpp's number for it, the type of most tensors, and the type of those that suffer
    most (`more_bits`: attention values and the feed-forward's last matrix in half of the layers)."""

    file_type: LlamaFileType
    most: Ggml
    more_bits: Ggml


MIXTURES: dict[str, Mixture] = {
    "F32": Mixture(LlamaFileType.ALL_F32, Ggml.F32, Ggml.F32),
    "F16": Mixture(LlamaFileType.MOSTLY_F16, Ggml.F16, Ggml.F16),
    "BF16": Mixture(LlamaFileType.MOSTLY_BF16, Ggml.BF16, Ggml.BF16),
    "Q8_0": Mixture(LlamaFileType.MOSTLY_Q8_0, Ggml.Q8_0, Ggml.Q8_0),
    "Q6_K": Mixture(LlamaFileType.MOSTLY_Q6_K, Ggml.Q6_K, Ggml.Q6_K),
    "Q5_K_M": Mixture(LlamaFileType.MOSTLY_Q5_K_M, Ggml.Q5_K, Ggml.Q6_K),
    "Q4_K_M": Mixture(LlamaFileType.MOSTLY_Q4_K_M, Ggml.Q4_K, Ggml.Q6_K),
}

# What llama.cpp (llama-quant.cpp, tensor_type_fallback) takes when rows are not whole blocks of 256.
_SMALLER_BLOCKS = {Ggml.Q4_K: Ggml.Q5_0, Ggml.Q5_K: Ggml.Q5_1, Ggml.Q6_K: Ggml.Q8_0}


def tensor_type(name: str, shape: tuple[int, ...], mixture: Mixture, *, n_layers: int, tied: bool) -> Ggml:
    """The type of one tensor, as llama.cpp's `llama_tensor_get_type` chooses it for dense models below 70B.

    Args:
        name: the tensor's GGUF name, as 'blk.3.ffn_down.weight'.
        shape: as in transformers, rows first.
        tied: the file has no output matrix, so the embedding does that work as well.
    """
    if len(shape) < 2 or name.endswith("_norm.weight"):
        return Ggml.F32
    if mixture.most in FLOAT_TYPES:
        return mixture.most
    row_len = shape[-1]
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        whole = row_len % block_size(mixture.most) == 0 and mixture.most != Ggml.Q8_0
        return _fitting(Ggml.Q6_K if whole else Ggml.Q8_0, row_len)
    sensitive = re.fullmatch(r"blk\.(\d+)\.(attn_v|attn_qkv|ffn_down)\.weight", name)
    if sensitive is not None and _gets_more_bits(int(sensitive[1]), n_layers):
        return _fitting(mixture.more_bits, row_len)
    return _fitting(mixture.most, row_len)


def _gets_more_bits(layer: int, n_layers: int) -> bool:
    eighth = n_layers // 8
    return layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2


def _fitting(kind: Ggml, row_len: int) -> Ggml:
    if row_len % block_size(kind) == 0:
        return kind
    smaller = _SMALLER_BLOCKS.get(kind, kind)
    return smaller if row_len % block_size(smaller) == 0 else Ggml.F16
