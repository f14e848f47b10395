"""Writing GGUF: the bytes, the metadata, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import tiny_models
from nomoat.engine.cmodel import CModel, token_logits
from nomoat.errors import ModelError
from nomoat.quantize.convert import to_gguf


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build(tmp_path_factory.mktemp("qwen2"), "qwen2")


@pytest.fixture
def copy(qwen2: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen2, tmp_path / "copy"))


def fields(path: Path) -> dict[str, Any]:
    reader = gguf.GGUFReader(path)
    return {name: field.contents() for name, field in reader.fields.items()}


def rewrite(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("kind", ["F16", "Q4_K_M"])
def test_same_folder_same_bytes(kind: Any, qwen2: Path, copy: Path, tmp_path: Path) -> None:
    first = to_gguf(qwen2, tmp_path / "first.gguf", type=kind)
    second = to_gguf(copy, tmp_path / "second.gguf", type=kind)
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.bytes == first.path.stat().st_size


def test_shards_make_the_file_that_one_makes(qwen2: Path, copy: Path, tmp_path: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, copy / file)
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    (copy / "model.safetensors").unlink()
    whole = to_gguf(qwen2, tmp_path / "whole.gguf", type="Q8_0")
    assert to_gguf(copy, tmp_path / "shards.gguf", type="Q8_0").path.read_bytes() == whole.path.read_bytes()
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError) as caught:
        to_gguf(copy, tmp_path / "x.gguf", type="Q8_0")
    assert caught.value.message == (
        f"{copy}: no model-00002-of-00002.safetensors; expected a merged model in safetensors"
    )


def test_of_one_file_and_shards_the_one_is_read_as_transformers_reads_it(copy: Path, tmp_path: Path) -> None:
    whole = to_gguf(copy, tmp_path / "whole.gguf", type="F32").path.read_bytes()
    others = {name: tensor + 1 for name, tensor in load_file(copy / "model.safetensors").items()}
    save_file(others, copy / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(others, "model-00001-of-00001.safetensors")}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert to_gguf(copy, tmp_path / "both.gguf", type="F32").path.read_bytes() == whole


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_taken_exactly(dtype: torch.dtype, copy: Path, tmp_path: Path) -> None:
    rewrite(copy, lambda tensors: tensors.update({n: t.to(dtype) for n, t in tensors.items()}))
    halved = to_gguf(copy, tmp_path / "halved.gguf", type="F32")
    rewrite(copy, lambda tensors: tensors.update({n: t.float() for n, t in tensors.items()}))
    assert to_gguf(copy, tmp_path / "full.gguf", type="F32").path.read_bytes() == halved.path.read_bytes()


def test_the_file_says_what_the_model_is(qwen2: Path, tmp_path: Path) -> None:
    file = to_gguf(qwen2, tmp_path / "model.gguf", type="Q8_0")
    found = fields(file.path)
    assert found["general.architecture"] == "qwen2"
    assert found["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0
    assert found["qwen2.context_length"] == 256
    assert found["qwen2.embedding_length"] == 64
    assert found["qwen2.attention.head_count"] == 4
    assert found["qwen2.attention.head_count_kv"] == 2
    assert found["tokenizer.ggml.model"] == "gpt2"
    assert found["tokenizer.ggml.pre"] == "qwen2"
    assert found["tokenizer.chat_template"] == tiny_models.CHATML
    assert found["tokenizer.ggml.tokens"][found["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"
    assert str(qwen2) not in str(found)
    assert file.tensor_types == {"F32": 11, "Q8_0": 15}


def test_llama_cpp_stops_at_the_tokens_of_the_template(copy: Path, tmp_path: Path) -> None:
    """The turn ends in <|im_end|>, and eos is another token: both have to stop it."""
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<|endoftext|>"}))
    file = to_gguf(copy, tmp_path / "model.gguf", type="F16")
    found = fields(file.path)
    tokens = found["tokenizer.ggml.tokens"]
    assert tokens[found["tokenizer.ggml.eos_token_id"]] == "<|endoftext|>"
    assert tokens[found["tokenizer.ggml.eot_token_id"]] == "<|im_end|>"
    with CModel(file.path, vocab_only=True) as model:
        assert model.ends_generation(tokens.index("<|endoftext|>"))
        assert model.ends_generation(tokens.index("<|im_end|>"))
        assert not model.ends_generation(tokens.index("<|im_start|>"))


def test_a_chat_template_from_a_file_is_the_one_that_is_written(qwen2: Path, tmp_path: Path) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text(tiny_models.CHATML.replace("assistant", "helper"))
    file = to_gguf(qwen2, tmp_path / "model.gguf", type="F16", chat_template=template)
    assert fields(file.path)["tokenizer.chat_template"] == template.read_text()


def test_an_untied_output_matrix_is_written_and_a_tied_one_is_not(tmp_path: Path) -> None:
    for tied in (True, False):
        folder = tiny_models.build(tmp_path / str(tied), "qwen2", tie_word_embeddings=tied)
        file = to_gguf(folder, tmp_path / f"{tied}.gguf", type="F32")
        names = [tensor.name for tensor in gguf.GGUFReader(file.path).tensors]
        assert ("output.weight" in names) is not tied


def test_tensors_keep_their_values_and_places(qwen2: Path, tmp_path: Path) -> None:
    reader = gguf.GGUFReader(to_gguf(qwen2, tmp_path / "model.gguf", type="F32").path)
    written = {tensor.name: tensor.data for tensor in reader.tensors}
    weights = load_file(qwen2 / "model.safetensors")
    assert np.array_equal(written["token_embd.weight"], weights["model.embed_tokens.weight"].numpy())
    assert np.array_equal(written["blk.1.ffn_down.weight"], weights["model.layers.1.mlp.down_proj.weight"])
    assert np.array_equal(written["blk.0.attn_q.bias"], weights["model.layers.0.self_attn.q_proj.bias"])
    assert len(written) == len(weights)


def refusal(folder: Path, tmp_path: Path, kind: Any = "F16") -> str:
    with pytest.raises(ModelError) as caught:
        to_gguf(folder, tmp_path / "x.gguf", type=kind)
    return caught.value.message


def test_an_unknown_type_names_the_nearest(qwen2: Path, tmp_path: Path) -> None:
    assert refusal(qwen2, tmp_path, "Q4_KM") == (
        "quantize.types: got 'Q4_KM'; expected F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q4_K_M. "
        'Did you mean "Q4_K_M"?'
    )


def test_an_adapters_tensor_is_refused(copy: Path, tmp_path: Path) -> None:
    rewrite(
        copy, lambda tensors: tensors.update({"model.layers.0.self_attn.q_proj.lora_A": torch.zeros(2, 2)})
    )
    assert refusal(copy, tmp_path) == (
        "model.safetensors: tensor 'model.layers.0.self_attn.q_proj.lora_A' has no place in llama.cpp's qwen2"
    )


def test_nan_is_refused(copy: Path, tmp_path: Path) -> None:
    rewrite(copy, lambda tensors: tensors["model.layers.1.mlp.up_proj.weight"].fill_(float("nan")))
    assert refusal(copy, tmp_path) == (
        "model.safetensors: tensor 'model.layers.1.mlp.up_proj.weight' holds infinities or NaN"
    )


def test_a_missing_tensor_is_found_by_llama_cpp(copy: Path, tmp_path: Path) -> None:
    rewrite(copy, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    assert "x.gguf: written, but llama.cpp does not accept it" in refusal(copy, tmp_path)


def test_a_cut_file_of_weights_is_refused(copy: Path, tmp_path: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert refusal(copy, tmp_path).startswith(f"{weights}: not a whole safetensors file: ")


def test_a_tokenizer_larger_than_the_embedding_is_refused(copy: Path, tmp_path: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))
    assert refusal(copy, tmp_path) == (
        "tokenizer: has token ids up to 399; the model's embedding has 300 rows"
    )


def test_rows_beyond_the_tokenizer_are_unused_tokens(qwen2: Path, tmp_path: Path) -> None:
    file = to_gguf(qwen2, tmp_path / "model.gguf", type="F32")
    found = fields(file.path)
    assert found["tokenizer.ggml.tokens"][-1] == "[PAD402]"
    assert found["tokenizer.ggml.token_type"][-1] == gguf.TokenType.UNUSED
    assert token_logits(file.path, [402]).shape == (1, 403)
