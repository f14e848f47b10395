"""Checks of prompts with an owner's own functions among them: what passes, what cannot be told, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nomoat.data.functions import ENOUGH_TO_JUDGE
from nomoat.errors import DataError
from nomoat.evaluate.checker import Checker, function_files
from nomoat.evaluate.prompts import Prompt, read_prompts
from nomoat.evaluate.run import judge

RULES = """\
import math, time

def share(messages, answer, row):
    if answer == "hang":
        time.sleep(60)
    if answer == "raise":
        raise KeyError("words")
    odd = {"nan": math.nan, "none": None, "seven": 7, "minus": -0.1, "half": 0.5, "less": 0.49}
    return odd.get(answer, answer == row["wanted"] and messages[-1]["content"] == "Say it.")
"""
SHARE = {"kind": "function", "function": "rules.py:share", "time_limit_s": 4}


def write_prompts(folder: Path, *checks: Any, count: int = 1) -> Path:
    (folder / "rules.py").write_text(RULES)
    row = {"messages": [{"role": "user", "content": "Say it."}], "checks": [*checks], "wanted": "yes"}
    (folder / "mine.jsonl").write_text(f"{json.dumps(row)}\n" * count)
    return folder / "mine.jsonl"


def test_a_function_judges_beside_other_checks(tmp_path: Path) -> None:
    (prompt,) = read_prompts(write_prompts(tmp_path, {"kind": "words", "max": 2}, SHARE))
    assert function_files([prompt] * 2) == [tmp_path / "rules.py"]
    (tmp_path / "rules.py").write_text(f"import helper\n{RULES}")
    (tmp_path / "helper.py").write_text("")
    assert function_files([prompt]) == [tmp_path / "rules.py", tmp_path / "helper.py"]
    with Checker() as checker:
        answers = judge([prompt] * 3, ["yes", "half", "no"], ["less", "yes yes yes", "yes"], checker)
        assert [(answer.base_passed, answer.tuned_passed) for answer in answers] == [
            (True, False),
            (True, False),
            (False, True),
        ]
        assert [check["kind"] for check in answers[0].checks] == ["words", "rules.py:share"]
        assert answers[0].checks[1]["tuned_detail"] == "gives 0.49"
        assert checker.warnings() == []


@pytest.mark.parametrize(
    ("answer", "kind", "detail"),
    [
        ("raise", "raised", "KeyError: 'words'"),
        ("hang", "timed out", "no number within 4 s"),
        ("nan", "not finite", "got nan"),
        ("none", "no number", "got NoneType; expected a number"),
        ("seven", "out of range", "got 7; expected true, false or a number from 0 to 1"),
        ("minus", "out of range", "got -0.1; expected true, false or a number from 0 to 1"),
    ],
)
def test_what_a_function_cannot_tell_is_not_passed_and_named(
    answer: str, kind: str, detail: str, tmp_path: Path
) -> None:
    (prompt,) = read_prompts(write_prompts(tmp_path, SHARE))
    with Checker() as checker:
        (result,) = checker.results(prompt.question, prompt.checks, answer)
        assert (result.passed, result.detail) == (False, f"could not tell: {kind}, {detail}")
        assert checker.passes(prompt, "yes")
        assert checker.warnings() == [
            f"rules.py:share could not tell of 1 of 2 answers: {kind} (1×, such as mine:1: {detail})"
        ]


def test_files_of_one_name_are_counted_apart(tmp_path: Path) -> None:
    prompts = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        prompts += read_prompts(
            write_prompts(tmp_path / name, SHARE).rename(tmp_path / name / f"{name}.jsonl")
        )
    with Checker() as checker:
        for _ in range(ENOUGH_TO_JUDGE):
            checker.passes(prompts[0], "yes")
        for _ in range(ENOUGH_TO_JUDGE - 1):
            checker.passes(prompts[1], "raise")
        assert checker.warnings() == [
            "rules.py:share could not tell of 19 of 19 answers: raised (19×, such as other:1: KeyError: 'words')"
        ]
        with pytest.raises(DataError, match="could not tell of 20 of 20 answers"):
            checker.passes(prompts[1], "raise")


def test_one_that_mostly_fails_is_what_is_broken(tmp_path: Path) -> None:
    (prompt,) = read_prompts(write_prompts(tmp_path, SHARE))
    with Checker() as checker:
        for _ in range(ENOUGH_TO_JUDGE // 2):
            checker.passes(prompt, "yes")
            checker.passes(prompt, "raise")
        said = r"^rules.py:share could not tell of 11 of 21 answers: raised \(11×, such as mine:1: KeyError"
        with pytest.raises(DataError, match=said) as caught:
            checker.passes(prompt, "raise")
    assert "false for a bad answer" in str(caught.value)


def test_a_function_that_cannot_be_loaded_is_refused_with_its_prompt(tmp_path: Path) -> None:
    prompts: list[Prompt] = read_prompts(
        write_prompts(tmp_path, {"kind": "json"}, SHARE | {"function": "rules.py:none"})
    )
    said = r"^mine.jsonl:1: checks\[1\].function: rules.py:none cannot be loaded: .* no function none; it has: share"
    with Checker() as checker, pytest.raises(DataError, match=said):
        checker.load(prompts)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            "rules.py",
            'got "rules.py"; expected file and name of a Python function, such as rules.py:polite',
        ),
        ("other.py:f", "other.py is not there; expected it beside the prompts, in "),
        ("../rules.py:f", "../rules.py is outside of the folder of the prompts; expected a file in it"),
        ("/rules.py:f", "/rules.py is outside of the folder of the prompts; expected a file in it"),
        ("link.py:f", "link.py is outside of the folder of the prompts; expected a file in it"),
    ],
)
def test_a_function_that_is_not_there_is_refused_with_file_line_and_field(
    function: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "suites").mkdir()
    (tmp_path / "elsewhere.py").write_text(RULES)
    file = write_prompts(tmp_path / "suites", {"kind": "function", "function": function})
    (file.parent / "link.py").symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(DataError) as caught:
        read_prompts(file)
    assert str(caught.value).startswith(f"mine.jsonl:1: checks[0].function: {said}")
