"""An owner's Python function in a process of its own, and every way in which it can fail, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from nomoat.data.functions import Failed, Question
from nomoat.data.functions.runner import PythonFunction
from nomoat.errors import DataError

ASKED = Question("p1", ({"role": "user", "content": "How many?"},), {"answer": "1,000", "n": 3})

RULES = """\
import math, time
print("loaded")

def length(messages, answer, row):
    print("looking at", answer)
    return len(answer) / row["n"]

def strange(messages, answer, row):
    if answer == "raise":
        raise KeyError("words")
    if answer == "hang":
        time.sleep(60)
    if answer == "exit":
        raise SystemExit(3)
    if answer == "die":
        import os
        os._exit(1)
    odd = {"nan": math.nan, "huge": 10**400, "text": "good", "true": True}
    return odd.get(answer, messages[0]["content"] == "How many?")
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    (tmp_path / "rules.py").write_text(RULES)
    return tmp_path / "rules.py"


def scores(source: PythonFunction, *answers: str) -> list[float | str]:
    """Numbers, and the kinds of failures."""
    found = source.score([(ASKED, answer) for answer in answers])
    return [one.kind if isinstance(one, Failed) else one for one in found]


def test_a_function_sees_messages_answer_and_row(rules: Path) -> None:
    source = PythonFunction(rules, "length", limit_s=20, where="here")
    try:
        assert source.name == "rules.py:length"
        assert scores(source, "abc", "é\n☃") == [1.0, 1.0]
    finally:
        source.close()


def test_a_function_that_misbehaves_costs_only_its_answer(rules: Path) -> None:
    source = PythonFunction(rules, "strange", limit_s=4, where="here")
    try:
        asked = ("fine", "raise", "nan", "huge", "text", "hang", "true", "exit", "die", "fine")
        expected = [
            1.0,
            "raised",
            "not finite",
            "not finite",
            "no number",
            "timed out",
            1.0,
            "raised",
            "ended",
            1.0,
        ]
        assert scores(source, *asked) == expected
        (raised,) = source.score([(ASKED, "raise")])
        assert raised == Failed("raised", "KeyError: 'words'")
    finally:
        source.close()


@pytest.mark.parametrize(
    ("text", "function", "said"),
    [
        ("def f(:", "f", "rules.py:f cannot be loaded: SyntaxError"),
        ("import nothing_like_this", "f", "ModuleNotFoundError: No module named 'nothing_like_this'"),
        ("def g(m, a, r): return 0", "f", "AttributeError: it has no function f; it has: g"),
        ("raise SystemExit(1)", "f", "SystemExit: 1"),
        (
            "def f(a, b): return 0",
            "f",
            "f(a, b) is not called with messages, answer, row: too many positional arguments",
        ),
    ],
)
def test_a_function_that_cannot_be_called_is_refused_at_once(
    text: str, function: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "rules.py").write_text(text)
    with pytest.raises(
        DataError, match=r"reinforce.rewards\[0\].function: rules.py:f cannot be loaded"
    ) as caught:
        PythonFunction(tmp_path / "rules.py", function, limit_s=5, where="reinforce.rewards[0].function")
    assert said in str(caught.value)
