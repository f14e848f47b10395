"""An owner's Python function in a process of its own, and every way in which it can fail, by name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
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


def source_of(folder: Path, text: str, limit_s: float = 20, stem: str = "rules") -> PythonFunction:
    (folder / f"{stem}.py").write_text(text)
    return PythonFunction(folder / f"{stem}.py", "f", limit_s=limit_s, where="here")


def test_numbers_of_numpy_and_torch_are_numbers(tmp_path: Path) -> None:
    text = """\
import numpy, torch
VALUES = {
    "bool": numpy.bool_(True), "single": numpy.float32(0.5), "whole": numpy.int64(3), "array": numpy.array(0.25),
    "tensor": torch.tensor(0.125), "nan": numpy.float32("nan"), "two": numpy.zeros(2), "pair": torch.zeros(2),
}
def f(messages, answer, row): return VALUES[answer]
"""
    source = source_of(tmp_path, text)
    try:
        asked = ("bool", "single", "whole", "array", "tensor", "nan", "two", "pair")
        expected = [1.0, 0.5, 3.0, 0.25, 0.125, "not finite", "no number", "no number"]
        assert scores(source, *asked) == expected
    finally:
        source.close()


def test_a_module_is_found_by_what_looks_it_up(tmp_path: Path) -> None:
    """Dataclasses look up their own module where annotations are text."""
    text = """\
from __future__ import annotations
from dataclasses import dataclass
@dataclass
class Found:
    value: float
def f(messages, answer, row): return Found(2.0).value
"""
    source = source_of(tmp_path, text)
    try:
        assert scores(source, "") == [2.0]
    finally:
        source.close()


def test_a_file_may_be_called_as_a_module_of_pythons_own(tmp_path: Path) -> None:
    text = """\
import helper
def f(messages, answer, row): return helper.read("[4]")[0]
"""
    (tmp_path / "helper.py").write_text("def read(text):\n    import json\n    return json.loads(text)\n")
    source = source_of(tmp_path, text, stem="json")
    try:
        assert scores(source, "") == [4.0]
    finally:
        source.close()


def ends(pid: int, within_s: float = 10) -> bool:
    """Whether a process has ended, or does soon."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        status = Path(f"/proc/{pid}/status")
        if not status.exists() or "State:\tZ" in status.read_text():  # whoever inherits it may not reap it
            return True
        time.sleep(0.05)
    return False


only_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


@only_linux
def test_what_a_function_has_started_ends_with_it(tmp_path: Path) -> None:
    """Whoever waits for the pipes that such a process holds waits for as long as it lives."""
    text = f"""\
import subprocess, time
def f(messages, answer, row):
    child = subprocess.Popen(["sleep", "60"], start_new_session=answer == "away", close_fds=False)
    open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
    time.sleep(60)
"""
    source = source_of(tmp_path, text, limit_s=1)
    start = time.monotonic()
    try:
        assert scores(source, "beside") == ["timed out"]
        assert ends(int((tmp_path / "pid").read_text()))
        assert scores(source, "away") == ["timed out"], "one that has left the session is not waited for"
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    finally:
        source.close()
    assert time.monotonic() - start < 30


NIGHT = """\
import signal, sys
from pathlib import Path
from nomoat.data.functions import Question
from nomoat.data.functions.runner import PythonFunction

signal.signal(signal.SIGINT, lambda *_: None)  # a night takes a note of it
source = PythonFunction(Path(sys.argv[1]), "f", limit_s=float(sys.argv[2]), where="here")
(found,) = source.score([(Question("p", (), {}), "")])
print(found, flush=True)
"""
SLOW = """\
import os, pathlib, re, time
def f(messages, answer, row):
    pathlib.Path(__file__).with_name("pid").write_text(str(os.getpid()))
    {loops}
    return 1
"""


def night(folder: Path, loops: str, limit_s: float) -> tuple[subprocess.Popen[str], int]:
    """A process that asks a function, in a group of its own, and the function's process."""
    (folder / "rules.py").write_text(SLOW.format(loops=loops))
    command = [sys.executable, "-c", NIGHT, str(folder / "rules.py"), str(limit_s)]
    asking = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    pid, until = folder / "pid", time.monotonic() + 60
    while not (pid.exists() and pid.read_text()):
        assert time.monotonic() < until and asking.poll() is None
        time.sleep(0.05)
    return asking, int(pid.read_text())


@only_linux
def test_ctrl_c_does_not_reach_what_judges(tmp_path: Path) -> None:
    """The night finishes its step first: an answer that counted as failed would not be the same when it goes on."""
    asking, _ = night(tmp_path, "time.sleep(2)", limit_s=20)
    os.killpg(asking.pid, signal.SIGINT)
    assert asking.communicate(timeout=60)[0] == "1.0\n"


@only_linux
def test_a_function_that_hangs_does_not_outlive_a_night_that_is_killed(tmp_path: Path) -> None:
    """Not even in a pattern, which lets no thread of Python run."""
    asking, pid = night(tmp_path, 're.match("(a|a)*b", "a" * 200)', limit_s=1)
    asking.kill()
    asking.communicate()
    try:
        assert ends(pid, within_s=20)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_one_that_starts_too_late_does_not_answer_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """\
import os, pathlib, time
slow = pathlib.Path(__file__).with_name("slow")
if slow.exists():
    slow.unlink()
    time.sleep(3)
def f(messages, answer, row): return 1 if answer == "fine" else os._exit(1)
"""
    source = source_of(tmp_path, text)
    try:
        assert scores(source, "die") == ["ended"]
        (tmp_path / "slow").touch()
        monkeypatch.setattr("nomoat.data.functions.runner.START_LIMIT_S", 2)
        assert scores(source, "fine") == ["timed out"]
        monkeypatch.undo()
        assert scores(source, "fine") == [1.0]
    finally:
        source.close()
