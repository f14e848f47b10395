"""Open a base model as data: safetensors only, no remote code, and with a fingerprint of its bytes."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nomoat.errors import BudgetError, ModelError
from nomoat.model.attention import PACKED
from nomoat.model.bits import in_four_bits, require_bitsandbytes
from nomoat.model.fused.families import PLAIN_OUTPUT, fuse
from nomoat.model.memory import out_of_memory

EMBEDDED = "embedded"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
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
_LFS_POINTER = b"version https://git-lfs"
_ANEW = "Copy or download it again."
_MOST_SAID = 500  # characters of what a library says


def resolve_base(base: str, workspace: Path) -> Path:
    """The folder of a base: the embedded one, a local folder, or a Hub id fetched into the local cache.

    Raises ModelError when it is not there, holds no safetensors (weights that need pickle are refused:
    opening them runs code), or its weights are not whole.
    """
    if base == EMBEDDED:
        return Path(__file__).parent.parent / "assets" / "base"
    local = (workspace / Path(base).expanduser()).resolve()
    folder = local if local.exists() else _from_hub(base)
    _check_folder(folder, base)
    check_weights(folder)
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
    """What plans are made from; `context` is the longest row in tokens. `plain_output`: its logits are made some rows
    at a time (fused/output.py)."""

    width: int
    layers: int
    vocabulary: int
    context: int
    plain_output: bool


def read_shape(folder: Path) -> Shape:
    """From config.json alone. Raises ModelError where that does not open."""
    whole = _config(folder)
    config = whole.get_text_config()
    keys = ("hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings")
    missing = [key for key in keys if not isinstance(getattr(config, key, None), int)]
    if missing:
        raise ModelError(
            f"base: {folder} is not a causal language model that can be tuned here: its config.json "
            f"(model_type {config.model_type}) has no {', '.join(missing)}",
            hint="Expected a decoder such as Llama, Mistral, Qwen, Gemma, Phi-3 or SmolLM.",
        )
    width, layers, vocabulary, context = (getattr(config, key) for key in keys)
    plain_output = (whole.architectures or [""])[0] in PLAIN_OUTPUT
    return Shape(width, layers, vocabulary, context, plain_output)


def cached_numbers(folder: Path) -> int:
    """Numbers that a cache of keys and values holds of each token, from config.json alone. Raises as `read_shape`."""
    shape, config = read_shape(folder), _config(folder).get_text_config()
    heads: int = config.num_attention_heads
    key_heads: int = getattr(config, "num_key_value_heads", None) or heads
    return 2 * shape.layers * key_heads * (getattr(config, "head_dim", None) or shape.width // heads)


def count_parameters(folder: Path) -> int:
    """Numbers in the weights of a model folder, from their headers alone. ModelError for a damaged file."""
    return sum(math.prod(shape) for path in weight_files(folder) for shape in _shapes(path).values())


def count_vocabulary(folder: Path, vocabulary: int) -> int:
    """Numbers in the matrices with a row for each of `vocabulary` ids: embeddings, and an output layer of its own."""
    shapes = [shape for path in weight_files(folder) for shape in _shapes(path).values()]
    return sum(math.prod(shape) for shape in shapes if len(shape) == 2 and shape[0] == vocabulary)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors that transformers opens in a model folder: one, or the shards that its index names.

    Other files are no weights of it: Mistral ships a second copy. Raises ModelError where there is no index
    either, or it cannot be read.
    """
    single = folder / SINGLE
    return [single] if single.is_file() else sorted({folder / name for name in _index(folder).values()})


def check_weights(folder: Path) -> None:
    """Refuse weights that are not whole, by their headers: milliseconds a file, whatever its size.

    Raises ModelError with the name of the file that is missing, is shorter or longer than its header says, has
    no header that can be read, or lacks a tensor that the index places in it.
    """
    files = weight_files(folder)
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        others = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelError(
            f"base: {folder} lacks {', '.join(missing[:3])}{others}, which its {INDEX} names", hint=_ANEW
        )
    held = {path.name: _shapes(path) for path in files}
    if SINGLE in held:
        return
    for tensor, name in _index(folder).items():
        if tensor not in held[name]:
            raise ModelError(
                f"base: {folder / name} does not hold {tensor}, which {INDEX} places in it", hint=_ANEW
            )


def _index(folder: Path) -> dict[str, str]:
    """Tensor -> shard, as the folder's index has it."""
    path = folder / INDEX
    if not path.is_file():
        found = ", ".join(sorted(file.name for file in folder.glob("*.safetensors")))
        raise ModelError(f"base: {folder} has neither {SINGLE} nor {INDEX}; found {found}", hint=_ANEW)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        places = dict(content["weight_map"])
        if not places or not all(
            isinstance(name, str) and Path(name).name == name for name in places.values()
        ):
            raise ValueError("its weight_map does not map tensors to files of this folder")
        content["metadata"]  # transformers needs it
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"base: {path} is damaged: {_gist(error)}", hint=_ANEW) from error
    return places


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Tensor -> shape, from the header of a file, which is compared with the file's length as it is opened."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    except OSError as error:
        raise ModelError(f"base: {path} cannot be read: {_gist(error)}") from error
    except SafetensorError as error:
        with path.open("rb") as raw:
            is_pointer = raw.read(len(_LFS_POINTER)) == _LFS_POINTER
        raise ModelError(
            f"base: {path} is damaged ({path.stat().st_size:,} bytes): {_gist(error)}",
            hint="It is Git LFS's note of where the file is: run `git lfs pull` in its folder."
            if is_pointer
            else _ANEW,
        ) from error


def _config(folder: Path, **keys: Any) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **keys)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, StrictDataclassError) as error:
        raise ModelError(
            f"base: {folder}: its config.json does not open: {_gist(error)}",
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


def make_deterministic(machine: Machine) -> None:
    """Have torch sum in the same order each time on a GPU, for the whole process; a CPU does so anyway.

    Must come before the first product on the GPU: cuBLAS reads its setting only then. Warns where an
    operation has no deterministic form, rather than ending the night. Has not been run on a GPU yet. By
    torch's source, the backward of its fused attention keeps to one order only where warnings are errors
    (warn_only=False), so that with it a resumed run may still differ in the last digit.
    """
    if machine.device != "cuda":
        return
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a model folder; ModelError if it has none."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"base: {folder}: its tokenizer does not open: {_gist(error)}",
            hint="Expected tokenizer.json (and tokenizer_config.json) beside config.json.",
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(f"base: {folder}: no fast tokenizer (tokenizer.json), which exact loss masks need")
    return tokenizer


def load_model(
    folder: Path, machine: Machine, *, weights: torch.dtype | None = None, four_bit: bool = False
) -> Any:
    """The causal language model of a folder, on the machine, with packed attention.

    `weights` overrides the dtype the weights are held in (full fine-tuning keeps them in float32); `four_bit` holds
    its linear layers in NF4 and computes in the machine's dtype. Raises ModelError where the folder does not open, or
    holds less than the model needs: transformers would make up the rest.
    """
    from transformers import AutoModelForCausalLM

    place = {}
    if four_bit:
        require_bitsandbytes("sft.load_in_4bit", machine.device)
        place = {"quantization_config": in_four_bits(machine.dtype), "device_map": {"": machine.device}}
    return open_as(
        AutoModelForCausalLM, "a causal language model", folder, machine, weights=weights, place=place
    )


def open_as(
    auto: Any,
    what: str,
    folder: Path,
    machine: Machine,
    *,
    weights: torch.dtype | None = None,
    place: Mapping[str, Any] | None = None,
    made_up: Collection[str] = (),
    **config_keys: Any,
) -> Any:
    """`load_model` by another of transformers' auto classes, which makes `what` of a folder. Tensors that are `made_up`
    may be lacking; `config_keys` replace keys of its config.json."""
    from safetensors import SafetensorError

    config, place = _config(folder, **config_keys), place or {}
    try:
        model, found = auto.from_pretrained(
            folder,
            config=config,
            output_loading_info=True,
            dtype=weights or machine.dtype,
            attn_implementation=PACKED,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            **place,
        )
        if not place:
            model.to(machine.device)
    except (OSError, ValueError, KeyError, RuntimeError, ArithmeticError, SafetensorError) as error:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise BudgetError(
                f"base: {folder} does not fit into the memory of this machine", hint="Choose a smaller base."
            ) from error
        architecture = json.loads((folder / "config.json").read_text()).get("architectures", ["unknown"])
        raise ModelError(
            f"base: {folder} does not open as {what} ({architecture}): {_gist(error)}",
            hint="Custom code in a model folder is never run; use a model that transformers itself knows.",
        ) from error
    if lacking := sorted(set(found["missing_keys"]) - set(made_up)):
        raise ModelError(
            f"base: {folder} lacks {len(lacking)} of its model's tensors, such as {lacking[0]}",
            hint="Copy or download it again, whole.",
        )
    fuse(model)
    return model


def _gist(error: Exception) -> str:
    """What a library says went wrong, on one line: its first line, or all of them where the first announces
    the others."""
    if isinstance(error, KeyError):
        return f"it has no key {error}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines)[:_MOST_SAID] if lines[0].endswith(":") else lines[0]
