"""Every family, written as GGUF and computed by llama.cpp, against transformers."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from helpers import tiny_models
from nomoat.engine.base import Sampling
from nomoat.engine.cmodel import token_logits
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.errors import ModelError
from nomoat.quantize.convert import GgufFile, to_gguf
from nomoat.quantize.families import context_length, family_of

FAMILIES = sorted(tiny_models.FAMILIES)
GEMMAS = [name for name in FAMILIES if name.startswith("gemma")]


@dataclass(frozen=True)
class Made:
    folder: Path
    model: Any


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    @cache
    def build(name: str) -> Made:
        folder = tiny_models.build(tmp_path_factory.mktemp(name), name)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
        return Made(folder, model.eval())

    return build


def convert(made: Made, kind: Any) -> GgufFile:
    return to_gguf(made.folder, made.folder / f"model.{kind}.gguf", type=kind)


def random_tokens(made: Made, count: int) -> list[int]:
    rng = random.Random(1)
    return [rng.randrange(3, made.model.config.vocab_size - 3) for _ in range(count)]


def torch_logits(made: Made, tokens: list[int]) -> np.ndarray:
    with torch.no_grad():
        logits: np.ndarray = made.model(torch.tensor([tokens])).logits[0].numpy()
    return logits


# 60 tokens: beyond the window of 16 that the Gemma models here have.
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_transformers(name: str, make: Callable[[str], Made]) -> None:
    made = make(name)
    tokens = random_tokens(made, 60)
    difference = np.abs(token_logits(convert(made, "F32").path, tokens) - torch_logits(made, tokens)).max()
    # ggml looks GELU up in a table of float16 values; test_gemma_differs_by_ggmls_gelu proves that it is this.
    assert difference < (2e-2 if name in GEMMAS else 1e-3)


class _GgmlGelu(torch.nn.Module):
    """ggml_gelu: a table over all float16 numbers, holding float16."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(x.half().float(), approximate="tanh").half().float()


@pytest.mark.parametrize("name", GEMMAS)
def test_gemma_differs_by_ggmls_gelu(name: str, make: Callable[[str], Made]) -> None:
    made = make(name)
    tokens = random_tokens(made, 60)
    found = token_logits(convert(made, "F32").path, tokens)
    before = np.abs(found - torch_logits(made, tokens)).max()
    originals = [layer.mlp.act_fn for layer in made.model.model.layers]
    for layer in made.model.model.layers:
        layer.mlp.act_fn = _GgmlGelu()
    try:
        after = np.abs(found - torch_logits(made, tokens)).max()
    finally:
        for layer, original in zip(made.model.model.layers, originals, strict=True):
            layer.mlp.act_fn = original
    assert after < 3e-3
    assert after < before / 2


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_answers_are_those_of_transformers(name: str, make: Callable[[str], Made]) -> None:
    """20 prompts, 24 tokens. Random weights leave some choices to the fifth digit: a difference counts where
    transformers' own margin is above the two programs' distance in logits (test above)."""
    made = make(name)
    rng = random.Random(0)
    prompts = [random_tokens(made, 40)[: rng.randint(3, 30)] for _ in range(20)]
    file = convert(made, "F32")
    with LlamaCppEngine(file.path, tokenizer_dir=made.folder, exact=True) as engine:
        found = [list(c.tokens) for c in engine.complete(prompts, Sampling(max_new_tokens=24))]
        stops = list(engine.template.stop_token_ids)
    margin = 2e-2 if name in GEMMAS else 1e-3
    whole = 0
    for prompt, answer in zip(prompts, found, strict=True):
        expected, margins = torch_greedy(made, prompt, stops)
        undecided = next((i for i, gap in enumerate(margins) if gap < margin), len(expected))
        assert answer[:undecided] == expected[:undecided]
        whole += answer == expected
    assert whole >= 18


def torch_greedy(made: Made, prompt: list[int], stops: list[int]) -> tuple[list[int], list[float]]:
    output = made.model.generate(
        torch.tensor([prompt]),
        max_new_tokens=24,
        do_sample=False,
        eos_token_id=stops,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    margins = [float(step[0].topk(2).values.diff().abs()) for step in output.logits]
    return output.sequences[0, len(prompt) :].tolist(), margins


# Error relative to the F16 file's, whose mantissa has 11 bits: 8 times for BF16's 8 bits, and so on. A file
# that was of another type, or damaged one tensor, would leave its band. Rows of 256 are whole blocks, so
# Q4_K_M really is made of K-quants.
BANDS = {
    "F16": (1, 1),
    "BF16": (6, 11),
    "Q8_0": (18, 36),
    "Q6_K": (50, 105),
    "Q5_K_M": (80, 180),
    "Q4_K_M": (140, 360),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_rounded_files_stay_near(name: str, tmp_path: Path) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64}
    if name == "phi3-long":  # its factors are for heads of 16
        sizes |= {"head_dim": 16, "num_attention_heads": 16, "num_key_value_heads": 16}
    folder = tiny_models.build(tmp_path, name, **sizes, initializer_range=0.05)
    made = Made(folder, transformers.AutoModelForCausalLM.from_pretrained(folder).eval())
    tokens = random_tokens(made, 60)
    expected = torch_logits(made, tokens)
    errors = {}
    for kind in BANDS:
        file = convert(made, kind)
        difference = token_logits(file.path, tokens) - expected
        errors[kind] = float(np.sqrt(np.mean(difference**2) / np.mean(expected**2)))
    assert list(errors.values()) == sorted(errors.values()), errors
    assert errors["F16"] < 0.003
    ratios = {kind: error / errors["F16"] for kind, error in errors.items()}
    assert all(BANDS[kind][0] <= ratio <= BANDS[kind][1] for kind, ratio in ratios.items()), ratios
    assert set(file.tensor_types) == {"F32", "Q4_K", "Q6_K"}


def test_linear_rope_scaling(tmp_path: Path) -> None:
    rope = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    folder = tiny_models.build(tmp_path, "smollm", rope_parameters=rope)
    made = Made(folder, transformers.AutoModelForCausalLM.from_pretrained(folder).eval())
    tokens = random_tokens(made, 60)
    found = token_logits(convert(made, "F32").path, tokens)
    assert np.abs(found - torch_logits(made, tokens)).max() < 1e-3


@pytest.mark.parametrize(
    ("name", "overrides", "expected"),
    [
        ("llama", {}, 256),
        ("mistral", {"sliding_window": 64}, 64),  # llama.cpp's llama has no window
        ("gemma2", {"sliding_window": 64}, 256),  # its gemma2 has
        ("phi3", {"sliding_window": 100}, 100),
        ("phi3-long", {}, 256),  # of 1024: the original context
    ],
)
def test_context_is_what_both_compute_alike(
    name: str, overrides: dict[str, Any], expected: int, tmp_path: Path
) -> None:
    folder = tiny_models.build(tmp_path, name, **overrides)
    config = transformers.AutoConfig.from_pretrained(folder)
    assert context_length(config, family_of(config)) == expected


def refused(name: str, **settings: Any) -> str:
    kind, special, _ = tiny_models.FAMILIES[name]
    config = getattr(transformers, kind)(**tiny_models.SIZES | {"vocab_size": 64} | special | settings)
    config.architectures = config.architectures or [ARCHITECTURES[name]]
    with pytest.raises(ModelError) as caught:
        family_of(config)
    return caught.value.message


ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "qwen3-yarn": "Qwen3ForCausalLM",
}


def test_unknown_architecture_lists_what_is_supported() -> None:
    assert refused("llama", architectures=["FalconForCausalLM"]) == (
        "config.json: architectures: got ['FalconForCausalLM']; GGUF can be written for LlamaForCausalLM, "
        "MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, GemmaForCausalLM, Gemma2ForCausalLM, "
        "Gemma3ForCausalLM, Phi3ForCausalLM, SmolLM3ForCausalLM"
    )


def test_settings_that_llama_cpp_cannot_compute_are_refused() -> None:
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    assert refused("llama", rope_parameters=dynamic) == (
        "config.json: rope_parameters.rope_type: got dynamic; llama.cpp computes LlamaForCausalLM only with "
        "default or linear or llama3 or yarn"
    )
    assert refused("llama", hidden_act="relu") == (
        "config.json: hidden_act: got relu; llama.cpp computes LlamaForCausalLM only with silu"
    )
    assert refused("gemma2", layer_types=["full_attention", "full_attention"]) == (
        "config.json: layer_types: got ['full_attention', 'full_attention']; llama.cpp computes "
        "Gemma2ForCausalLM only with every 2th layer full"
    )
    assert refused("smollm3", no_rope_layers=[1, 1, 1, 1]) == (
        "config.json: no_rope_layers: got [1, 1, 1, 1]; llama.cpp computes SmolLM3ForCausalLM only with "
        "every 4th layer 0"
    )
    yarn = tiny_models.FAMILIES["qwen3-yarn"][1]["rope_parameters"] | {"beta_fast": 16}
    assert refused("qwen3-yarn", rope_parameters=yarn) == (
        "config.json: rope_parameters.beta_fast: got 16; llama.cpp computes Qwen3ForCausalLM only with 32"
    )
