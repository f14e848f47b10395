"""A transformers folder as one GGUF file."""

from __future__ import annotations

import errno
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter

from nomoat.chat.template import ChatTemplate
from nomoat.engine.cmodel import CModel
from nomoat.errors import EngineError, ModelError, nearest
from nomoat.model.load import load_tokenizer
from nomoat.quantize.families import (
    Family,
    context_length,
    family_of,
    rope_tensors,
    write_hyperparameters,
)
from nomoat.quantize.ggml import quantize_rows, row_bytes
from nomoat.quantize.mixture import MIXTURES, GgufType, tensor_type
from nomoat.quantize.tokens_check import TokenizerCheck, check_tokenizer
from nomoat.quantize.vocab import read_vocab, special_tokens, write_vocab
from nomoat.quantize.weights import Stored, list_tensors, load


@dataclass(frozen=True)
class GgufFile:
    """A written and checked file.

    Attributes:
        tensor_types: how many tensors got each ggml type.
        context_length: tokens up to which llama.cpp computes what transformers does.
        tokenizer: what of the tokenizer was compared.
    """

    path: Path
    type: str
    bytes: int
    tensor_types: dict[str, int]
    context_length: int
    tokenizer: TokenizerCheck


def to_gguf(model_dir: Path, out: Path, *, type: GgufType, chat_template: Path | None = None) -> GgufFile:
    """Write `out` from the config, safetensors and tokenizer in `model_dir`, then open it with llama.cpp.

    The same folder gives the same bytes. Memory: one tensor in float32 and once more in its new type.

    Args:
        type: F32, F16, BF16, Q8_0, Q6_K, Q5_K_M or Q4_K_M, mixed as llama.cpp mixes them.
        chat_template: a jinja file in place of the tokenizer's own template.

    Raises:
        ModelError: the architecture, its settings, a tensor or the tokenizer has no equal in llama.cpp, or
            llama.cpp does not accept the result; the message names what.
    """
    if type not in MIXTURES:
        raise ModelError(
            f"quantize.types: got {type!r}; expected {', '.join(MIXTURES)}.{nearest(type, list(MIXTURES))}"
        )
    config = read_config(model_dir)
    family = family_of(config)
    tokenizer = load_tokenizer(model_dir)
    template = ChatTemplate.of(tokenizer, chat_template)
    tensors = list_tensors(model_dir, config, family)

    writer = GGUFWriter(out, arch=arch_name(family))
    writer.add_name(_general_name(config, tokenizer))
    writer.add_file_type(MIXTURES[type].file_type)
    write_hyperparameters(writer, config, family)
    write_vocab(writer, read_vocab(tokenizer, config.vocab_size), tokenizer, template)
    try:
        counts = _write_tensors(writer, tensors, config, family, type)
    except OSError as error:
        if error.errno is None:  # numpy's word for a write that the disk cut short
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out)) from error
        raise
    _check_opens(out, tokenizer, template)
    return GgufFile(
        path=out,
        type=type,
        bytes=out.stat().st_size,
        tensor_types=counts,
        context_length=context_length(config, family),
        tokenizer=check_tokenizer(out, tokenizer),
    )


def _write_tensors(
    writer: GGUFWriter, tensors: list[Stored], config: Any, family: Family, type: GgufType
) -> dict[str, int]:
    tied = all(tensor.name != "output.weight" for tensor in tensors)
    kinds = {
        tensor.name: tensor_type(
            tensor.name, tensor.shape, MIXTURES[type], n_layers=config.num_hidden_layers, tied=tied
        )
        for tensor in tensors
    }
    extra = rope_tensors(config)
    for name, values in extra.items():
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    for tensor in tensors:
        stored_shape = (*tensor.shape[:-1], row_bytes(kinds[tensor.name], tensor.shape[-1]))
        writer.add_tensor_info(
            tensor.name, stored_shape, np.dtype(np.uint8), int(np.prod(stored_shape)), kinds[tensor.name]
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for values in extra.values():
        writer.write_tensor_data(values)
    for tensor in tensors:
        rows = np.atleast_2d(load(tensor, config, family))
        writer.write_tensor_data(quantize_rows(rows, kinds[tensor.name]))
    writer.close()
    return dict(sorted(Counter(kind.name for kind in kinds.values()).items()))


def read_config(model_dir: Path) -> Any:
    """transformers' config of a folder; ModelError where it cannot be read."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(model_dir, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{model_dir}: config.json cannot be read: {error}") from error


def arch_name(family: Family) -> str:
    """What llama.cpp calls the family's architecture."""
    from gguf import MODEL_ARCH_NAMES

    return MODEL_ARCH_NAMES[family.arch]


def _general_name(config: Any, tokenizer: Any) -> str:
    """llama.cpp eats the spaces behind special tokens if the model's name has 'phi3' in it, and then cannot
    load a vocabulary without Phi-3's own tokens. So the name goes by the tokenizer."""
    eats_spaces = any(token.rstrip for token in tokenizer.added_tokens_decoder.values())
    if eats_spaces and {"<unk>", "<s>", "</s>", "<|endoftext|>"} <= tokenizer.get_vocab().keys():
        return "phi3"
    return str(config.model_type).replace("phi3", "phi")


def _check_opens(out: Path, tokenizer: Any, template: ChatTemplate) -> None:
    try:
        with CModel(out) as model:
            for token in special_tokens(tokenizer, template).values():
                if token in template.stop_token_ids and not model.ends_generation(token):
                    raise ModelError(f"{out.name}: llama.cpp would not stop at token {token}")
    except EngineError as error:
        raise ModelError(f"{out.name}: written, but llama.cpp does not accept it: {error.message}") from error
