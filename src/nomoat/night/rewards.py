"""From the recipe's list of rewards to sources, and the checks of prompts as one of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from nomoat.data.functions import Asked, Failed, Question
from nomoat.data.functions.runner import PythonFunction
from nomoat.errors import RecipeError
from nomoat.evaluate.checker import Checker
from nomoat.evaluate.checks import Check, parse_checks
from nomoat.model.load import Machine
from nomoat.night.sources import RewardSpec
from nomoat.train.rewards import Rewards, Source
from nomoat.train.rewards.judge import INSTRUCTIONS, Judge
from nomoat.train.rewards.scorer import Scorer
from nomoat.train.rewards.texts import exact_answer, json_schema


@dataclass(frozen=True)
class Checked:
    """The share of checks that an answer passes: the prompt's own, or the same `fixed` ones for every prompt. Where one
    cannot tell there is none."""

    name: str
    checker: Checker
    fixed: tuple[Check, ...] = ()

    def score(self, asked: Asked) -> list[float | Failed]:
        """From 0 to 1."""
        return [self._judge(question, text) for question, text in asked]

    def close(self) -> None: ...

    def _judge(self, question: Question, text: str) -> float | Failed:
        checks = self.fixed or checks_of(question)
        if not checks:
            return Failed("no checks", f"prompt {question.id} has none")
        results = self.checker.results(question, checks, text)
        for result in results:
            if result.failed is not None:
                return Failed(f"{result.kind} {result.failed.kind}", result.failed.detail)
        return sum(result.passed for result in results) / len(results)


def checks_of(question: Question) -> tuple[Check, ...]:
    """The checks of a prompt, as its file has them (they were read once already, so they are well formed)."""
    return _parsed(json.dumps(question.row.get("checks", [])), question.folder)


@lru_cache(maxsize=4096)
def _parsed(checks: str, folder: Path) -> tuple[Check, ...]:
    return parse_checks(json.loads(checks), folder)


def passes(checker: Checker, question: Question, text: str) -> bool | None:
    """Whether an answer passes all checks of its prompt; None where it has none."""
    checks = checks_of(question)
    return all(result.passed for result in checker.results(question, checks, text)) if checks else None


def build_rewards(specs: Sequence[RewardSpec], machine: Machine, checker: Checker) -> Rewards:
    """The sources, ready to judge; `checker` runs the checks among them. Raises DataError for a function,
    RecipeError for a schema or key that is not usable, ModelError for a folder that is no reward model."""
    sources: list[tuple[Source, float]] = []
    try:
        for index, spec in enumerate(specs):
            sources.append((_source(spec, f"reinforce.rewards[{index}]", machine, checker), spec.weight))
    except BaseException:
        Rewards(sources).close()
        raise
    return Rewards(sources, unbounded=any(spec.kind == "reward_model" for spec in specs))


def _source(spec: RewardSpec, key: str, machine: Machine, checker: Checker) -> Source:
    keys: dict[str, Any] = spec.keys
    match spec.kind:
        case "checks":
            return Checked("checks", checker)
        case "regex":
            return Checked("regex", checker, parse_checks([{"kind": "regex", "pattern": keys["pattern"]}]))
        case "function":
            assert spec.file is not None
            return PythonFunction(
                spec.file,
                keys["function"].rpartition(":")[2],
                limit_s=keys["time_limit_s"],
                where=f"{key}.function",
            )
        case "json_schema":
            return _json_schema(spec.file, key)
        case "reward_model":
            assert spec.file is not None
            return Scorer(spec.file, machine, name=f"reward model {keys.get('path', 'of this night')}")
        case "answer":
            return exact_answer()
        case _:
            return Judge(
                keys["url"],
                keys["model"],
                limit_s=keys["time_limit_s"],
                api_key_env=keys.get("api_key_env"),
                instructions=keys.get("instructions", INSTRUCTIONS),
            )


def _json_schema(file: Path | None, key: str) -> Source:
    if file is None:
        return json_schema(None)
    try:
        return json_schema(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise RecipeError(
            f"{key}.schema_file: {file.name} is no JSON schema: {str(error).splitlines()[0]}"
        ) from error
