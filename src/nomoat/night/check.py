"""`nomoat check`: the stages that read the owner's rows, without a night around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nomoat.errors import RecipeError
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.model.load import resolve_base
from nomoat.night.contamination import contaminated, run_overlaps
from nomoat.night.evaluation import check_functions, owners_prompts
from nomoat.night.events import Watcher
from nomoat.night.jobs import Folders, Outcome
from nomoat.night.recipes import comparison_keys, data_keys, judgement_keys
from nomoat.night.sampling import prompts_with_checks
from nomoat.night.sources import find_sources
from nomoat.night.stages import run_data, run_judgements
from nomoat.recipe_file import LoadedRecipe


@dataclass(frozen=True)
class CheckResult:
    """`reports` holds DataReport.to_dict() of each stage that reads rows, by the stage that trains on them; `base` is
    the name of the base whose tokenizer rendered the rows; `overlaps` as in `NightSummary`, and whether the recipe
    `removes` them."""

    reports: dict[str, dict[str, Any]]
    base: str
    overlaps: dict[str, Any] | None
    removes: bool = False


def check_data(loaded: LoadedRecipe, workspace: Path, watcher: Watcher) -> CheckResult:
    """Read, render and count the recipe's rows as a night would, and refuse what it would refuse.

    Raises DataError, ModelError or RecipeError with the reason. Nothing is kept.
    """
    recipe = loaded.recipe
    if recipe.pretrain is not None:
        raise RecipeError(
            "check looks at rows for fine-tuning on a base that is there; this recipe makes its own base"
        )
    sources = find_sources(recipe, loaded.folder)
    if recipe.sft is None and not sources.prefer:
        raise RecipeError(
            "check looks at rows to train on; this recipe has the model itself write them, or takes votes"
        )
    base = resolve_base(recipe.base, loaded.folder)
    stages: dict[str, tuple[Callable[..., Outcome], tuple[str, ...], dict[str, Any]]] = {}
    if recipe.sft is not None:
        stages["sft"] = run_data, sources.train, data_keys(recipe)
    prompts_with_checks(sources.asked)
    check_functions(owners_prompts((*sources.prompts, *sources.answered)))
    if sources.prefer:
        stages["prefer"] = run_judgements, sources.prefer, judgement_keys(recipe)
    if sources.compared:
        stages["reward"] = run_judgements, sources.compared, comparison_keys(recipe)
    store, reports, overlaps, leave_out = ArtifactStore(workspace), {}, None, list[str]()
    removes = recipe.data.decontaminate == "remove"
    if sources.prompts:
        with store.check_dir() as folder:
            outcome = run_overlaps(
                Folders(folder, folder),
                partial(watcher.stage_progress, "data"),
                train=sources.train,
                format=recipe.data.format,
                judged=sources.judged,
                prompts=sources.answered,
                suites=sources.prompts,
            )
            overlaps = {**outcome.meta, "said": outcome.said}
            leave_out = contaminated(folder) if removes else []
    for trainer, (run, files, keys) in stages.items():
        with store.check_dir() as folder:
            outcome = run(
                Folders(folder, folder),
                partial(watcher.stage_progress, "data"),
                base=base,
                chat_template=sources.chat_template,
                files=list(files),
                leave_out=leave_out,
                **keys,
            )
        reports[trainer] = outcome.meta
    return CheckResult(reports, recipe.base, overlaps, removes)
