"""The shared library that xllamacpp ships (llama.cpp and ggml) and its C interface, through ctypes.

xllamacpp's own server object is not used here: it tells the ids of generated tokens only where they end a
whole UTF-8 character, stops where llama.cpp thinks best, and cannot be made without a listening socket. Where
many are answered at once that is worth it: `nomoat.engine.llamaserver`.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping
from ctypes import (
    POINTER,
    c_bool,
    c_char_p,
    c_float,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint32,
    c_void_p,
)
from importlib.util import find_spec
from pathlib import Path

from nomoat.errors import EngineError

DECODE = 1  # enum llama_process_type
F32, F16 = 0, 1  # enum ggml_type
NO_FLASH_ATTENTION = 0  # enum llama_flash_attn_type

# Both parameter structs are passed by value and have no size field. The fields up to the last one we set are
# named; `rest` keeps whatever the library's own defaults put behind them. A struct this large travels in
# memory in every calling convention we run on, so trailing bytes beyond the library's idea of it do no harm.
_REST = c_uint8 * 256


class ModelParams(ctypes.Structure):
    """llama_model_params."""

    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("lazy_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
        ("rest", _REST),
    )


class ContextParams(ctypes.Structure):
    """llama_context_params."""

    _fields_ = (
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("rest", _REST),
    )


# What the library's defaults hold where the layouts above are right (llama.cpp b11549).
_MODEL_DEFAULTS = {
    "devices": None,
    "n_gpu_layers": -1,
    "split_mode": 1,
    "load_mode": -1,
    "lazy_mode": 1,
    "main_gpu": 0,
    "kv_overrides": None,
    "vocab_only": False,
    "check_tensors": False,
    "use_extra_bufts": True,
}
_CONTEXT_DEFAULTS = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "n_outputs_max": 0,
    "n_outputs_max_per_seq": 1,
    "n_threads": 4,
    "rope_scaling_type": -1,
    "flash_attn_type": -1,
    "yarn_ext_factor": -1.0,
    "defrag_thold": -1.0,
    "cb_eval": None,
    "type_k": F16,
    "type_v": F16,
}

_SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "llama_backend_init": (None, ()),
    "llama_log_set": (None, (c_void_p, c_void_p)),
    "llama_supports_mmap": (c_bool, ()),
    "llama_model_default_params": (ModelParams, ()),
    "llama_context_default_params": (ContextParams, ()),
    "llama_model_load_from_file": (c_void_p, (c_char_p, ModelParams)),
    "llama_model_free": (None, (c_void_p,)),
    "llama_model_get_vocab": (c_void_p, (c_void_p,)),
    "llama_model_meta_val_str": (c_int32, (c_void_p, c_char_p, c_char_p, c_size_t)),
    "llama_vocab_n_tokens": (c_int32, (c_void_p,)),
    "llama_vocab_is_eog": (c_bool, (c_void_p, c_int32)),
    "llama_tokenize": (c_int32, (c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool)),
    "llama_token_to_piece": (c_int32, (c_void_p, c_int32, c_char_p, c_int32, c_int32, c_bool)),
    "llama_init_from_model": (c_void_p, (c_void_p, ContextParams)),
    "llama_free": (None, (c_void_p,)),
    "llama_get_memory": (c_void_p, (c_void_p,)),
    "llama_memory_seq_rm": (c_bool, (c_void_p, c_int32, c_int32, c_int32)),
    "llama_get_logits_ith": (POINTER(c_float), (c_void_p, c_int32)),
    "llama_batch_ext_init": (c_void_p, (c_void_p,)),
    "llama_batch_ext_free": (None, (c_void_p,)),
    "llama_batch_ext_clear": (None, (c_void_p,)),
    "llama_batch_ext_add_token": (c_int32, (c_void_p, c_int32, c_int32)),
    "llama_batch_ext_set_pos": (c_bool, (c_void_p, c_int32, POINTER(c_int32))),
    "llama_batch_ext_set_output_logits": (c_bool, (c_void_p, c_int32, c_bool)),
    "llama_adapter_lora_init": (c_void_p, (c_void_p, c_char_p)),
    "llama_set_adapters_lora": (c_int32, (c_void_p, POINTER(c_void_p), c_size_t, POINTER(c_float))),
    "llama_sampler_free": (None, (c_void_p,)),
    "llama_process": (c_int32, (c_void_p, c_int32, c_void_p)),
    "ggml_quantize_init": (None, (c_int32,)),
    "ggml_quantize_requires_imatrix": (c_bool, (c_int32,)),
    "ggml_quantize_chunk": (
        c_size_t,
        (c_int32, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p),
    ),
    "ggml_fp32_to_fp16_row": (None, (c_void_p, c_void_p, c_int64)),
    "ggml_fp32_to_bf16_row": (None, (c_void_p, c_void_p, c_int64)),
    "ggml_row_size": (c_size_t, (c_int32, c_int64)),
    "ggml_blck_size": (c_int64, (c_int32,)),
}

_OTHER_VERSION = "this nomoat was built against another xllamacpp; install the version in constraints.txt"


@functools.cache
def library() -> ctypes.CDLL:
    """The library with its signatures declared, its backend started and its log silent.

    Raises:
        EngineError: xllamacpp is not installed, lacks a function, or its structs are laid out otherwise.
    """
    spec = find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise EngineError("xllamacpp is not installed", hint="pip install xllamacpp")
    folder = Path(spec.origin).parent
    found = [*folder.glob("xllamacpp.*so"), *folder.glob("xllamacpp*.pyd")]
    if not found:
        raise EngineError(f"{folder}: holds no shared library", hint=_OTHER_VERSION)
    lib = ctypes.CDLL(str(found[0]))
    for name, (result, arguments) in _SIGNATURES.items():
        if not hasattr(lib, name):
            raise EngineError(f"{found[0].name}: exports no {name}", hint=_OTHER_VERSION)
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments
    check_layout("llama_model_params", lib.llama_model_default_params(), _MODEL_DEFAULTS)
    check_layout("llama_context_params", lib.llama_context_default_params(), _CONTEXT_DEFAULTS)
    # The log goes to a C function that only answers yes or no. A Python one would need the interpreter's
    # lock from llama.cpp's own threads.
    lib.llama_log_set(ctypes.cast(lib.llama_supports_mmap, c_void_p), None)
    lib.llama_backend_init()
    return lib


def check_layout(struct: str, found: ctypes.Structure, expected: Mapping[str, object]) -> None:
    """Refuse a struct whose default values do not lie where we think they do (EngineError)."""
    for field, value in expected.items():
        got = getattr(found, field)
        if got != value:
            raise EngineError(
                f"{struct}.{field}: the library's default is {got!r}; expected {value!r}", hint=_OTHER_VERSION
            )
