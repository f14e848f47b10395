"""The checks of prompts applied to answers, an owner's own functions among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import final

from nomoat.data.functions import ENOUGH_TO_JUDGE, MOST_FAILED, Failed, Question
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
    not passed, and that is counted by name. Raises DataError where a function cannot be loaded, and where it cannot
    tell of most answers: then it is what is broken.
    """

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()
        """"rules.py:polite: raised" -> how often"""
        self._functions: dict[tuple[Path, str, float], PythonFunction] = {}
        self._asked: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

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
                    self._function(check, f"{prompt.question.id}: checks[{index}].function")

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
        return [self._said_of(name) for name in self._failed]

    def _call(self, check: Check, question: Question, text: str) -> CheckResult:
        name = check.function
        (found,) = self._function(check, f"{question.id}: checks.function").score([(question, text)])
        if not isinstance(found, Failed) and not 0 <= found <= 1:
            found = Failed("out of range", f"got {found:g}; expected true, false or a number from 0 to 1")
        self._asked[name] += 1
        if isinstance(found, Failed):
            self._count(name, question, found)
            return CheckResult(name, False, f"could not tell: {found.kind}, {found.detail}", found)
        return CheckResult(name, found >= PASSES_FROM, f"gives {found:g}")

    def _function(self, check: Check, where: str) -> PythonFunction:
        assert check.file is not None
        key = check.file, check.function, check.time_limit_s
        if key not in self._functions:
            name = check.function.rpartition(":")[2]
            self._functions[key] = PythonFunction(check.file, name, limit_s=check.time_limit_s, where=where)
        return self._functions[key]

    def _count(self, name: str, question: Question, failed: Failed) -> None:
        self._failed[name] += 1
        self.failures[f"{name}: {failed.kind}"] += 1
        self._examples.setdefault(f"{name}: {failed.kind}", f"{question.id}: {failed.detail}")
        asked = self._asked[name]
        if asked >= ENOUGH_TO_JUDGE and self._failed[name] > MOST_FAILED * asked:
            raise DataError(
                self._said_of(name),
                hint="It must return true, false or a number from 0 to 1, and false for a bad answer. Mend it and run "
                "again: what was made before goes on from where it is.",
            )

    def _said_of(self, name: str) -> str:
        kinds = ", ".join(
            f"{named.removeprefix(f'{name}: ')} ({count}×, such as {self._examples[named]})"
            for named, count in self.failures.most_common()
            if named.startswith(f"{name}: ")
        )
        return f"{name} could not tell of {self._failed[name]:,} of {self._asked[name]:,} answers: {kinds}"


def function_files(prompts: Iterable[Prompt]) -> list[Path]:
    """The files of all functions that check the prompts, with what they import from beside them, each once."""
    files = dict.fromkeys(
        check.file for prompt in prompts for check in prompt.checks if check.file is not None
    )
    return list(dict.fromkeys(one for file in files for one in with_imports(file)))
