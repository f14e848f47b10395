"""llama.cpp's ids against the tokenizer's own."""

from __future__ import annotations

import gzip
import json
import unicodedata
from pathlib import Path
from typing import Any

import gguf
import pytest
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from helpers import tiny_models
from helpers.stories260k import sentencepiece_json
from nomoat.chat.template import ChatTemplate
from nomoat.engine.cmodel import CModel
from nomoat.errors import ModelError
from nomoat.quantize.families import FAMILIES, write_hyperparameters
from nomoat.quantize.tokens_check import TokenizerCheck, check_tokenizer, probe_texts
from nomoat.quantize.vocab import read_vocab, write_vocab


def write(path: Path, tokenizer: Any, *, name: str = "model", **changes: Any) -> Path:
    """A GGUF file of a vocabulary and no tensors; `changes` to the Vocab."""
    config = transformers.LlamaConfig(**tiny_models.SIZES | {"vocab_size": len(tokenizer)})
    writer = gguf.GGUFWriter(path, arch="llama")
    writer.add_name(name)
    write_hyperparameters(writer, config, FAMILIES["LlamaForCausalLM"])
    vocab = read_vocab(tokenizer, len(tokenizer))
    for field, value in changes.items():
        object.__setattr__(vocab, field, value)
    write_vocab(writer, vocab, tokenizer, ChatTemplate.of(tokenizer))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return path


def test_probe_texts_are_seeded_and_hold_every_special_token() -> None:
    special = [f"<|{i}|>" for i in range(60)]
    texts = probe_texts(special)
    assert texts == probe_texts(special)
    assert len(texts) == 200 and len(probe_texts([])) == 100
    assert all(any(token in text for text in texts) for token in special)
    assert all(text == unicodedata.normalize("NFC", text) for text in texts)


@pytest.mark.parametrize("split", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_byte_level_tokenizers_agree(split: str, tmp_path: Path) -> None:
    tokenizer = tiny_models.byte_level(split)
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False)])
    assert check_tokenizer(write(tmp_path / "v.gguf", tokenizer), tokenizer) == TokenizerCheck(200, None)


@pytest.mark.parametrize("prefix", ["always", "never"])
def test_sentencepiece_tokenizers_agree(prefix: str, tmp_path: Path) -> None:
    tokenizer = tiny_models.sentencepiece(prefix)
    assert check_tokenizer(write(tmp_path / "v.gguf", tokenizer), tokenizer) == TokenizerCheck(200, None)


def test_what_cannot_agree_is_left_out_and_said(tmp_path: Path) -> None:
    tokenizer = tiny_models.sentencepiece("first")
    found = check_tokenizer(write(tmp_path / "v.gguf", tokenizer), tokenizer)
    assert found.compared > 80
    assert found.left_out == (
        f"{200 - found.compared} texts: this tokenizer puts a space in front of the very first word only, "
        "and only where none stands; llama.cpp always, and after every special token"
    )


def test_spaces_that_special_tokens_eat(tmp_path: Path) -> None:
    """Phi-3's tokens do; llama.cpp goes by the model's name."""
    tokenizer = tiny_models.space_eating()
    with pytest.raises(ModelError, match="llama.cpp splits"):
        check_tokenizer(write(tmp_path / "model.gguf", tokenizer), tokenizer)
    path = write(tmp_path / "phi3.gguf", tokenizer, name="phi3")
    assert check_tokenizer(path, tokenizer).compared == 200


@pytest.mark.parametrize("split", ["gpt-2", "smollm"])
def test_a_wrong_split_is_found_and_quoted(split: str, tmp_path: Path) -> None:
    tokenizer = tiny_models.byte_level("qwen2")
    path = write(tmp_path / "wrong.gguf", tokenizer, pre=split)
    with pytest.raises(ModelError) as caught:
        check_tokenizer(path, tokenizer)
    with CModel(path, vocab_only=True) as model:
        text = next(
            t
            for t in probe_texts([])
            if model.tokenize(t) != tokenizer(t, add_special_tokens=False).input_ids
        )
        found = model.tokenize(text)
    assert caught.value.message == (
        f"wrong.gguf: llama.cpp splits {text!r} into {found}; "
        f"the tokenizer into {tokenizer(text, add_special_tokens=False).input_ids}"
    )


def test_wrong_scores_are_found(tmp_path: Path) -> None:
    tokenizer = tiny_models.sentencepiece()
    scores = read_vocab(tokenizer, len(tokenizer)).scores
    with pytest.raises(ModelError, match="llama.cpp splits"):
        check_tokenizer(write(tmp_path / "v.gguf", tokenizer, scores=scores[::-1]), tokenizer)


# -- published tokenizers, and the ids that llama.cpp's own tests expect of them ---------------------------


def unpack(source: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in source.iterdir():
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        (folder / path.name.removesuffix(".gz")).write_bytes(data)
    return folder


def qwen(shared: Path, tmp_path: Path) -> Any:
    return AutoTokenizer.from_pretrained(unpack(shared / "qwen2.5", tmp_path / "qwen"))


def gpt2(shared: Path, tmp_path: Path) -> Any:
    folder = unpack(shared / "gpt2", tmp_path / "gpt2")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    return AutoTokenizer.from_pretrained(folder)


def llama2(shared: Path, tmp_path: Path) -> Any:
    sentencepiece = pytest.importorskip("sentencepiece")
    model = sentencepiece.SentencePieceProcessor(str(shared / "llama2" / "tokenizer.model"))
    pieces = [(model.id_to_piece(i), model.get_score(i)) for i in range(model.get_piece_size())]
    backend = Tokenizer.from_str(json.dumps(sentencepiece_json(pieces)))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def llama3(shared: Path, tmp_path: Path) -> Any:
    folder = unpack(shared / "llama3.2", tmp_path / "llama3")
    lines = (folder / "vocab.bpe").read_text().splitlines()
    backend = Tokenizer(
        models.BPE(
            vocab=json.loads((folder / "encoder.json").read_text()),
            merges=[tuple(line.split(" ")) for line in lines if len(line.split(" ")) == 2],
            ignore_merges=True,
        )
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(tiny_models.CL100K), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|begin_of_text|>", "<|eot_id|>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "pair"),
    [(qwen, "qwen2"), (gpt2, "gpt-2"), (llama2, "llama-spm"), (llama3, "llama-bpe")],
)
def test_published_tokenizers_agree(make: Any, pair: str, shared_data: Path, tmp_path: Path) -> None:
    shared = shared_data / "tokenizers"
    tokenizer = make(shared, tmp_path)
    path = write(tmp_path / "v.gguf", tokenizer)
    assert check_tokenizer(path, tokenizer) == TokenizerCheck(200, None)
    source = shared / "gguf_vocab" / f"ggml-vocab-{pair}.gguf"
    *texts, rest = source.with_suffix(".gguf.inp").read_text().split("\n__ggml_vocab_test__\n")
    lines = source.with_suffix(".gguf.out").read_text().splitlines()
    expected = [[int(i) for i in line.split()] for line in lines]
    with CModel(path, vocab_only=True) as model:
        found = [model.tokenize(text, parse_special=False) for text in texts]
    assert found == expected
    assert (len(texts), rest) == (46, "")
