"""The words behind `nomoat run` and `nomoat check`."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from nomoat.cli.recipes import load_words, said_of
from nomoat.errors import RecipeError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_words_and_file_the_default_recipe_runs() -> None:
    loaded = load_words([], None, [])
    assert (loaded.path, loaded.recipe.base, loaded.recipe.data.train) == (None, "embedded", [])
    assert (
        said_of(loaded) == "No nomoat.yaml here: the default recipe, the embedded base on the starter data."
    )


def test_the_recipe_here_is_taken_by_itself(folder: Path) -> None:
    (folder / "nomoat.yaml").write_text("name: mine\n")
    loaded = load_words([], None, [])
    assert loaded.recipe.name == "mine"
    assert said_of(loaded) == "nomoat.yaml: the embedded base on the starter data."


def test_base_and_data_are_short_for_keys(folder: Path) -> None:
    (folder / "a, b: [1].jsonl").write_text("{}\n")
    (folder / "mödel 🦊").mkdir()
    loaded = load_words(["sft.learning_rate=1e-4"], "mödel 🦊", ["a, b: [1].jsonl", "c.csv"])
    assert loaded.recipe.base == "mödel 🦊"
    assert loaded.recipe.data.train == ["a, b: [1].jsonl", "c.csv"]
    assert loaded.recipe.sft is not None
    assert loaded.recipe.sft.learning_rate == 1e-4
    assert said_of(loaded).endswith("the default recipe, mödel 🦊 on a, b: [1].jsonl, c.csv.")


def test_a_recipe_elsewhere_with_data_from_here(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "night.yaml").write_text("name: far\n")
    (folder / "mine.jsonl").write_text("{}\n")
    loaded = load_words(["sub/night.yaml"], None, ["mine.jsonl"])
    assert loaded.recipe.name == "far"
    assert loaded.recipe.data.train == [str(folder / "mine.jsonl")]


def test_a_night_from_scratch_says_so(folder: Path) -> None:
    (folder / "nomoat.yaml").write_text("sft: null\npretrain:\n  train: [tales.txt]\n")
    assert said_of(load_words([], None, [])) == "nomoat.yaml: a new base from tales.txt."


def test_a_missing_recipe_is_told() -> None:
    with pytest.raises(RecipeError, match=r"there is no night\.yaml here"):
        load_words(["night.yaml"], None, [])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.yaml", "b.yaml"], 'got "a.yaml" and "b.yaml"; expected one recipe, and key=value.'),
        (["rows.jsonl"], '"rows.jsonl" is no .yaml file. Is it a data file? Then: --data rows.jsonl'),
        (["model"], '"model" is a folder, not a recipe. Is it a base? Then: --base model'),
        (["sft.seed"], 'got "sft.seed"; expected a recipe (.yaml) or key=value.'),
    ],
)
def test_a_word_that_is_no_recipe_gets_advice(folder: Path, words: list[str], said: str) -> None:
    (folder / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (folder / "model").mkdir()
    with pytest.raises(typer.BadParameter) as refused:
        load_words(words, None, [])
    assert refused.value.message == said
