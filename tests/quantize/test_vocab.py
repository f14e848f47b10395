"""Tokenizers as GGUF vocabularies."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from gguf import TokenType
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import PreTrainedTokenizerFast

from helpers import tiny_models
from nomoat.chat.template import ChatTemplate
from nomoat.errors import ModelError
from nomoat.quantize.vocab import SpacePrefix, read_vocab, space_prefix, special_tokens


@pytest.mark.parametrize("split", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_the_split_before_the_merges_is_recognised(split: str) -> None:
    tokenizer = tiny_models.byte_level(split)
    vocab = read_vocab(tokenizer, len(tokenizer))
    assert (vocab.model, vocab.pre) == ("gpt2", split)
    assert vocab.tokens == tuple(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    assert vocab.merges and vocab.adds_space is None and not vocab.scores
    assert [vocab.types[i] for i in range(4)] == [TokenType.CONTROL] * 3 + [TokenType.NORMAL]


def test_llama_3s_split_without_whole_words_is_dbrxs() -> None:
    tokenizer = tiny_models.byte_level("llama-bpe")
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    spec["model"]["ignore_merges"] = False
    changed = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(spec)))
    assert read_vocab(changed, len(changed)).pre == "dbrx"


def refusal(change: Callable[[Tokenizer], object], tokenizer: Any = None) -> str:
    tokenizer = tokenizer or tiny_models.byte_level()
    change(tokenizer.backend_tokenizer)
    with pytest.raises(ModelError) as caught:
        read_vocab(tokenizer, len(tokenizer))
    return caught.value.message


def test_an_unknown_split_is_named() -> None:
    def split_at_commas(tokenizer: Tokenizer) -> None:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(","), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )

    assert refusal(split_at_commas) == (
        "tokenizer.json: pre_tokenizer: got , (ignore_merges: False); llama.cpp has no such tokenizer "
        "(it knows one of dbrx, gpt-2, gpt-4o, llama-bpe, qwen2, smollm, tekken)"
    )


def test_other_kinds_of_tokenizer_are_named() -> None:
    def add_space(tokenizer: Tokenizer) -> None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)

    def lowercase(tokenizer: Tokenizer) -> None:
        tokenizer.normalizer = normalizers.Lowercase()

    def unigram(tokenizer: Tokenizer) -> None:
        tokenizer.model = tokenizer_models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0)

    assert "tokenizer.json: pre_tokenizer: got {" in refusal(add_space)
    assert refusal(lowercase) == (
        "tokenizer.json: normalizer: got Lowercase; llama.cpp has no such tokenizer (it knows none or NFC)"
    )
    assert refusal(lowercase, tiny_models.sentencepiece()) == (
        "tokenizer.json: normalizer: got Lowercase; llama.cpp has no such tokenizer "
        "(it knows Prepend ▁ and Replace ' ' by ▁)"
    )
    assert refusal(unigram) == (
        "tokenizer.json: model.type: got Unigram; llama.cpp has no such tokenizer (it knows BPE)"
    )


def test_sentencepiece_scores_follow_the_merges() -> None:
    tokenizer = tiny_models.sentencepiece()
    vocab = read_vocab(tokenizer, len(tokenizer))
    assert (vocab.model, vocab.pre, vocab.adds_space) == ("llama", "default", True)
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    score = dict(zip(vocab.tokens, vocab.scores, strict=True))
    merged = [score["".join(merge)] for merge in spec["model"]["merges"]]
    assert merged == sorted(merged, reverse=True)
    assert vocab.types[:4] == (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, TokenType.BYTE)
    assert vocab.tokens[3] == "<0x00>"


@pytest.mark.parametrize(
    ("made_as", "expected"),
    [("always", SpacePrefix.ALWAYS), ("first", SpacePrefix.FIRST), ("never", SpacePrefix.NEVER)],
)
def test_the_space_in_front(made_as: str, expected: SpacePrefix) -> None:
    tokenizer = tiny_models.sentencepiece(made_as)
    assert space_prefix(json.loads(tokenizer.backend_tokenizer.to_str())) == expected
    assert read_vocab(tokenizer, len(tokenizer)).adds_space is (made_as != "never")


def test_added_tokens_that_are_not_special_are_user_defined() -> None:
    tokenizer = tiny_models.byte_level()
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False)])
    assert read_vocab(tokenizer, len(tokenizer)).types[-1] == TokenType.USER_DEFINED


def test_added_runs_of_spaces_are_left_to_the_merges() -> None:
    tokenizer = tiny_models.sentencepiece("never")
    tokenizer.add_tokens([AddedToken("▁▁▁", special=False, normalized=False)])
    assert read_vocab(tokenizer, len(tokenizer)).types[-1] == TokenType.NORMAL


def test_every_stop_token_of_the_template_gets_a_name_that_llama_cpp_stops_at() -> None:
    tokenizer = tiny_models.byte_level()
    names = {name: tokenizer.convert_ids_to_tokens(i) for name, i in specials(tokenizer).items()}
    assert names == {"eos": "<|im_end|>", "pad": "<|endoftext|>"}
    tokenizer.eos_token = "<|endoftext|>"
    names = {name: tokenizer.convert_ids_to_tokens(i) for name, i in specials(tokenizer).items()}
    assert names == {"eos": "<|endoftext|>", "eot": "<|im_end|>", "pad": "<|endoftext|>"}


def specials(tokenizer: Any) -> dict[str, int]:
    return special_tokens(tokenizer, ChatTemplate.of(tokenizer))
