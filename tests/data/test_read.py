from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from nomoat.data.readers import detect, open_rows, read_rows
from nomoat.data.rows import BadRow, ChatRow, TextRow
from nomoat.errors import DataError

SHAPES = """Expected one of these (rename your columns to match):
    text              {"text": "..."}
    prompt-completion {"prompt": "...", "completion": "..."}
    alpaca            {"instruction": "...", "input": "...", "output": "..."}
    sharegpt          {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}
    messages          {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
    rating            {"prompt": "...", "completion": "...", "label": true}
    preference        {"prompt": "...", "chosen": "...", "rejected": "..."}"""


def refused(path: str | Path, format: str = "auto") -> DataError:
    with pytest.raises(DataError) as error:
        read_rows(path, format=format)
    return error.value


def test_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "night.jsonl").write_text('{"text": "x"}')
    path = tmp_path / "nihgt.jsonl"
    assert refused(path).message == f'{path}: is not there. Did you mean "night.jsonl"?'


def test_folder(tmp_path: Path) -> None:
    assert str(refused(tmp_path)) == f"{tmp_path}: is a folder; expected a file.\n  It holds no files."
    (tmp_path / "a.jsonl").write_text("x")
    assert refused(tmp_path).hint == "It holds a.jsonl: name the files."


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.jsonl", "", "is empty; expected rows of data."),
        ("a.jsonl", "\n\n", "holds no rows; expected at least one."),
        ("a.json", "[]", "holds no rows; expected at least one."),
        ("a.csv", "prompt,completion\n", "holds no rows; expected at least one."),
        ("a.txt", " \n ", "holds nothing but white space; expected text."),
        ("a.dat", "x", "has a name that says nothing of what is in it."),
    ],
)
def test_files_without_rows(tmp_path: Path, name: str, text: str, expected: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert refused(path).message == f"{path}: {expected}"


def test_columns_that_are_no_format(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"frage": "Hi", "antwort": "Hallo"}\n')
    error = refused(path)
    assert (
        error.message
        == f"{path}: the rows have the columns frage, antwort, which is no format that is known."
    )
    assert error.hint == SHAPES


def test_rows_that_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('"Hi"\n"Hallo"\n')
    error = refused(path)
    assert error.message == f"{path}:1: the row is text; expected an object with named fields."
    assert error.hint == SHAPES


def test_lines_that_are_no_json(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("Hello\nWorld\n")
    assert refused(path).message == f"{path}:1: is not JSON: expecting value at character 1: Hello"


def test_rows_inside_an_object(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"version": 1, "data": [{"text": "Hi"}]}))
    error = refused(path)
    assert error.message == f"{path}: is one object with the keys version, data; expected an array of rows."
    assert error.hint == 'The rows seem to be in "data": write that list alone, for example with jq .data'


def test_named_format_that_the_rows_do_not_have(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "Hi"}\n')
    error = refused(path, "alpaca")
    assert error.message == f"{path}: the rows have the columns text, which is not the format alpaca."
    assert error.hint == (
        'Expected {"instruction": "...", "input": "...", "output": "..."}. With format: auto the rows are '
        "looked at."
    )


def test_format_that_does_not_exist(tmp_path: Path) -> None:
    assert refused(tmp_path / "a.jsonl", "alpacka").message == (
        'data.format: got "alpacka"; expected auto, preference, rating, messages, sharegpt, alpaca, '
        'prompt-completion, text. Did you mean "alpaca"?'
    )


def test_plain_text_has_one_format(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Once upon a time.")
    assert refused(path, "alpaca").message == f"{path}: is plain text, which cannot have the format alpaca."
    assert [row.text for row in read_rows(path, format="text") if isinstance(row, TextRow)] == [
        "Once upon a time."
    ]
    assert detect(path).said == (
        f"{path}: plain text, one document, in passages of about 8,000 characters (no <|endoftext|> in it)"
    )
    path.write_text("One.<|endoftext|>Two.")
    assert detect(path).said == f"{path}: plain text, documents divided by <|endoftext|>"


def test_the_whole_file_is_read_and_not_only_what_was_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"prompt": f"q{i}", "completion": f"a{i}"}) for i in range(350)]
    lines[200] = '{"prompt": '
    path.write_text("\n".join(lines) + "\n")
    rows = list(read_rows(path))
    assert len(rows) == 350
    assert [i for i, row in enumerate(rows) if isinstance(row, BadRow)] == [200]
    last = rows[-1]
    assert isinstance(last, ChatRow)
    assert last.conversation.messages[1].content == "a349"


class TestHub:
    """The Hub itself is not asked: `datasets` streams a local file in its place."""

    @pytest.fixture
    def asked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
        import datasets

        path = tmp_path / "rows.jsonl"
        path.write_text('{"question": "Hi", "answer": "Hello", "note": null}\n' * 3)
        calls: list[tuple[Any, ...]] = []
        load = datasets.load_dataset

        def local(name: str, config: str | None, *, split: str, streaming: bool) -> Any:
            calls.append((name, config, split, streaming))
            if name == "nobody/nothing":
                raise datasets.exceptions.DatasetNotFoundError("Dataset 'nobody/nothing' doesn't exist\nmore")
            return load("json", data_files=str(path), split="train", streaming=True)

        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setattr(datasets, "load_dataset", local)
        return calls

    @pytest.mark.parametrize(
        ("name", "call"),
        [
            ("openai/gsm8k", ("openai/gsm8k", None, "train", True)),
            ("openai/gsm8k:main", ("openai/gsm8k", "main", "train", True)),
            ("openai/gsm8k:main@test", ("openai/gsm8k", "main", "test", True)),
            ("openai/gsm8k@train[:10%]", ("openai/gsm8k", None, "train[:10%]", True)),
        ],
    )
    def test_names(self, asked: list[tuple[Any, ...]], name: str, call: tuple[Any, ...]) -> None:
        detected, rows = open_rows(name)
        assert (
            detected.said == f"{name}: prompt-completion rows, from question as prompt, answer as completion"
        )
        first, *others = rows
        assert isinstance(first, ChatRow)
        assert str(first.where) == f"{name}: row 1"
        assert len(others) == 2
        assert asked == [call]

    def test_a_set_that_is_not_there(self, asked: list[tuple[Any, ...]]) -> None:
        error = refused("nobody/nothing")
        assert error.message == (
            "nobody/nothing: is no file here, and cannot be read from the Hub: "
            "Dataset 'nobody/nothing' doesn't exist"
        )

    def test_without_the_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "datasets", None)
        error = refused("openai/gsm8k")
        assert str(error) == (
            "openai/gsm8k: is no file here, and reading it from the Hub needs the `datasets` library.\n"
            '  Install it: pip install "nomoat[hub]"'
        )

    def test_a_path_with_a_folder_is_no_name(self) -> None:
        assert refused("data/night.jsonl").message == "data/night.jsonl: is not there."
