"""`nomoat check`: the stage `data`, without a night around it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nomoat.errors import RecipeError
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.model.load import resolve_base
from nomoat.night.events import Watcher
from nomoat.night.jobs import Folders
from nomoat.night.recipes import data_keys
from nomoat.night.sources import find_sources
from nomoat.night.stages import run_data
from nomoat.recipe_file import LoadedRecipe


@dataclass(frozen=True)
class CheckResult:
    """`report` is DataReport.to_dict(); `base` is the name of the base whose tokenizer rendered the rows."""

    report: dict[str, Any]
    base: str


def check_data(loaded: LoadedRecipe, workspace: Path, watcher: Watcher) -> CheckResult:
    """Read, render and count the recipe's rows as a night would, and refuse what it would refuse.

    Raises DataError, ModelError or RecipeError with the reason. Nothing is kept.
    """
    recipe = loaded.recipe
    if recipe.sft is None or recipe.pretrain is not None:
        raise RecipeError(
            "check looks at rows for fine-tuning on a base that is there; this recipe makes its own base"
        )
    sources = find_sources(recipe, loaded.folder)
    base = resolve_base(recipe.base, loaded.folder)
    with ArtifactStore(workspace).check_dir() as folder:
        outcome = run_data(
            Folders(folder, folder),
            partial(watcher.stage_progress, "data"),
            base=base,
            chat_template=sources.chat_template,
            files=list(sources.train),
            **data_keys(recipe),
        )
    return CheckResult(outcome.meta, recipe.base)
