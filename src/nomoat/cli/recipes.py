"""The words behind `nomoat run` and `nomoat check`: a recipe file, overrides, and the two shorthands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nomoat.recipe_file import LoadedRecipe

RECIPE_FILE = "nomoat.yaml"
_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")
_RECIPE_ENDINGS = (".yaml", ".yml")

WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RECIPE.yaml|key=value",
        help=f"A recipe (default: {RECIPE_FILE}, where there is one), and keys of it to change for this run.",
        show_default=False,
    ),
]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="DIR",
        help="Base model: a folder or a Hub id. Short for base=DIR.",
        show_default=False,
    ),
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="FILE",
        help="Training rows; may be given several times. Short for data.train=FILE,FILE.",
        show_default=False,
    ),
]


def load_words(words: list[str], base: str | None, data: list[str]) -> LoadedRecipe:
    """The recipe that the words ask for. Raises RecipeError, or typer.BadParameter for a word that is
    neither a recipe nor key=value."""
    from nomoat.recipe_file import load_recipe

    overrides = [word for word in words if _OVERRIDE.match(word)]
    files = [word for word in words if not _OVERRIDE.match(word)]
    if base is not None:
        overrides.append(f"base={json.dumps(base, ensure_ascii=False)}")
    if data:
        overrides.append(f"data.train={json.dumps(data, ensure_ascii=False)}")
    return load_recipe(_recipe_path(files), overrides)


def said_of(loaded: LoadedRecipe) -> str:
    """Which recipe this is, in a sentence."""
    recipe = loaded.recipe
    base = "the embedded base" if recipe.base == "embedded" else recipe.base
    if recipe.pretrain is not None:
        base = f"a new base from {', '.join(recipe.pretrain.train)}"
    data = f" on {', '.join(recipe.data.train) or 'the starter data'}" if recipe.sft is not None else ""
    if loaded.path is None:
        return f"No {RECIPE_FILE} here: the default recipe, {base}{data}."
    return f"{loaded.path}: {base}{data}."


def _recipe_path(files: list[str]) -> Path | None:
    if not files:
        return Path(RECIPE_FILE) if Path(RECIPE_FILE).is_file() else None
    if len(files) > 1:
        raise typer.BadParameter(f'got "{files[0]}" and "{files[1]}"; expected one recipe, and key=value.')
    path = Path(files[0])
    if path.is_dir():
        raise typer.BadParameter(f'"{path}" is a folder, not a recipe. Is it a base? Then: --base {path}')
    if path.suffix not in _RECIPE_ENDINGS:
        if path.is_file():
            raise typer.BadParameter(f'"{path}" is no .yaml file. Is it a data file? Then: --data {path}')
        raise typer.BadParameter(f'got "{path}"; expected a recipe (.yaml) or key=value.')
    return path
