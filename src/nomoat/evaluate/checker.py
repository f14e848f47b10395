"""The checks of prompts applied to answers, an owner's own functions among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import final

from nomoat.data.functions import ENOUGH_TO_JUDGE, MOST_FAILED, Failed, Question, counted
from nomoat.data.functions.modules import with_imports
from nomoat.data.functions.runner import PythonFunction
from nomoat.errors import DataError
from nomoat.evaluate.checks import Check, CheckResult, run_checks
from nomoat.evaluate.prompts import Prompt

PASSES_FROM = 0.5
"""A function's number from 0 to 1 passes from here on; true is 1."""


@final
class Checker:
    """Runs checks until its `with` ends, and with it the processes of the owner's functions.

    Where a function cannot tell (it raises, hangs, or gives neither true, false nor a number from 0 to 1) the check is
    not passed, and that is counted by function. Raises DataError where a function cannot be loaded, and where it cannot
    tell of most answers: then it is what is broken.
    """

    def __init__(self) -> None:
        self._functions: dict[tuple[Path, str, float], PythonFunction] = {}
        self._tallies: dict[tuple[Path, str], _Tally] = {}

    def __enter__(self) -> Checker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the functions' processes."""
        for function in self._functions.values():
            function.close()
        self._functions.clear()

    def load(self, prompts: Iterable[Prompt]) -> None:
        """Start every function of the prompts' checks."""
        for prompt in prompts:
            for index, check in enumerate(prompt.checks):
                if check.function:
                    self._function(check, f"{prompt.where}: checks[{index}].function")

    def results(self, question: Question, checks: Sequence[Check], text: str) -> tuple[CheckResult, ...]:
        """What every check says of an answer, in order."""
        found: list[CheckResult] = []
        for check in checks:
            found += [self._call(check, question, text)] if check.function else run_checks(text, [check])
        return tuple(found)

    def passes(self, prompt: Prompt, text: str) -> bool:
        """Whether an answer passes all checks of its prompt."""
        return all(result.passed for result in self.results(prompt.question, prompt.checks, text))

    def warnings(self) -> list[str]:
        """'rules.py:polite could not tell of 3 of 80 answers: raised (3×, such as heldout:7: KeyError)' of each
        function that failed."""
        return [tally.said() for tally in self._tallies.values() if tally.failures]

    def _call(self, check: Check, question: Question, text: str) -> CheckResult:
        assert check.file is not None
        (found,) = self._function(check, f"{question.id}: checks.function").score([(question, text)])
        if not isinstance(found, Failed) and not 0 <= found <= 1:
            found = Failed("out of range", f"got {found:g}; expected true, false or a number from 0 to 1")
        tally = self._tallies.setdefault((check.file, check.function), _Tally(check.function))
        tally.asked += 1
        if isinstance(found, Failed):
            tally.add(found, question)
            return CheckResult(check.function, False, f"could not tell: {found.kind}, {found.detail}", found)
        return CheckResult(check.function, found >= PASSES_FROM, f"gives {found:g}")

    def _function(self, check: Check, where: str) -> PythonFunction:
        assert check.file is not None
        key = check.file, check.function, check.time_limit_s
        if key not in self._functions:
            name = check.function.rpartition(":")[2]
            self._functions[key] = PythonFunction(check.file, name, limit_s=check.time_limit_s, where=where)
        return self._functions[key]


@dataclass
class _Tally:
    """Of how many answers a function could not tell, and why."""

    name: str
    asked: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, failed: Failed, question: Question) -> None:
        """Raises DataError where it could not tell of most."""
        self.failures[failed.kind] += 1
        self.examples.setdefault(failed.kind, f"{question.id}: {failed.detail}")
        if self.asked >= ENOUGH_TO_JUDGE and self.failures.total() > MOST_FAILED * self.asked:
            raise DataError(
                self.said(),
                hint="It must return true, false or a number from 0 to 1, and false for a bad answer. Mend it and run "
                "again: what was made before goes on from where it is.",
            )

    def said(self) -> str:
        failed, kinds = self.failures.total(), ", ".join(counted(self.failures, self.examples))
        return f"{self.name} could not tell of {failed:,} of {self.asked:,} answers: {kinds}"


def function_files(prompts: Iterable[Prompt]) -> list[Path]:
    """The files of all functions that check the prompts, with what they import from beside them, each once."""
    files = dict.fromkeys(
        check.file for prompt in prompts for check in prompt.checks if check.file is not None
    )
    return list(dict.fromkeys(one for file in files for one in with_imports(file)))
