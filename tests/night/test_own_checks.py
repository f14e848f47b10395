"""Nights whose suites, prompts and rewards are checked by a Python function of the owner's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.families import save_tiny
from helpers.nights import Watched, last_night, run, write_rows
from nomoat.errors import DataError

pytestmark = pytest.mark.slow

RULES = """\
import beside

def short(messages, answer, row):
    if row["id"] == "ask-1":
        raise KeyError("words")
    return beside.is_short(answer, row)
"""
BESIDE = """\
def is_short(answer, row):
    return len(answer) < row["most"]
"""
KEYS = ("sft.max_steps=2", "evaluate.max_new_tokens=8")


def write_prompts(folder: Path, *asked: str) -> Path:
    folder.mkdir()
    (folder / "rules.py").write_text(RULES)
    (folder / "beside.py").write_text(BESIDE)
    check = {"kind": "function", "function": "rules.py:short"}
    rows = [
        {"id": f"ask-{n}", "messages": [{"role": "user", "content": text}], "checks": [check], "most": 10_000}
        for n, text in enumerate(asked)
    ]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "mine.jsonl"


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    base, rows = save_tiny("llama", tmp_path / "base"), write_rows(tmp_path / "rows.jsonl")
    return f"base={base}", f"data.train={rows}", *KEYS


def test_a_suite_is_checked_by_a_function_and_anew_when_that_changes(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    suite = write_prompts(tmp_path / "suites", *(f"Where is the cat at {n}?" for n in range(4)))
    words += (f"evaluate.prompts={suite}",)
    night = run(tmp_path / "work", *words)
    rate, of_function = night.comparison.metrics[:2]
    assert (rate.tuned.value, of_function.name) == (0.75, "pass rate: rules.py:short")
    assert night.warnings == [
        "rules.py:short could not tell of 2 of 8 answers: raised (2×, such as mine:ask-1: KeyError: 'words')"
    ]

    (suite.parent / "beside.py").write_text(BESIDE.replace("len(answer) < ", "len(answer) > "))
    watcher = Watched()
    again = run(tmp_path / "work", *words, watcher=watcher)
    assert again.comparison.metrics[0].tuned.value == 0
    assert [kind for kind, how in watcher.stages if how == "done"] == ["evaluate", "gate"]

    (suite.parent / "rules.py").write_text("def long(messages, answer, row): return True")
    with pytest.raises(
        DataError,
        match=r"mine.jsonl:1: checks\[0\].function: rules.py:short cannot be loaded: .*; it has: long",
    ):
        run(tmp_path / "work", *words)
    assert not last_night(tmp_path / "work")[1], "it is loaded before anything is done"


def test_answers_are_rewarded_by_the_function_of_their_prompts(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    prompts = write_prompts(tmp_path / "prompts", *(f"Say one word about {n}." for n in range(40)))
    keys = ("max_new_tokens=8", "max_seq_len=96", "tokens_per_step=192", "num_generations=2", "max_steps=2")
    words += (f"reinforce.prompts={prompts}", *(f"reinforce.{key}" for key in keys), "data.held_out=0.2")
    watcher = Watched()
    night = run(tmp_path / "work", *words, watcher=watcher)
    facts = night.trainings[-1].facts
    # ask-1 is the one that the function cannot tell of
    assert facts["best_pass_rate"] >= 0.8
    assert facts["best_reward"] == 1.0
    (prompts.parent / "rules.py").write_text(RULES + "\n# changed\n")
    watcher = Watched()
    run(tmp_path / "work", *words, watcher=watcher)
    assert ("sft", "reused") in watcher.stages
    assert ("reinforce", "done") in watcher.stages
