from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nomoat.model.load import read_shape, resolve_base
from nomoat.night.recipes import resolve_learning_rate
from nomoat.recipe import Sft
from nomoat.recipe_file import load_recipe

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


def test_the_recipe_that_trains_all_weights_leaves_its_rate_to_the_rule() -> None:
    recipe = load_recipe(RECIPES / "full.yaml").recipe
    assert recipe.sft is not None
    width = read_shape(resolve_base(recipe.base, RECIPES)).width
    rate, reason = resolve_learning_rate(recipe.sft, width)
    assert rate == pytest.approx(1.6e-4)
    assert "as the recipe says" not in reason
