"""A real model trained elsewhere: its published greedy story, through transformers and through GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from helpers import stories260k
from nomoat.engine.base import Sampling
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.quantize.convert import to_gguf
from nomoat.quantize.fidelity import compare

BOS_ID = 1


@pytest.fixture(scope="module")
def folder(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stories260k.build(tmp_path_factory.mktemp("stories260k"), shared_data.parent)


@pytest.fixture(scope="module")
def story(shared_data: Path) -> str:
    return stories260k.expected_greedy_text(shared_data.parent)


def test_transformers_tells_the_published_story(folder: Path, story: str) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    output = model.generate(torch.tensor([[BOS_ID]]), max_new_tokens=256, do_sample=False)
    assert tokenizer.decode(output[0], skip_special_tokens=True) == story


@pytest.mark.parametrize("kind", ["F32", "F16"])
def test_llama_cpp_tells_the_published_story(kind: Any, folder: Path, story: str, tmp_path: Path) -> None:
    file = to_gguf(folder, tmp_path / "stories.gguf", type=kind)
    assert file.tokenizer.compared == 200
    with LlamaCppEngine(file.path, tokenizer_dir=folder) as engine:
        (completion,) = engine.complete([[BOS_ID]], Sampling(max_new_tokens=256))
    assert completion.text == " " + story  # the first piece is '▁Once'
    assert completion.finish_reason == "length"


def test_sixteen_bits_answer_as_transformers_does(folder: Path, tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    starts = (
        "Once",
        "One day",
        "Lily",
        "Tom and his",
        "The dog",
        "A bird",
        "There was",
        "Mom said",
        "In the",
    )
    prompts = [tokenizer(f"{start}{rest}").input_ids for start in starts for rest in ("", " little", " big")]
    file = to_gguf(folder, tmp_path / "stories.gguf", type="F16")
    report = compare(file.path, folder, prompts[:20])
    assert report.identical == 1.0, report
    assert report.mean_kl < 1e-4
    assert report.same_top_token > 0.99
