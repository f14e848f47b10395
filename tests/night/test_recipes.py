from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nomoat.errors import ModelError, NomoatError, RecipeError
from nomoat.model.load import Machine, read_shape, resolve_base
from nomoat.night.recipes import micro_batch_tokens, require_extras, resolve_learning_rate
from nomoat.recipe import Recipe
from nomoat.recipe_file import load_recipe
from nomoat.recipe_training import Pretrain, Reinforce, Sft

SLOW = Machine("cpu", torch.float32)

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize(
    ("keys", "width", "rate", "said"),
    [
        ({}, 2048, 2e-4, "learning rate 0.0002 for an adapter of a base 2048 wide (sft.learning_rate)"),
        ({}, 4096, 2e-4, "learning rate 0.0002 for an adapter of a base 4096 wide (sft.learning_rate)"),
        ({}, 256, 1.6e-3, "learning rate 0.0016 for an adapter of a base 256 wide (sft.learning_rate)"),
        (
            {"method": "full"},
            256,
            1.6e-4,
            "learning rate 0.00016 for all weights of a base 256 wide (sft.learning_rate)",
        ),
        ({"learning_rate": 5e-5}, 256, 5e-5, "learning rate 5e-05, as the recipe says"),
    ],
)
def test_the_rate_follows_from_width_and_method(
    keys: dict[str, Any], width: int, rate: float, said: str
) -> None:
    found, reason = resolve_learning_rate(Sft(**keys), width)
    assert found == pytest.approx(rate)
    assert reason == said


@pytest.mark.parametrize(
    ("keys", "machine", "method", "tokens"),
    [
        ({}, SLOW, "lora", 512),
        ({}, SLOW, "full", 2048),
        ({}, Machine("cpu", torch.bfloat16), "lora", 2048),
        ({}, Machine("cuda", torch.bfloat16), "lora", 2048),
        ({"micro_batch_tokens": 1024}, SLOW, "lora", 1024),
        ({"max_seq_len": 768}, SLOW, "lora", 768),
    ],
)
def test_a_micro_batch_holds_the_longest_row_at_least(
    keys: dict[str, Any], machine: Machine, method: str, tokens: int
) -> None:
    assert micro_batch_tokens(Sft(**keys), machine, method) == tokens


def test_an_extra_that_is_not_there_is_missed_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.delitem(sys.modules, "bitsandbytes.functional", raising=False)
    require_extras(Recipe(), "cpu")
    require_extras(Recipe(sft=None, pretrain=Pretrain(train=["text.jsonl"])), "cpu")
    with pytest.raises(ModelError, match=r"^sft.optim needs bitsandbytes, which is not installed"):
        require_extras(Recipe(sft=Sft(optim="adamw_8bit")), "cpu")
    with pytest.raises(ModelError, match=r"^pretrain.optim needs bitsandbytes"):
        require_extras(Recipe(sft=None, pretrain=Pretrain(train=["t"], optim="adamw_8bit")), "cpu")


@pytest.mark.parametrize(
    ("sections", "device", "said"),
    [
        ({"sft": Sft(method="full")}, "cuda", ", but method is full; expected lora: "),
        ({"sft": Sft(load_in_4bit=True)}, "cuda", ", but load_in_4bit is True; expected false: "),
        ({"sft": Sft(lora_r=513)}, "cuda", ", but lora_r is 513; expected at most 512"),
        ({"sft": Sft()}, "cpu", " needs a GPU, and there is none here"),
        ({"sft": Sft()}, "cuda", " is not installed"),
    ],
)
def test_rollouts_that_vllm_cannot_make_here_are_refused(
    sections: dict[str, Any], device: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nomoat.night.recipes.find_spec", lambda name: None)
    monkeypatch.setattr("nomoat.night.recipes.require_bitsandbytes", lambda *words: None)
    with pytest.raises(NomoatError, match=rf"^reinforce.rollouts: vllm{said}"):
        require_extras(Recipe(reinforce=Reinforce(rollouts="vllm"), **sections), device)


def test_paging_without_a_gpu_is_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        require_extras(Recipe(sft=Sft(optim="paged_adamw_8bit")), "cpu")
    assert caught.value.message == (
        "sft.optim: paged_adamw_8bit moves moments between a GPU's memory and the machine's, and there is no GPU here"
    )
    assert caught.value.hint == "Set sft.optim to adamw_8bit or adamw_torch."


def test_the_recipe_that_trains_all_weights_leaves_its_rate_to_the_rule() -> None:
    recipe = load_recipe(RECIPES / "full.yaml").recipe
    assert recipe.sft is not None
    width = read_shape(resolve_base(recipe.base, RECIPES)).width
    rate, reason = resolve_learning_rate(recipe.sft, width)
    assert rate == pytest.approx(1.6e-4)
    assert "as the recipe says" not in reason
