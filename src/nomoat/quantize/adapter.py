"""A LoRA adapter in PEFT's layout as a GGUF file that llama.cpp applies to its base.

The layout is that of llama.cpp's own convert_lora_to_gguf.py: a pair `NAME.lora_a` [rank, in] and `NAME.lora_b`
[out, rank] for each adapted tensor, of which llama.cpp adds adapter.lora.alpha / rank * B A to the base's."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFType, GGUFWriter, Keys

from nomoat.errors import ModelError
from nomoat.quantize.convert import arch_name, read_config
from nomoat.quantize.families import family_of
from nomoat.quantize.weights import Stored, arranged, list_tensors, open_tensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
_READ = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")
# How it was made, which the tensors show, or how PEFT loads it. All else in a configuration must be off.
_OF_NO_CONCERN = (
    *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
    *("inference_mode", "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform"),
    *(
        "layers_pattern",
        "init_lora_weights",
        "loftq_config",
        "eva_config",
        "megatron_config",
        "megatron_core",
    ),
    "qalora_group_size",
)
_OFF: tuple[object, ...] = (None, False, "none", [], {})
_KEEPS_BASE = (True, False, "gaussian", "orthogonal", "eva")
_MERGE = "Fold it into its base with PEFT (merge_and_unload) and serve the merged folder."


@dataclass(frozen=True)
class AdapterFile:
    """A written file: how many tensors it adapts, and the largest rank among them."""

    path: Path
    bytes: int
    tensors: int
    rank: int


def adapter_to_gguf(adapter_dir: Path, base_dir: Path, out: Path) -> AdapterFile:
    """Write `out`, in float32, from adapter_config.json and adapter_model.safetensors in `adapter_dir`; the same
    folders give the same bytes. `base_dir` is the transformers folder of the base, or of a model that was made from
    it: names and shapes are compared with its tensors', whose values are not read.

    Raises:
        ModelError: there is no adapter, it is damaged, is no plain LoRA of linear layers, or does not fit the base.
    """
    config = read_config(base_dir)
    family = family_of(config)
    lora = _read_lora(adapter_dir)
    base = {tensor.source: tensor for tensor in list_tensors(base_dir, config, family)}
    writer = GGUFWriter(out, arch=arch_name(family))
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    alpha = float(lora.lora_alpha) or 1.0  # 0 is no factor at all to llama.cpp
    writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha)
    pairs = _pairs(adapter_dir, base)
    for tensor, (a_RI, b_OR) in sorted(pairs.items(), key=lambda item: item[0].name):
        rank = len(a_RI)
        factor = _scaling(lora, tensor.source.removesuffix(".weight"), rank) / (alpha / rank)
        b_OR = arranged(b_OR * np.float32(factor), tensor.source, config, family)
        writer.add_tensor(f"{tensor.name}.lora_a", a_RI)
        writer.add_tensor(f"{tensor.name}.lora_b", b_OR)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return AdapterFile(out, out.stat().st_size, len(pairs), max(len(a) for a, _ in pairs.values()))


def _read_lora(folder: Path) -> Any:
    """PEFT's configuration of a plain LoRA."""
    from peft import LoraConfig

    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(
                f"{folder}: no {name}; expected an adapter as PEFT saves it",
                hint=f"A folder with {CONFIG} and {WEIGHTS} is needed; pickle files (.bin) are never opened.",
            )
    path = folder / CONFIG
    try:
        said = dict(json.loads(path.read_text(encoding="utf-8")))
        lora = LoraConfig(**{key: value for key, value in said.items() if key in _READ})
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if said.get("peft_type") != "LORA":
        raise ModelError(f"{path}: peft_type: got {said.get('peft_type')!r}; expected 'LORA'", hint=_MERGE)
    for key, value in said.items():
        if key not in _READ and key not in _OF_NO_CONCERN and value not in _OFF:
            raise ModelError(
                f"{path}: {key}: got {value!r}; a GGUF adapter holds low-rank matrices of linear layers and "
                "nothing else",
                hint=_MERGE,
            )
    if said.get("init_lora_weights", True) not in _KEEPS_BASE:
        raise ModelError(
            f"{path}: init_lora_weights: {said['init_lora_weights']} changes the base itself",
            hint="Save it with path_initial_model_for_weight_conversion, as PEFT's documentation says.",
        )
    return lora


def _pairs(folder: Path, base: Mapping[str, Stored]) -> dict[Stored, tuple[np.ndarray, np.ndarray]]:
    """A [rank, in] and B [out, rank], float32, of each tensor of the base that is adapted."""
    file = folder / WEIGHTS
    found: dict[Stored, tuple[np.ndarray, np.ndarray]] = {}
    with open_tensors(file) as weights:
        names = sorted(weights.keys())
        for name in names:
            module = name.removeprefix(_PREFIX).removesuffix(_A).removesuffix(_B)
            tensor = base.get(f"{module}.weight")
            if (
                not name.startswith(_PREFIX)
                or not name.endswith((_A, _B))
                or len(tensor.shape if tensor else ()) != 2
            ):
                raise ModelError(
                    f"{file}: tensor {name!r} adapts no linear layer of the base; it has layers such as "
                    f"{', '.join(_modules(base))}",
                    hint=f"Give the base that the adapter was trained on. If it is that one: {_MERGE}",
                )
            assert tensor is not None
            a, b = f"{_PREFIX}{module}{_A}", f"{_PREFIX}{module}{_B}"
            if a not in names or b not in names:
                raise ModelError(
                    f"{file}: {a} and {b} belong together, and only one is there: the file is damaged"
                )
            if name == b:
                continue
            a_RI, b_OR = (weights.get_tensor(key).float().numpy() for key in (a, b))
            _check_pair(file, module, a_RI, b_OR, tensor)
            found[tensor] = (a_RI, b_OR)
    if not found:
        raise ModelError(f"{file}: holds no {_A.removeprefix('.')}; expected an adapter as PEFT saves it")
    return found


def _check_pair(file: Path, module: str, a_RI: np.ndarray, b_OR: np.ndarray, tensor: Stored) -> None:
    if a_RI.ndim != 2 or b_OR.ndim != 2 or len(a_RI) != b_OR.shape[1]:
        raise ModelError(
            f"{file}: {module}: lora_A {a_RI.shape} and lora_B {b_OR.shape} have no rank in common"
        )
    if (len(b_OR), a_RI.shape[1]) != tensor.shape:
        raise ModelError(
            f"{file}: {module}: the adapter is for a matrix {len(b_OR)} x {a_RI.shape[1]}; the base's is "
            f"{tensor.shape[0]} x {tensor.shape[1]}",
            hint="Give the base that the adapter was trained on.",
        )
    if not (np.isfinite(a_RI).all() and np.isfinite(b_OR).all()):
        raise ModelError(f"{file}: {module}: holds infinities or NaN")


def _scaling(lora: Any, module: str, rank: int) -> float:
    """What PEFT multiplies B A by."""
    from peft.utils.other import get_pattern_key

    alpha = lora.alpha_pattern.get(get_pattern_key(lora.alpha_pattern.keys(), module), lora.lora_alpha)
    return float(alpha) / (math.sqrt(rank) if lora.use_rslora else rank)


def _modules(base: Mapping[str, Stored]) -> list[str]:
    first = [
        source
        for source, tensor in base.items()
        if len(tensor.shape) == 2 and tensor.name.startswith("blk.0.")
    ]
    return [source.removesuffix(".weight") for source in first[:3]]
