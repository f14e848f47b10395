"""lm-eval's tasks against a model: its own tasks, or those of local files, with an interval beside every number.

Importing it needs the extra `eval`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nomoat.data.overlap import SHINGLE, Question
from nomoat.engine.openai import Spent
from nomoat.errors import DataError, EngineError
from nomoat.evaluate.comparison import Estimate
from nomoat.evaluate.harness_models import EndpointModel, EngineModel
from nomoat.evaluate.stats.intervals import normal_quantile, paired_bootstrap_mean, wilson
from nomoat.evaluate.stats.winrate import standard_error

WRITTEN = "generate_until"
"""lm-eval's name of tasks whose answers are written; all others ask how likely given texts are."""
BOOTSTRAP = {"samples": 10_000, "seed": 0}


@dataclass(frozen=True)
class TaskScore:
    """One metric of a task. `filter` is how lm-eval took the answer out of the text, 'none' where it did not; `by_item`
    holds the metric of each document, where the score is their mean."""

    task: str
    metric: str
    filter: str
    higher_is_better: bool | None
    score: Estimate
    by_item: dict[int, float]


@dataclass(frozen=True)
class TaskRun:
    """All scores of a run; `cut` contexts did not fit and lost their beginning, of `asked`. `questions` are all texts
    of the documents that say something: what they ask, tell and answer; `spent` is what an endpoint took."""

    scores: list[TaskScore]
    cut: int
    asked: int
    questions: list[Question]
    spent: Spent | None


def run_tasks(
    model: EngineModel | EndpointModel,
    tasks: Sequence[str],
    *,
    task_files: Path | None,
    limit: int | None,
    num_fewshot: int | None,
    confidence: float,
) -> TaskRun:
    """Evaluate on `tasks`, names of lm-eval's or of YAML files in the folder `task_files`.

    Raises DataError where a task is not known, cannot be loaded, or has fewer than two documents, or asks an endpoint
    how likely a text is; EngineError where the model does not answer.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    folder = str(task_files) if task_files else None
    manager = TaskManager(include_path=folder, include_defaults=False)
    if not set(tasks) <= set(manager.all_tasks):  # reading lm-eval's own thousands takes up to a minute
        manager = TaskManager(include_path=folder)
    for name in tasks:
        if name not in manager.all_tasks:
            raise DataError(
                f"--tasks: lm-eval knows no task {name}",
                hint="Its own are listed by: lm-eval ls tasks. Local YAML files are looked for in --task-files DIR.",
            )
    try:
        if isinstance(model, EndpointModel):
            _refuse_likelihoods(manager.load(list(tasks))["tasks"])
        found = simple_evaluate(
            model=model,
            tasks=list(tasks),
            num_fewshot=num_fewshot,
            limit=limit,
            bootstrap_iters=1000,
            apply_chat_template=model.chat,
            task_manager=manager,
        )
    except (OSError, ValueError) as error:
        if isinstance(error, DataError | EngineError):
            raise
        said = " ".join(str(error).split())[:300]
        raise DataError(
            f"--tasks {','.join(tasks)}: lm-eval cannot load or score them: {said}",
            hint="Without a network a task needs data files: dataset_path: json, dataset_kwargs: {data_files: ...}.",
        ) from error
    assert found is not None  # this process is the only one
    scores, questions = list(_scores(found, confidence)), list(_questions(found["samples"]))
    return TaskRun(scores, model.cut, model.asked, questions, model.spent)


def _refuse_likelihoods(tasks: Mapping[str, Any]) -> None:
    """DataError where an endpoint cannot do a task, before anything is paid for."""
    unfit = [f"{name} ({task.OUTPUT_TYPE})" for name, task in tasks.items() if task.OUTPUT_TYPE != WRITTEN]
    if not unfit:
        return
    fit = [name for name, task in tasks.items() if task.OUTPUT_TYPE == WRITTEN]
    raise DataError(
        f"--tasks: {', '.join(unfit)} asks how likely a text is, which an endpoint does not tell",
        hint=f"An endpoint does tasks whose answers it writes ({WRITTEN})"
        + (f": --tasks {','.join(fit)}" if fit else ", such as gsm8k or ifeval."),
    )


def paired_difference(one: TaskScore, other: TaskScore, confidence: float) -> Estimate | None:
    """How much higher `one` scores than `other` on the same documents, with the paired bootstrap's interval; None where
    every document differs by the same, or the metric is no mean."""
    shared = sorted(one.by_item.keys() & other.by_item.keys())
    try:
        return paired_bootstrap_mean(
            [one.by_item[item] - other.by_item[item] for item in shared], confidence=confidence, **BOOTSTRAP
        )
    except ValueError:
        return None


def _scores(found: Mapping[str, Any], confidence: float) -> Iterator[TaskScore]:
    """Every number that lm-eval gives, task by task, with its interval."""
    for task, results in found["results"].items():
        items = found["samples"].get(task, [])
        better = found["higher_is_better"].get(task, {})
        for key, value in results.items():
            metric, _, filter = key.partition(",")
            if not filter or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            by_item = _by_item(items, metric, filter)
            n = len(by_item) or _documents(task, found)
            if n < 2:
                raise DataError(
                    f"--tasks: {task} has {n} document; expected at least 2, for one alone has no error"
                )
            error = results.get(f"{metric}_stderr,{filter}")
            score = _estimate(float(value), list(by_item.values()), error, n, confidence)
            if score.value != _mean(by_item):
                by_item = {}
            yield TaskScore(task, metric, filter, better.get(metric), score, by_item)


def _questions(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Question]:
    """The texts of every document, field by field: so neither a task's own words nor its examples are among them."""
    for task, items in samples.items():
        for number, document in {int(item["doc_id"]): item["doc"] for item in items}.items():
            for text in _texts(document):
                if len(text.split()) >= SHINGLE:  # fewer are labels and numbers
                    yield Question(task, str(number), text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _documents(task: str, found: Mapping[str, Any]) -> int:
    """How many documents a task has, or all the tasks of a group."""
    if task in found["n-samples"]:
        return int(found["n-samples"][task]["effective"])
    return sum(_documents(name, found) for name in found["group_subtasks"].get(task, []))


def _by_item(items: Sequence[Mapping[str, Any]], metric: str, filter: str) -> dict[int, float]:
    return {
        int(item["doc_id"]): float(item[metric])
        for item in items
        if item.get("filter") == filter and isinstance(item.get(metric), int | float)
    }


def _mean(by_item: Mapping[int, float]) -> float | None:
    return sum(by_item.values()) / len(by_item) if by_item else None


def _estimate(value: float, items: list[float], error: Any, n: int, confidence: float) -> Estimate:
    """Wilson's interval of a share; else plus and minus the standard error, of the documents or lm-eval's own. Of a
    perplexity lm-eval tells no error: its ends are NaN, and shown as not known."""
    is_mean = bool(items) and abs(sum(items) / len(items) - value) < 1e-9
    if is_mean and set(items) <= {0.0, 1.0}:
        return wilson(sum(items), n, confidence)
    if is_mean:
        value, error = sum(items) / len(items), standard_error(items)
    half = normal_quantile(confidence) * float(error) if isinstance(error, int | float) else float("nan")
    return Estimate(value, value - half, value + half, n)
