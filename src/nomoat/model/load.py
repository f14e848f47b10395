"""Open a base model as data: safetensors only, no remote code, and with a fingerprint of its bytes."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nomoat.errors import ModelError
from nomoat.model.attention import PACKED
from nomoat.model.fused.families import fuse

EMBEDDED = "embedded"
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
)
_CONFIG = ("config.json", "generation_config.json")


def resolve_base(base: str, workspace: Path) -> Path:
    """The folder of a base: the embedded one, a local folder, or a Hub id fetched into the local cache.

    Raises ModelError when it is not there, or holds no safetensors (weights that need pickle are refused:
    opening them runs code).
    """
    if base == EMBEDDED:
        return Path(__file__).parent.parent / "assets" / "base"
    local = (workspace / Path(base).expanduser()).resolve()
    folder = local if local.exists() else _from_hub(base)
    _check_folder(folder, base)
    return folder


def _from_hub(base: str) -> Path:
    looks_like_id = base.count("/") == 1 and not base.startswith((".", "/", "~"))
    if not looks_like_id:
        raise ModelError(
            f'base: "{base}" is not there',
            hint='Expected "embedded", a folder with config.json and *.safetensors, or a Hub id such as "org/name".',
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(
            snapshot_download(
                base, allow_patterns=[*_WEIGHTS, *_TOKENIZER, *_CONFIG, "merges.txt", "README.md"]
            )
        )
    except HFValidationError as error:
        raise ModelError(
            f'base: "{base}" is neither a folder that is there nor a name the Hub could have',
            hint="A Hub id is owner/name, of letters, digits, '-', '_' and '.'.",
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f'base: the Hub has no model "{base}", or it is private',
            hint="Check the name; for a private or gated model set HF_TOKEN.",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f'base: "{base}" is not a local folder, and the Hub cannot be reached ({type(error).__name__})',
            hint="Download it where there is a network, then give its folder: base: path/to/model",
        ) from error


def _check_folder(folder: Path, base: str) -> None:
    if not folder.is_dir():
        raise ModelError(f"base: {base} is a file; expected a folder with config.json and *.safetensors")
    if not (folder / "config.json").exists():
        raise ModelError(
            f"base: {base} has no config.json, so it is not a transformers model folder",
            hint="Expected config.json, *.safetensors and tokenizer.json. GGUF files cannot be trained.",
        )
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(p.name for p in [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
        found = (
            f"only pickle weights ({', '.join(pickles)}), and opening those runs code" if pickles else "none"
        )
        raise ModelError(
            f"base: {base} has no *.safetensors weights; found {found}",
            hint="Convert them once where you trust them: "
            "AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)",
        )


@dataclass(frozen=True)
class Shape:
    """The numbers of a model that plans are made from; `context` is its longest row in tokens."""

    width: int
    layers: int
    vocabulary: int
    context: int


def read_shape(folder: Path) -> Shape:
    """From config.json alone. Raises ModelError where that does not open."""
    config = _config(folder).get_text_config()
    keys = ("hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings")
    missing = [key for key in keys if not isinstance(getattr(config, key, None), int)]
    if missing:
        raise ModelError(
            f"base: {folder} is not a causal language model that can be tuned here: its config.json "
            f"(model_type {config.model_type}) has no {', '.join(missing)}",
            hint="Expected a decoder such as Llama, Mistral, Qwen, Gemma, Phi-3 or SmolLM.",
        )
    return Shape(*(getattr(config, key) for key in keys))


def count_parameters(folder: Path) -> int:
    """Numbers in the safetensors of a model folder, from their headers alone. ModelError for a damaged file."""
    from safetensors import SafetensorError, safe_open

    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        if path.name.startswith("consolidated"):
            continue  # Mistral ships its weights twice; transformers reads the other copy
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                    total += math.prod(file.get_slice(name).get_shape())
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"base: {path} is damaged: {_first_line(error)}", hint="Copy or download it again."
            ) from error
    return total


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(
            f"base: {folder}: its config.json does not open: {_first_line(error)}",
            hint="Custom code in a model folder is never run; use a model that transformers itself knows.",
        ) from error


def fingerprint(folder: Path) -> str:
    """sha256 over the names and bytes of weights, config and tokenizer: what an adapter is bound to."""
    digest = hashlib.sha256()
    names = sorted(
        {p for pattern in (*_WEIGHTS, *_TOKENIZER, "config.json", "merges.txt") for p in folder.glob(pattern)}
    )
    for path in names:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Machine:
    """Where and in which precision a model runs."""

    device: str
    dtype: torch.dtype

    @property
    def bf16(self) -> bool:
        return self.dtype == torch.bfloat16


def choose_machine(dtype: str = "auto") -> Machine:
    """The device, and bf16 where the hardware has it (emulated bf16 is 50 times slower than fp32)."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype != "auto":
        return Machine(device, {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype])
    native = torch.cuda.is_bf16_supported(including_emulation=False) if device == "cuda" else _cpu_has_bf16()
    return Machine(device, torch.bfloat16 if native else torch.float32)


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def set_threads(threads: int | None = None) -> int:
    """Use every core this process may run on (or `threads`); returns the number, which the bytes depend on."""
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    return torch.get_num_threads()


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a model folder; ModelError if it has none."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"base: {folder}: its tokenizer does not open: {_first_line(error)}",
            hint="Expected tokenizer.json (and tokenizer_config.json) beside config.json.",
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(f"base: {folder}: no fast tokenizer (tokenizer.json), which exact loss masks need")
    return tokenizer


def load_model(folder: Path, machine: Machine, *, weights: torch.dtype | None = None) -> Any:
    """The causal language model of a folder, on the machine, with packed attention.

    `weights` overrides the dtype the weights are held in (full fine-tuning keeps them in float32).
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    config = _config(folder)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=weights or machine.dtype,
            attn_implementation=PACKED,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        architecture = json.loads((folder / "config.json").read_text()).get("architectures", ["unknown"])
        raise ModelError(
            f"base: {folder} does not open as a causal language model ({architecture}): {_first_line(error)}",
            hint="Custom code in a model folder is never run; use a model that transformers itself knows.",
        ) from error
    fuse(model)
    return model.to(machine.device)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
