"""stories260K as a Hugging Face folder: a real Llama trained elsewhere, in the llama2.c layout, with its own
512-piece SentencePiece tokenizer."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

BOS = "<s>"
EOS = "</s>"


def build(folder: Path, shared_dir: Path) -> Path:
    """Write config.json, generation_config.json, model.safetensors, tokenizer.json and tokenizer_config.json
    to `folder` (made if absent) from `shared_dir/data/models/stories260K`. Returns `folder`."""
    source = shared_dir / "data" / "models" / "stories260K"
    folder.mkdir(parents=True, exist_ok=True)
    config, tensors = _read_llama2c((source / "stories260K.bin").read_bytes())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    _write_json(
        folder / "tokenizer.json", sentencepiece_json(_read_pieces((source / "tok512.bin").read_bytes()))
    )
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "unk_token": "<unk>",
            "clean_up_tokenization_spaces": False,
            "model_max_length": config["max_position_embeddings"],
        },
    )
    return folder


def expected_greedy_text(shared_dir: Path) -> str:
    """The published greedy story (`run -t 0.0`: 256 positions, BOS included)."""
    text = (shared_dir / "data" / "models" / "stories260K" / "expected_greedy_output.md").read_text()
    match = re.search(r"-t 0\.0\n(.*?)\n```", text, re.DOTALL)
    assert match is not None
    return match.group(1)


def sentencepiece_json(pieces: list[tuple[str, float]]) -> dict[str, Any]:
    """A tokenizer.json (BPE, byte_fallback, '▁' for space) with the merges that SentencePiece's scores imply:
    every split of a piece into two pieces is a merge, best score first."""
    vocab = {piece: i for i, (piece, _) in enumerate(pieces)}
    assert len(vocab) == len(pieces)
    ranked = []
    for piece, score in pieces:
        if piece.startswith("<0x") or piece in ("<unk>", BOS, EOS):
            continue
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocab and right in vocab:
                ranked.append((-score, vocab[left], vocab[right], left, right))
    ranked.sort()
    specials = [
        {
            "id": vocab[token],
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token in ("<unk>", BOS, EOS)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": specials,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {BOS: {"id": BOS, "ids": [vocab[BOS]], "tokens": [BOS]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [[left, right] for _, _, _, left, right in ranked],
        },
    }


def pieces_of(shared_dir: Path) -> list[tuple[str, float]]:
    """The 512 pieces of tok512.bin with their scores."""
    return _read_pieces((shared_dir / "data" / "models" / "stories260K" / "tok512.bin").read_bytes())


def _read_pieces(data: bytes) -> list[tuple[str, float]]:
    pieces: list[tuple[str, float]] = []
    offset = 4  # int32: the longest piece
    while offset < len(data):
        score, length = struct.unpack_from("<fi", data, offset)
        offset += 8
        raw = data[offset : offset + length].decode()
        offset += length
        # llama2.c stores BOS and EOS as '\n<s>\n' and '\n</s>\n', and ' ' for '▁'.
        pieces.append((raw.strip("\n") if len(pieces) in (1, 2) else raw.replace(" ", "▁"), score))
    return pieces


def _read_llama2c(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    dim, hidden, n_layers, n_heads, n_kv_heads, vocab, seq_len = struct.unpack_from("<7i", data)
    assert vocab > 0, "negative: the output matrix is not shared"
    values = np.frombuffer(data, dtype="<f4", offset=28)
    offset = 0

    def take(*shape: int) -> np.ndarray:
        nonlocal offset
        count = int(np.prod(shape))
        offset += count
        return values[offset - count : offset].reshape(shape)

    kv_dim = dim // n_heads * n_kv_heads
    tensors = {"model.embed_tokens.weight": take(vocab, dim)}
    stacked = {
        "input_layernorm": take(n_layers, dim),
        "self_attn.q_proj": _halves(take(n_layers, dim, dim), n_heads),
        "self_attn.k_proj": _halves(take(n_layers, kv_dim, dim), n_kv_heads),
        "self_attn.v_proj": take(n_layers, kv_dim, dim),
        "self_attn.o_proj": take(n_layers, dim, dim),
        "post_attention_layernorm": take(n_layers, dim),
        "mlp.gate_proj": take(n_layers, hidden, dim),
        "mlp.down_proj": take(n_layers, dim, hidden),
        "mlp.up_proj": take(n_layers, hidden, dim),
    }
    for name, stack in stacked.items():
        for layer in range(n_layers):
            tensors[f"model.layers.{layer}.{name}.weight"] = np.ascontiguousarray(stack[layer])
    tensors["model.norm.weight"] = take(dim)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": dim,
        "intermediate_size": hidden,
        "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": seq_len,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
    return config, tensors


def _halves(stack: np.ndarray, n_heads: int) -> np.ndarray:
    """llama2.c rotates neighbouring pairs, transformers the two halves of a head."""
    n_layers, rows, columns = stack.shape
    pairs = stack.reshape(n_layers, n_heads, rows // n_heads // 2, 2, columns)
    return pairs.swapaxes(2, 3).reshape(stack.shape)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
