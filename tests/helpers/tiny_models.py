"""Random models of every family that GGUF can be written for, small enough to convert and run in a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from helpers.stories260k import sentencepiece_json

TEXT = [
    "Once upon a time there was a little girl named Lily. She loved to play outside in the sunshine with",
    "her dog. One day they saw a big red ball near the old tree. 'Can we play with it?' asked Lily.",
    "def add(a, b):\n    return a + b\n",
    "The answer is 42, not 1234. Привет, мир! 你好，世界。 naïve café",
]

CHATML = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)

# The regexes are those of the published tokenizer.json files.
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = CL100K.replace("{1,3}", "")


def byte_level(split: str = "gpt-2", vocab_size: int = 400) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with ChatML tokens, split as 'gpt-2', 'smollm', 'llama-bpe' or 'qwen2' do."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=split == "llama-bpe"))
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    worded = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = {
        "gpt-2": worded,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), worded]),
        "llama-bpe": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CL100K), "isolated"), plain]),
        "qwen2": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), plain]),
    }[split]
    if split == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
        clean_up_tokenization_spaces=False,
    )


def sentencepiece(space_prefix: str = "always") -> PreTrainedTokenizerFast:
    """A SentencePiece-like tokenizer (pieces, bytes as a last resort) with a space in front of text 'always',
    'first' (of the very beginning only) or 'never'."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(_sentencepiece_spec(space_prefix))),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template="{{ bos_token }}"
        + CHATML.replace("<|im_start|>", "<turn>").replace("<|im_end|>", "</s>"),
        clean_up_tokenization_spaces=False,
    )


def space_eating() -> PreTrainedTokenizerFast:
    """As Phi-3's: SentencePiece-like, and most special tokens swallow the spaces behind them."""
    spec = _sentencepiece_spec("always")
    last = spec["added_tokens"][-1]
    spec["added_tokens"].append(last | {"id": last["id"] + 1, "content": "<|endoftext|>"})
    for token in spec["added_tokens"]:
        token["rstrip"] = token["content"] in ("</s>", "<turn>")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)),
        bos_token="<s>",
        eos_token=AddedToken("</s>", rstrip=True, special=True, normalized=False),
        unk_token="<unk>",
        chat_template=sentencepiece().chat_template,
    )


def _sentencepiece_spec(space_prefix: str) -> dict[str, Any]:
    trainer = trainers.BpeTrainer(vocab_size=200, show_progress=False)
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace()
    learned.train_from_iterator(TEXT, trainer)
    merged = json.loads(learned.to_str())["model"]
    rank = {"".join(merge): -float(i) for i, merge in enumerate(merged["merges"])}
    lowest = -float(len(rank))
    pieces = [(token, 0.0) for token in ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))]
    pieces += [(piece, rank.get(piece, lowest)) for piece in merged["vocab"]]
    spec = sentencepiece_json(pieces)
    spec["added_tokens"].append(spec["added_tokens"][2] | {"id": len(pieces), "content": "<turn>"})
    if space_prefix == "never":  # as Gemma's
        spec["normalizer"] = spec["normalizer"]["normalizers"][1]
        spec["pre_tokenizer"] = {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        }
        spec["decoder"]["decoders"].pop()
    elif space_prefix == "first":  # as transformers 5 makes Llama's
        spec["normalizer"] = None
        spec["pre_tokenizer"] = {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": "first",
            "split": False,
        }
    return spec


_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

# name -> (config class, what differs from SIZES, its tokenizer)
FAMILIES: dict[str, tuple[str, dict[str, Any], Callable[[], PreTrainedTokenizerFast]]] = {
    "llama": ("LlamaConfig", {"rope_parameters": _LLAMA3}, lambda: byte_level("llama-bpe")),
    "llama-spm": ("LlamaConfig", {"tie_word_embeddings": True}, sentencepiece),
    "llama-bias": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True}, byte_level),
    "smollm": ("LlamaConfig", {"tie_word_embeddings": True}, lambda: byte_level("smollm")),
    "mistral": ("MistralConfig", {"head_dim": 32, "sliding_window": 256}, sentencepiece),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}, lambda: byte_level("qwen2")),
    "qwen3": ("Qwen3Config", {"head_dim": 32}, lambda: byte_level("qwen2")),
    "qwen3-yarn": (
        "Qwen3Config",
        {
            "head_dim": 32,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
        lambda: byte_level("qwen2"),
    ),
    "gemma": ("GemmaConfig", {"head_dim": 32}, lambda: sentencepiece("never")),
    "gemma2": (
        "Gemma2Config",
        {"head_dim": 32, "query_pre_attn_scalar": 48, "sliding_window": 16},
        lambda: sentencepiece("never"),
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {"head_dim": 32, "query_pre_attn_scalar": 48, "sliding_window": 16, "num_hidden_layers": 6},
        lambda: sentencepiece("never"),
    ),
    "phi3": ("Phi3Config", {}, space_eating),
    "phi3-long": (
        "Phi3Config",
        {
            "max_position_embeddings": 1024,
            "original_max_position_embeddings": 256,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.75,
                "short_factor": [1.0 + 0.1 * i for i in range(6)],
                "long_factor": [2.0 + 0.5 * i for i in range(6)],
                "original_max_position_embeddings": 256,
            },
        },
        sentencepiece,
    ),
    "smollm3": ("SmolLM3Config", {"num_hidden_layers": 4}, lambda: byte_level("llama-bpe")),
}

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    # Far from the usual 0.02: near-uniform logits would make greedy choices a matter of the last digit.
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def build(folder: Path, name: str, *, seed: int = 0, **overrides: Any) -> Path:
    """A folder with a random model of `FAMILIES[name]`, float32, and its tokenizer. Returns `folder`."""
    kind, special, make_tokenizer = FAMILIES[name]
    tokenizer = make_tokenizer()
    settings = SIZES | {"vocab_size": len(tokenizer) + 3} | special | overrides
    config = getattr(transformers, kind)(**settings)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith(("norm.weight", ".bias")):  # ones and zeros would hide mistakes
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
