"""What is written about the recipe is what the code does: the generated pages, and the recipes that ship."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nomoat.cli import docs
from nomoat.recipe import Recipe
from nomoat.recipe_file import load_recipe
from nomoat.recipe_schema import KeyPath, alternatives, dotted, keys_of, schema_at, sections

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("name", ["recipe.md", "recipe.schema.json"])
def test_the_generated_pages_are_those_of_this_code(name: str) -> None:
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == docs.generated()[name], f"docs/{name} is out of date: run `make docs`"


def test_every_key_is_explained() -> None:
    for section in sections():
        assert any(plain.get("description") for plain in alternatives(schema_at((section,)))), section
    paths: list[KeyPath] = [(key,) for key in keys_of(()) if key not in sections()]
    paths += [(section, key) for section in sections() for key in keys_of((section,))]
    paths += [(*path, 0, key) for path in paths for key in keys_of((*path, 0))]
    assert [dotted(path) for path in paths if not schema_at(path).get("description")] == []


def test_every_key_has_a_line_on_the_page() -> None:
    page = docs.recipe_page()
    for section in sections():
        part, *lists = page.split(f"\n## {section}\n")[1].split("\n## ")[0].split("\n### ")
        assert told_in(part) == keys_of((section,))
        for key in keys_of((section,)):
            if keys := keys_of((section, key, 0)):
                (of_list,) = (text for text in lists if text.startswith(f"{section}.{key},"))
                assert told_in(of_list) == keys


def told_in(text: str) -> list[str]:
    return [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]


def test_the_example_on_the_page_loads(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    example = page.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "nomoat.yaml").write_text(example)
    assert load_recipe(tmp_path / "nomoat.yaml").recipe.data.train == ["alpaca.jsonl"]


def test_the_command_writes_every_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["docs", str(tmp_path)])
    docs.main()
    assert {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()} == docs.generated()


def test_the_recipes_that_ship_are_there() -> None:
    assert [file.name for file in RECIPES] == [
        "alpaca.yaml",
        "full.yaml",
        "preference.yaml",
        "pretrain.yaml",
        "reinforce.yaml",
        "starter.yaml",
    ]


@pytest.mark.parametrize("name", ["nomoat", "last"])
def test_the_embedded_bases_own_recipes_load(name: str) -> None:
    file = ROOT / "recipes" / "embedded-base" / f"{name}.yaml"
    assert load_recipe(file).recipe.name.startswith("embedded-base")


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_shipped_recipe_loads_is_named_after_its_file_and_finds_its_schema(file: Path) -> None:
    assert load_recipe(file).recipe.name == file.stem
    modeline, *_ = file.read_text(encoding="utf-8").splitlines()
    schema = file.parent / modeline.removeprefix("# yaml-language-server: $schema=")
    assert json.loads(schema.read_text(encoding="utf-8"))["properties"].keys() == Recipe.model_fields.keys()
