"""`nomoat init` as it is typed; what it writes is tested in test_init.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nomoat.cli import init_verb
from nomoat.cli.main import app
from nomoat.recipe_file import load_recipe


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"prompt": f"Say {n}", "completion": f"{n}."}) for n in range(40)]
    (tmp_path / "mine.jsonl").write_text("\n".join(rows) + "\n")
    return tmp_path


def nomoat(*words: str) -> Result:
    return CliRunner().invoke(app, ["init", *words])


def test_it_says_what_it_saw_chose_and_what_to_type_next(folder: Path) -> None:
    result = nomoat("mine.jsonl")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("mine.jsonl: prompt-completion rows")
    assert "  sft.num_train_epochs: 5  (40 rows, few enough to be seen 5 times)" in lines
    assert lines[-2:] == [
        "Wrote nomoat.yaml. Every line in it is explained; change what you like.",
        "Next: nomoat check",
    ]
    assert load_recipe(folder / "nomoat.yaml").recipe.data.train == ["mine.jsonl"]


def test_without_data_the_starter_data_is_meant(folder: Path) -> None:
    assert nomoat("--out", "my night.yaml").stdout == (
        "Wrote my night.yaml. Every line in it is explained; change what you like.\n"
        "Next: nomoat check 'my night.yaml'\n"
    )
    assert load_recipe(folder / "my night.yaml").recipe.data.train == []


def test_a_recipe_is_not_written_over_unasked() -> None:
    assert nomoat("mine.jsonl").exit_code == 0
    result = nomoat("mine.jsonl")
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: nomoat.yaml is there already\n  `nomoat init --force` writes over it\n",
    )
    assert nomoat("mine.jsonl", "--force").exit_code == 0


def test_json_has_the_documented_keys() -> None:
    found = json.loads(nomoat("mine.jsonl", "--json").stdout)
    assert found.keys() == init_verb.KEYS.keys()
    assert (found["recipe"], found["next"]) == ("nomoat.yaml", "nomoat check")
    assert found["data"]["rows"] == 40
    assert found["choices"][0]["key"] == "sft.num_train_epochs"
    assert json.loads(nomoat("--out", "b.yaml", "--json").stdout)["data"] is None
