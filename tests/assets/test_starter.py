"""The starter data: the shipped files are what the program makes, and held-out prompts are apart."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest

from nomoat.assets import asks
from nomoat.assets.starter import (
    HELD_OUT_ROWS,
    PROMPT_ROWS,
    TOO_CLOSE,
    TRAIN_ROWS,
    Row,
    bag,
    closeness,
    files,
    join_words,
    make_prompts,
    make_rows,
    slots_of,
)
from nomoat.evaluate.checks import parse_checks, run_checks

SHIPPED = resources.files("nomoat.assets") / "starter"


@pytest.fixture(scope="module")
def rows() -> tuple[list[Row], list[Row]]:
    return make_rows(seed=0)


def lines(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (SHIPPED / name).read_text(encoding="utf-8").splitlines()]


def test_the_shipped_files_are_made_again_byte_for_byte(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nomoat.assets.starter", "--out", str(tmp_path), "--seed", "0"]
    environment = {"PYTHONPATH": str(Path(str(SHIPPED)).parents[2]), "PYTHONHASHSEED": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {
        name: (SHIPPED / name).read_bytes()
        for name in ("train.jsonl", "prompts.jsonl", "heldout.jsonl", "README.md")
    }


def test_another_seed_makes_other_rows() -> None:
    assert files(1)["train.jsonl"] != (SHIPPED / "train.jsonl").read_text(encoding="utf-8")


def test_training_rows_are_conversations_of_two_turns() -> None:
    train = lines("train.jsonl")
    assert len(train) == TRAIN_ROWS == 600
    for row in train:
        assert list(row) == ["messages"]
        user, assistant = row["messages"]  # type: ignore[misc]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        assert user["content"].strip() and assistant["content"].strip()
    assert len({row["messages"][0]["content"] for row in train}) == TRAIN_ROWS  # type: ignore[index]


def test_prompts_to_learn_from_are_apart_from_the_held_out_ones(rows: tuple[list[Row], list[Row]]) -> None:
    asked, (_, held_out) = lines("prompts.jsonl"), rows
    assert len(asked) == PROMPT_ROWS == 480
    made = make_prompts(0, *rows)
    assert [row["messages"][0]["content"] for row in asked] == [row.prompt for row in made]  # type: ignore[index]
    combinations = {row.combination for row in held_out}
    for row in made:
        assert row.combination not in combinations
        assert parse_checks(row.checks)
        assert max(closeness(bag(row.prompt), bag(other.prompt)) for other in held_out) < TOO_CLOSE


def test_held_out_rows_have_checks_that_parse() -> None:
    held_out = lines("heldout.jsonl")
    assert len(held_out) == HELD_OUT_ROWS == 120
    assert len({row["id"] for row in held_out}) == HELD_OUT_ROWS
    for row in held_out:
        assert list(row) == ["id", "messages", "checks"]
        assert [turn["role"] for turn in row["messages"]] == ["user"]  # type: ignore[union-attr]
        assert parse_checks(row["checks"])


def test_every_answer_passes_its_checks(rows: tuple[list[Row], list[Row]]) -> None:
    for row in (*rows[0], *rows[1]):
        results = run_checks(row.answer, parse_checks(row.checks))
        assert results and all(result.passed for result in results), (row, results)


def test_checks_are_not_empty_talk(rows: tuple[list[Row], list[Row]]) -> None:
    """The answer of one held-out prompt should fail most others: a check any story passes measures nothing."""
    held_out = [row for row in rows[1] if row.task == "story"]
    passed = sum(
        all(result.passed for result in run_checks(answer.answer, parse_checks(asked.checks)))
        for answer, asked in pairwise(held_out)
    )
    assert passed <= len(held_out) * 0.05


def test_held_out_prompts_are_apart(rows: tuple[list[Row], list[Row]]) -> None:
    train, held_out = rows
    assert not {row.combination for row in train} & {row.combination for row in held_out}
    for row in held_out:
        assert max(closeness(bag(row.prompt), bag(other.prompt)) for other in train) < TOO_CLOSE


def test_tasks_are_in_proportion(rows: tuple[list[Row], list[Row]]) -> None:
    for part in rows:
        others = [row for row in part if row.task != "story"]
        assert {row.task for row in others} == {"title", "hero", "continue"}
        assert len(others) / len(part) == pytest.approx(0.15)


def test_requests_carry_one_to_three_checks_of_all_kinds(rows: tuple[list[Row], list[Row]]) -> None:
    stories = [row for row in rows[0] if row.task == "story"]
    assert {len(row.checks) for row in stories} == {1, 2, 3}
    assert len(asks.STORY_ASKS) >= 25
    kinds = {check["kind"] for row in stories for check in row.checks}
    assert kinds == {"includes", "name", "starts_with", "ends_with", "words", "sentences"}


def test_slots_and_word_lists() -> None:
    assert slots_of("Story: {list}. Hero: {name}.") == {"list", "name"}
    assert [join_words(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        "a",
        "a and b",
        "a, b and c",
    ]
