"""The tensors of a transformers folder, one at a time, under the names GGUF has for them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import get_tensor_name_map
from safetensors import SafetensorError, safe_open

from nomoat.errors import ModelError
from nomoat.model.load import INDEX, SINGLE
from nomoat.quantize.families import Family, interleave, score_factor


@dataclass(frozen=True)
class Stored:
    """A tensor on disk: `source` is transformers' name, `name` GGUF's; shape rows first."""

    name: str
    source: str
    file: Path
    shape: tuple[int, ...]


def list_tensors(folder: Path, config: Any, family: Family) -> list[Stored]:
    """Every tensor to be written, in layer order. Shapes come from the headers; nothing is loaded.

    Raises:
        ModelError: no safetensors, a damaged or missing shard, or a tensor this family does not have.
    """
    names = get_tensor_name_map(family.arch, config.num_hidden_layers)
    found = []
    for file in _shards(folder):
        with open_tensors(file) as shard:
            for source in shard.keys():  # noqa: SIM118 (not a dict)
                if source == "lm_head.weight" and config.tie_word_embeddings:
                    continue
                name = names.get_name(source, try_suffixes=(".weight", ".bias"))
                if name is None:
                    raise ModelError(
                        f"{file.name}: tensor {source!r} has no place in llama.cpp's {family.arch.name.lower()}",
                        hint="merge adapters first; extra heads and vision towers cannot be written",
                    )
                found.append(Stored(name, source, file, tuple(shard.get_slice(source).get_shape())))
    return sorted(found, key=lambda tensor: (_layer(tensor.name), tensor.name))


def load(tensor: Stored, config: Any, family: Family) -> np.ndarray:
    """The tensor as float32, arranged as llama.cpp computes with it."""
    with open_tensors(tensor.file) as shard:
        values = arranged(shard.get_tensor(tensor.source).float().numpy(), tensor.source, config, family)
    if not np.isfinite(values).all():
        raise ModelError(f"{tensor.file.name}: tensor {tensor.source!r} holds infinities or NaN")
    return values


def arranged(values: np.ndarray, source: str, config: Any, family: Family) -> np.ndarray:
    """Values of the tensor that transformers calls `source`, with their rows as llama.cpp has them."""
    if family.norm_plus_one and source.endswith("norm.weight"):
        values = values + 1.0
    if family.scores_from and f".{family.scores_from}." in source:
        values = values * np.float32(score_factor(config, family))
    if family.interleaved and re.search(r"\.[qk]_proj\.(weight|bias)$", source):
        is_query = ".q_proj." in source
        values = interleave(values, config.num_attention_heads if is_query else config.num_key_value_heads)
    return values


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX
    names = [SINGLE]
    if index.is_file() and not (folder / SINGLE).is_file():  # transformers' order
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    files = [folder / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ModelError(f"{folder}: no {', '.join(missing)}; expected a merged model in safetensors")
    return files


def open_tensors(file: Path) -> Any:
    """A safetensors file. Raises ModelError where it is none."""
    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        raise ModelError(f"{file}: not a whole safetensors file: {error}") from error


def _layer(name: str) -> int:
    match = re.match(r"blk\.(\d+)\.", name)
    return int(match[1]) if match else -1
