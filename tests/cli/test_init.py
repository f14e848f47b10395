"""`nomoat init`: a recipe that fits the data file, says why, and loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomoat.cli import init
from nomoat.cli.init import Choice, Look, choose, write_recipe
from nomoat.errors import DataError, RecipeError
from nomoat.recipe import Recipe
from nomoat.recipe_file import load_recipe
from nomoat.recipe_schema import schema_at


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_rows(name: str, rows: list[dict[str, object]]) -> Path:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Path(name)


def alpaca(count: int, letters: int) -> list[dict[str, object]]:
    return [{"instruction": f"Say {i}", "input": "", "output": "a" * letters} for i in range(count)]


def look(**changed: object) -> Look:
    seen = {"said": "x", "rows": 600, "bad_rows": 0, "whole": True, "kinds": frozenset({"ChatRow"})}
    return Look(**{**seen, "tokens_p50": 100, "tokens_p99": 200, **changed})  # type: ignore[arg-type]


def test_without_data_the_recipe_is_the_default_night() -> None:
    summary = write_recipe(None, Path("nomoat.yaml"), base="embedded", force=False)
    assert (summary.path, summary.look, summary.choices) == (Path("nomoat.yaml"), None, ())
    assert load_recipe(Path("nomoat.yaml")).recipe == Recipe()


def test_numbers_are_chosen_from_the_rows_and_say_why() -> None:
    rows = write_rows("my rows.jsonl", alpaca(600, 900))
    summary = write_recipe(rows, Path("nomoat.yaml"), base="org/model", force=False)
    assert summary.look is not None
    assert (summary.look.rows, summary.look.bad_rows, summary.look.whole) == (600, 0, True)
    recipe = load_recipe(Path("nomoat.yaml")).recipe
    assert recipe.model_dump(exclude_defaults=True) == {
        "name": "my-rows",
        "base": "org/model",
        "data": {"train": ["my rows.jsonl"]},
        "sft": {"max_seq_len": 384},
    }
    text = Path("nomoat.yaml").read_text()
    # 900 letters / 2.5 + "Say 599" 7 / 2.5 rounded up + two turns of 8
    why = "  # 99 of 100 rows have about 379 tokens or fewer, at 2.5 bytes a token.\n  max_seq_len: 384\n"
    assert why in text
    assert "  # 600 rows, few enough to be seen 3 times.\n  num_train_epochs: 3\n" in text


def test_every_key_stands_under_its_docstring() -> None:
    write_recipe(None, Path("nomoat.yaml"), base="embedded", force=False)
    lines = Path("nomoat.yaml").read_text().splitlines()
    words = " ".join(line.strip().removeprefix("# ") for line in lines)
    for path in init.KEYS:
        if path not in init.JUDGED:
            docstring = " ".join(schema_at(path)["description"].split())
            assert f"{docstring} {path[-1]}:" in words, path
    assert max(map(len, lines)) <= 100
    assert '  # until: "07:00"' in lines


def test_an_example_may_be_uncommented() -> None:
    write_recipe(None, Path("nomoat.yaml"), base="embedded", force=False)
    text = Path("nomoat.yaml").read_text()
    Path("nomoat.yaml").write_text(text.replace("# until:", "until:"))
    assert load_recipe(Path("nomoat.yaml")).recipe.budget.until == "07:00"


def test_editors_find_the_schema_beside_the_recipe() -> None:
    write_recipe(None, Path("nomoat.yaml"), base="embedded", force=False)
    first = Path("nomoat.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=.nomoat/recipe.schema.json"
    assert (
        json.loads(Path(".nomoat/recipe.schema.json").read_text())["properties"].keys()
        == Recipe.model_fields.keys()
    )


@pytest.mark.parametrize(
    ("rows", "whole", "choice"),
    [
        (1, True, Choice(("sft", "num_train_epochs"), 5, "1 row, few enough to be seen 5 times")),
        (500, True, Choice(("sft", "num_train_epochs"), 3, "500 rows, few enough to be seen 3 times")),
        (5_000, True, Choice(("sft", "num_train_epochs"), 2, "5000 rows, twice is enough")),
        (20_000, False, Choice(("sft", "num_train_epochs"), 1, "more than 20000 rows, once is enough")),
    ],
)
def test_fewer_rows_are_seen_more_often(rows: int, whole: bool, choice: Choice) -> None:
    assert choose(look(rows=rows, whole=whole), 512)[0] == choice


@pytest.mark.parametrize(
    ("context", "p50", "p99", "length", "why"),
    [
        (None, 10, 20, 128, ""),
        (None, 100, 512, 512, ""),
        (8192, 100, 513, 576, ""),
        (8192, 100, 1000, 1024, ""),
        (8192, 100, 4000, 1024, ". Longer rows are cut: more would take much memory and time"),
        (None, 2000, 4000, 1024,
         ". Most rows are longer than this: raise it, which takes memory and time, or shorten them"),
        (512, 100, 512, 512, ""),
        (512, 100, 513, 512, ". Longer rows are cut: the base reads no more"),
        (512, 600, 900, 512, ". Most rows are longer than this: take a base that reads more, or shorten them"),
        (64, 10, 20, 64, ""),
    ],
)  # fmt: skip
def test_the_length_holds_all_but_one_in_a_hundred_rows_up_to_a_limit(
    context: int | None, p50: int, p99: int, length: int, why: str
) -> None:
    assert choose(look(tokens_p50=p50, tokens_p99=p99), context)[1] == Choice(
        ("sft", "max_seq_len"),
        length,
        f"99 of 100 rows have about {p99} tokens or fewer, at 2.5 bytes a token{why}",
    )


def test_no_row_is_longer_than_the_embedded_base_reads() -> None:
    rows = write_rows("rows.jsonl", alpaca(40, 3000))
    write_recipe(rows, Path("nomoat.yaml"), base="embedded", force=False)
    sft = load_recipe(Path("nomoat.yaml")).recipe.sft
    assert sft is not None
    assert sft.max_seq_len == 512


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ('{"max_position_embeddings": 256}', 256),
        ('{"n_positions": 256}', None),
        ('{"max_position_embeddings": "256"}', None),
        ("[1]", None),
        ("{oops", None),
        ("\xff", None),
    ],
)
def test_the_context_of_a_base_is_read_from_its_config(config: str, context: int | None) -> None:
    Path("model").mkdir()
    Path("model/config.json").write_bytes(config.encode("latin1"))
    assert init.context_of("model") == context


def test_a_base_that_is_not_on_disk_sets_no_limit() -> None:
    assert init.context_of("org/model") is None


@given(
    rows=st.integers(1, 10**7),
    p99=st.integers(1, 10**6),
    whole=st.booleans(),
    context=st.none() | st.integers(8, 10**6),
)
def test_whatever_is_chosen_is_a_recipe(rows: int, p99: int, whole: bool, context: int | None) -> None:
    chosen = choose(look(rows=rows, whole=whole, tokens_p99=p99), context)
    Recipe.model_validate({"sft": {choice.key[1]: choice.value for choice in chosen}}, strict=True)


def test_text_is_split_so_no_length_is_chosen() -> None:
    chosen = choose(look(kinds=frozenset({"TextRow"})), 512)
    assert [choice.key for choice in chosen] == [("sft", "num_train_epochs")]


def test_judged_answers_turn_on_the_preferred_ones() -> None:
    rows = write_rows(
        "pairs.jsonl", [{"prompt": f"p{i}", "chosen": "yes", "rejected": "no"} for i in range(9)]
    )
    write_recipe(rows, Path("nomoat.yaml"), base="embedded", force=False)
    assert load_recipe(Path("nomoat.yaml")).recipe.data.use_preferred
    assert (
        "  # Train on the chosen answers of preference rows and the good ones of rated rows.\n"
        "  # The rows are judged answers, of which the preferred ones are trained on first.\n"
        "  use_preferred: true\n"
    ) in Path("nomoat.yaml").read_text()


@pytest.mark.parametrize(
    ("row", "loss_type", "kind"),
    [
        ({"chosen": "yes", "rejected": "no"}, "sigmoid", "pairs of answers"),
        ({"completion": "yes", "label": True}, "kto", "rated answers"),
    ],
)
def test_judged_answers_are_learned_from_as_such(row: dict[str, Any], loss_type: str, kind: str) -> None:
    rows = write_rows("judged.jsonl", [{"prompt": f"p{i}", **row} for i in range(9)])
    summary = write_recipe(rows, Path("nomoat.yaml"), base="embedded", force=False)
    recipe = load_recipe(Path("nomoat.yaml")).recipe
    assert recipe.prefer is not None
    assert (recipe.prefer.loss_type, recipe.prefer.max_seq_len) == (loss_type, 128)
    assert recipe.prefer.train == [], "those of data.train"
    why = f"the rows are {kind}, which are then learned from as such"
    assert Choice(("prefer", "loss_type"), loss_type, why) in summary.choices


def test_a_recipe_for_other_rows_says_nothing_of_judgements() -> None:
    write_recipe(None, Path("nomoat.yaml"), base="embedded", force=False)
    assert "prefer" not in Path("nomoat.yaml").read_text()


def test_the_file_is_named_without_the_folders_of_this_machine(tmp_path: Path) -> None:
    write_recipe(
        write_rows("rows.jsonl", alpaca(3, 9)).absolute(), Path("nomoat.yaml"), base="embedded", force=False
    )
    text = Path("nomoat.yaml").read_text()
    assert str(tmp_path) not in text
    assert (
        "# One night, from base to verdict. Written by `nomoat init` after a look at rows.jsonl: alpaca"
        in text
    )


@pytest.mark.parametrize(
    ("row", "tokens"),
    [
        ({"text": "a" * 31}, 13),
        ({"prompt": "a" * 30, "completion": "b" * 3}, 12 + 2 + 2 * 8),
        ({"prompt": "a" * 30, "chosen": "b" * 3, "rejected": "c" * 60}, 12 + 24 + 2 * 8),
        ({"prompt": "a" * 30, "completion": "b" * 3, "label": True}, 12 + 2 + 2 * 8),
        ({"messages": [{"role": "user", "content": "é" * 5}, {"role": "assistant", "content": "b"}]}, 5 + 2 * 8),
    ],
)  # fmt: skip
def test_lengths_are_estimated_from_bytes_and_turns(row: dict[str, object], tokens: int) -> None:
    assert init.look_at(write_rows("rows.jsonl", [row])).tokens_p50 == tokens


def test_a_long_file_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "ROWS_READ", 10)
    seen = init.look_at(write_rows("rows.jsonl", alpaca(50, 9)))
    assert (seen.rows, seen.whole) == (10, False)


def test_rows_that_do_not_parse_are_counted() -> None:
    rows = write_rows("rows.jsonl", alpaca(20, 9))
    with rows.open("a") as file:
        file.write('{"instruction": 3, "output": "x"}\n')
    seen = init.look_at(rows)
    assert (seen.rows, seen.bad_rows) == (20, 1)


def test_paths_are_written_as_the_recipe_sees_them(tmp_path: Path) -> None:
    outside = write_rows("rows.v2.jsonl", alpaca(3, 9))
    Path("night/model").mkdir(parents=True)
    inside = write_rows("night/own.jsonl", alpaca(3, 9))
    for data in (outside, inside):
        write_recipe(data, Path("night/nomoat.yaml"), base="night/model", force=True)
        loaded = load_recipe(Path("night/nomoat.yaml"))
        assert [loaded.locate(name) for name in loaded.recipe.data.train] == [str(data.absolute())]
        assert loaded.locate(loaded.recipe.base) == str(tmp_path / "night" / "model")
    assert loaded.recipe.data.train == ["own.jsonl"]


@pytest.mark.parametrize(
    "name", ["null.jsonl", "no.jsonl", "a: b #c.jsonl", "12.jsonl", "Ünï.jsonl", '"q".jsonl']
)
def test_odd_file_names_survive(name: str) -> None:
    write_recipe(write_rows(name, alpaca(3, 9)), Path("nomoat.yaml"), base="embedded", force=False)
    assert load_recipe(Path("nomoat.yaml")).recipe.data.train == [name]


def test_a_recipe_that_is_there_is_kept_unless_forced() -> None:
    Path("nomoat.yaml").write_text("seed: 3\n")
    with pytest.raises(RecipeError) as caught:
        write_recipe(None, Path("nomoat.yaml"), base="embedded", force=False)
    assert str(caught.value) == "nomoat.yaml is there already\n  `nomoat init --force` writes over it"
    assert Path("nomoat.yaml").read_text() == "seed: 3\n"
    write_recipe(None, Path("nomoat.yaml"), base="embedded", force=True)
    assert load_recipe(Path("nomoat.yaml")).recipe == Recipe()


def test_what_cannot_be_written_says_so() -> None:
    Path("file").write_text("")
    with pytest.raises(RecipeError) as caught:
        write_recipe(None, Path("file/nomoat.yaml"), base="embedded", force=False)
    assert str(caught.value) == "file/.nomoat: cannot be written: Not a directory"


def test_a_file_without_a_row_is_refused() -> None:
    Path("rows.jsonl").write_text('{"instruction": 3, "output": "x"}\n')
    with pytest.raises(DataError) as caught:
        write_recipe(Path("rows.jsonl"), Path("nomoat.yaml"), base="embedded", force=False)
    assert str(caught.value) == "rows.jsonl: no row can be read: instruction: got 3; expected text."
    assert not Path("nomoat.yaml").exists()
