"""key=value on the command line: on top of nomoat.yaml, with the same care."""

from __future__ import annotations

from pathlib import Path

import pytest

from nomoat.errors import RecipeError
from nomoat.recipe import Recipe
from nomoat.recipe_file import load_recipe

TOP = "name, base, seed, threads, data, sft, reward, prefer, reinforce, pretrain, quantize, evaluate, gate, budget"
GGUF = "F32, F16, BF16, Q8_0, Q6_K, Q5_K_M or Q4_K_M"


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str, *overrides: str) -> Recipe:
    Path("nomoat.yaml").write_text(text)
    return load_recipe(Path("nomoat.yaml"), overrides).recipe


def refused(text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(text, *overrides)
    return str(caught.value)


def test_overrides_go_on_top_of_the_file_and_later_ones_win() -> None:
    recipe = load(
        "seed: 1\nsft:\n  lora_r: 8\npretrain:\n  train: [t.txt]\n",
        "sft.learning_rate=1e-4", "data.train=a.jsonl,b.jsonl", "quantize.types=[F16,Q8_0]",
        "budget.until=07:00",
        "pretrain=null", "base=org/model", "seed=2", "seed=3", "evaluate.prompts=[p.jsonl]", "data.dedup=off",
    )  # fmt: skip
    assert recipe == Recipe.model_validate(
        {
            "seed": 3,
            "base": "org/model",
            "data": {"train": ["a.jsonl", "b.jsonl"], "dedup": False},
            "sft": {"lora_r": 8, "learning_rate": 1e-4},
            "quantize": {"types": ["F16", "Q8_0"]},
            "evaluate": {"prompts": ["p.jsonl"]},
            "budget": {"until": "07:00"},
        }
    )


def test_overrides_need_no_file_and_open_sections_that_are_null() -> None:
    assert load_recipe(None, ["sft.lora_r=4"]).recipe == Recipe.model_validate({"sft": {"lora_r": 4}})
    assert (
        load("sft: null\npretrain: {train: t}", "sft.lora_r=4").sft
        == Recipe.model_validate({"sft": {"lora_r": 4}}).sft
    )
    assert load("data: {train: x}", 'data.train=["a,b.jsonl"]').data.train == ["a,b.jsonl"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sft.lr=1e-4", 'override sft.lr=1e-4: unknown key. Here it is "sft.learning_rate"'),
        ("sft.lora_rr=8", 'override sft.lora_rr=8: unknown key. Did you mean "lora_r"?'),
        ("sft.learning_rate=fast",
         'override sft.learning_rate=fast: got "fast"; expected a number above 0, or null'),
        ("sft={lora_r: 0}",
         "override sft={lora_r: 0}: sft.lora_r: got 0; expected a whole number, 1 or more"),
        ("quantize.types=F16,F17",
         'override quantize.types=F16,F17: quantize.types[1]: '
         f'got "F17"; expected {GGUF}. Did you mean "F16"?'),
        ("sft.max_seq_len=8192",
         "override sft.max_seq_len=8192: sft: tokens_per_step (2048) must be at least max_seq_len (8192)"),
        ("foo.bar=1", f"override foo.bar=1: foo: unknown key. Keys here: {TOP}"),
        ("seed", "override seed: expected key=value, such as sft.learning_rate=1e-4"),
        ("=3", "override =3: expected key=value, such as sft.learning_rate=1e-4"),
        ("sft..lora_r=3", "override sft..lora_r=3: expected key=value, such as sft.learning_rate=1e-4"),
        ("budget.until=",
         "override budget.until=: nothing follows the =; write budget.until=null for no value"),
        ("seed.x=3", "override seed.x=3: seed has no keys under it"),
        ("name=[a", "override name=[a: not YAML: expected ',' or ']', but got the end of the text"),
        ("data={dedup: no, dedup: no}", "override data={dedup: no, dedup: no}: data.dedup: written twice"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_named(override: str, message: str) -> None:
    assert refused("base: embedded\n", override) == message


def test_an_override_does_not_hide_a_mistake_of_the_file() -> None:
    assert refused("sft: 3\n", "sft.lora_r=8") == (
        "nomoat.yaml:1: sft: got 3; expected keys under it, such as num_train_epochs, or null"
    )


def test_paths_of_the_file_start_from_its_folder_and_those_of_overrides_from_here(tmp_path: Path) -> None:
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    for file in (recipes / "own.jsonl", tmp_path / "typed.jsonl", tmp_path / "prompts.jsonl"):
        file.write_text("{}")
    (recipes / "r.yaml").write_text("data: {train: [own.jsonl]}")
    loaded = load_recipe(
        Path("recipes/r.yaml"), ["evaluate.prompts=prompts.jsonl,org/prompts", "base=org/model"]
    )
    assert loaded.folder == recipes
    assert [loaded.locate(name) for name in loaded.recipe.data.train] == [str(recipes / "own.jsonl")]
    assert loaded.recipe.evaluate.prompts == [str(tmp_path / "prompts.jsonl"), "org/prompts"]
    assert loaded.locate(loaded.recipe.base) == "org/model"
    replaced = load_recipe(Path("recipes/r.yaml"), ["data.train=typed.jsonl"])
    assert [replaced.locate(name) for name in replaced.recipe.data.train] == [str(tmp_path / "typed.jsonl")]


def test_without_a_file_paths_start_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.jsonl").write_text("{}")
    loaded = load_recipe(None, ["data.train=a.jsonl"])
    assert (loaded.text, loaded.path, loaded.folder) == ("", None, tmp_path)
    assert loaded.locate("~/a.jsonl") == str(tmp_path / "a.jsonl")
    assert loaded.locate("embedded") == "embedded"
