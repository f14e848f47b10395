"""A tokenizer and a model from nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from nomoat.chat.template import CHATML, IM_END, IM_START

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, max_seq_len: int) -> Any:
    """A byte-level BPE tokenizer (GPT-2's pre-tokenizer) with ChatML's two tokens and an end of text.

    `texts` is read once. Every byte is in the vocabulary, so nothing is ever unknown.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, IM_START, IM_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        model_max_length=max_seq_len,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHATML
    return fast


def new_llama(
    *,
    vocab_size: int,
    hidden_size: int,
    intermediate_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
    num_key_value_heads: int,
    max_seq_len: int,
    eos_token_id: int,
    pad_token_id: int,
    seed: int,
) -> Any:
    """A Llama with tied embeddings and random weights (std 0.02, as transformers initialises it)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from nomoat.model.attention import PACKED
    from nomoat.model.fused.families import fuse

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        num_key_value_heads=num_key_value_heads,
        max_position_embeddings=max_seq_len,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        attn_implementation=PACKED,
    )
    model = LlamaForCausalLM(config)
    fuse(model)
    return model
