"""LoRA adapters as GGUF: llama.cpp computes with them what PEFT does; what cannot be one is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import tiny_models
from helpers.adapters import adapted
from nomoat.engine.cmodel import CModel
from nomoat.errors import ModelError
from nomoat.quantize.adapter import adapter_to_gguf
from nomoat.quantize.convert import to_gguf

TOKENS = list(range(10, 42))


@torch.no_grad()
def check_logits(peft_model: Any, base: Path, adapter: Path, place: Path, *, within: float) -> None:
    """llama.cpp's logits with the adapter are PEFT's, which are not those without."""
    to_gguf(base, place / "base.gguf", type="F32")
    adapter_to_gguf(adapter, base, place / "adapter.gguf")
    expected = peft_model(torch.tensor([TOKENS])).logits[0].numpy()
    with peft_model.disable_adapter():
        plain = peft_model(torch.tensor([TOKENS])).logits[0].numpy()
    with CModel(place / "base.gguf") as model:
        found = model.logits(TOKENS, adapter=model.load_adapter(place / "adapter.gguf"))
        without = model.logits(TOKENS)
    assert np.abs(expected - plain).max() > 1
    assert np.abs(found - expected).max() < within
    assert np.abs(without - plain).max() < within


# llama.cpp's GELU, Gemma's, is a table in half precision
@pytest.mark.parametrize(
    ("family", "within"),
    [
        ("llama", 1e-3),
        ("qwen2", 1e-3),
        ("gemma2", 2e-2),
        ("gemma3", 2e-2),
        ("phi3", 1e-3),
        ("smollm3", 1e-3),
    ],
)
def test_logits_are_those_of_peft(family: str, within: float, tmp_path: Path) -> None:
    base = tiny_models.build(tmp_path / "base", family)
    peft_model = adapted(base, tmp_path / "adapter")
    check_logits(peft_model, base, tmp_path / "adapter", tmp_path, within=within)


@pytest.mark.parametrize(
    "changed",
    [
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 6}, "alpha_pattern": {"v_proj": 3}},
        {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1]},
    ],
)
def test_peft_scales_each_its_own_way(changed: dict[str, Any], tmp_path: Path) -> None:
    base = tiny_models.build(tmp_path / "base", "llama")
    check_logits(
        adapted(base, tmp_path / "adapter", **changed), base, tmp_path / "adapter", tmp_path, within=1e-3
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build(tmp_path_factory.mktemp("base"), "smollm")


@pytest.fixture(scope="module")
def made(base: Path) -> Path:
    adapted(base, base.parent / "adapter")
    return base.parent / "adapter"


@pytest.fixture
def adapter(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "adapter"))


def test_the_file_says_what_it_is_and_is_the_same_each_time(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    first = adapter_to_gguf(adapter, base, tmp_path / "first.gguf")
    second = adapter_to_gguf(adapter, base, tmp_path / "second.gguf")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert (first.tensors, first.rank, first.bytes) == (14, 4, first.path.stat().st_size)
    reader = gguf.GGUFReader(first.path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.type"] == "adapter"
    assert (fields["general.architecture"], fields["adapter.type"]) == ("llama", "lora")
    assert fields["adapter.lora.alpha"] == 8.0
    assert {tensor.name for tensor in reader.tensors} >= {
        "blk.1.attn_q.weight.lora_a",
        "blk.0.ffn_up.weight.lora_b",
    }


def rewritten(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "adapter_config.json"
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))

    return apply


def with_tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")

    return apply


Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors"),
        (
            lambda folder: (folder / "adapter_config.json").write_text("{"),
            "adapter_config.json: cannot be read",
        ),
        (rewritten(lambda c: c.update(peft_type="IA3")), "peft_type: got 'IA3'; expected 'LORA'"),
        (rewritten(lambda c: c.update(use_dora=True)), "use_dora: got True; a GGUF adapter holds low-rank"),
        (rewritten(lambda c: c.update(modules_to_save=["lm_head"])), "modules_to_save: got ['lm_head']"),
        (rewritten(lambda c: c.update(bias="all")), "bias: got 'all'"),
        (rewritten(lambda c: c.update(alora_invocation_tokens=[7])), "alora_invocation_tokens: got [7]"),
        (
            rewritten(lambda c: c.update(init_lora_weights="pissa")),
            "init_lora_weights: pissa changes the base itself",
        ),
        (
            with_tensors(
                lambda t: t.update({"base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(4, 9)})
            ),
            "tensor 'base_model.model.model.embed_tokens.lora_embedding_A' adapts no linear layer of the base; "
            "it has layers such as model.layers.0.self_attn.k_proj",
        ),
        (with_tensors(lambda t: t.pop(f"{Q}.lora_A.weight")), "belong together, and only one is there"),
        (
            with_tensors(lambda t: t.update({f"{Q}.lora_B.weight": torch.ones(64, 3)})),
            "lora_A (4, 64) and lora_B (64, 3) have no rank in common",
        ),
        (
            with_tensors(lambda t: t.update({f"{Q}.lora_B.weight": torch.ones(32, 4)})),
            "the adapter is for a matrix 32 x 64; the base's is 64 x 64",
        ),
        (with_tensors(lambda t: t[f"{Q}.lora_A.weight"].fill_(float("nan"))), "holds infinities or NaN"),
        (with_tensors(lambda t: t.clear()), "holds no lora_A.weight"),
    ],
)
def test_what_cannot_be_one_is_refused(
    spoil: Callable[[Path], Any], said: str, adapter: Path, base: Path, tmp_path: Path
) -> None:
    spoil(adapter)
    with pytest.raises(ModelError) as caught:
        adapter_to_gguf(adapter, base, tmp_path / "x.gguf")
    assert said in caught.value.message
    assert not (tmp_path / "x.gguf").exists()
