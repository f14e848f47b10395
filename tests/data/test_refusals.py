from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from helpers.chat_templates import CHATML
from helpers.prepared import chatml, pair, refused, run, stored
from helpers.tiny_tokenizers import tiny
from nomoat.chat.template import ChatTemplate


def preference(i: int) -> dict[str, Any]:
    return {
        "prompt": [
            {"role": "user", "content": f"Question {i}?"},
            {"role": "assistant", "content": "What?"},
            {"role": "user", "content": "Say it!"},
        ],
        "chosen": [{"role": "assistant", "content": "Good."}],
        "rejected": [{"role": "assistant", "content": "Bad."}],
    }


def test_judged_rows_are_refused_until_asked_for(tmp_path: Path) -> None:
    rows = [preference(i) for i in range(40)]
    error = refused(tmp_path, rows)
    assert str(error) == (
        f"{tmp_path}/rows.jsonl: holds preference rows, and the stage `sft` learns from answers alone.\n"
        "  To train on the chosen answers as they stand: data.use_preferred: true. To learn from the judgements "
        "themselves: name the file in prefer.train, and take it out here or set sft: null."
    )
    template = chatml()
    run(tmp_path, rows, template, use_preferred=True)
    # Earlier answers are context: nobody said that they were good.
    assert {trained for _, trained in stored(tmp_path / "out" / "train", template)} == {"Good.<|im_end|>"}


def test_of_rated_rows_the_good_ones_are_trained_on(tmp_path: Path) -> None:
    rows = [pair(i) | {"label": i % 2 == 0} for i in range(80)]
    hint = refused(tmp_path, rows).hint
    assert hint is not None
    assert hint.startswith(
        "To train on the answers that were rated good as they stand: data.use_preferred: true. To learn"
    )
    report = run(tmp_path, rows, use_preferred=True)
    assert report.rows.not_preferred == 40
    assert report.rows.train + report.rows.held_out == 40


def test_too_many_bad_rows_are_refused_and_quoted(tmp_path: Path) -> None:
    rows: list[Any] = [pair(i) for i in range(20)]
    rows[3] = {"prompt": "Hi", "completion": ""}
    rows[7] = 5
    error = refused(tmp_path, rows)
    assert str(error) == (
        "2 of 20 rows cannot be used (10.0%); data.max_bad_rows allows 2.0%.\n"
        f"  {tmp_path}/rows.jsonl:4: completion: is empty; expected text.\n"
        f"  {tmp_path}/rows.jsonl:8: is 5; expected an object with named fields."
    )
    report = run(tmp_path, rows, max_bad_rows=0.1)
    assert report.rows.bad == 2
    assert report.bad[1] == {
        "where": f"{tmp_path}/rows.jsonl:8",
        "reason": "is 5; expected an object with named fields.",
        "excerpt": "5",
    }


def test_twenty_bad_rows_are_quoted_and_the_advice_is_given_once(tmp_path: Path) -> None:
    talk = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "x"},
    ]
    blind = chatml(CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}"))
    rows = [{"messages": [*talk[:2], {"role": "assistant", "content": f"Answer {i}"}]} for i in range(30)]
    error = refused(tmp_path, rows, blind)
    assert error.message == "30 of 30 rows cannot be used (100.0%); data.max_bad_rows allows 2.0%."
    assert error.hint is not None
    lines = error.hint.split("\n  ")
    assert len(lines) == 22
    assert lines[0] == (
        f"{tmp_path}/rows.jsonl:1: messages[0]: the chat template (tokenizer) does not show the text of this "
        "system turn."
    )
    assert lines[20:] == [
        "... and 10 more",
        "Drop the system turns, or give a template that shows them: data.chat_template: my_template.jinja",
    ]


def test_a_file_of_a_wrong_kind_is_not_read_to_its_end(tmp_path: Path) -> None:
    rows: list[Any] = [pair(0), *[{"prompt": "Hi", "completion": ""}] * 5000]
    rows[1:60] = [pair(i) for i in range(1, 60)]
    error = refused(tmp_path, rows)
    assert error.message == "940 of 1000 rows cannot be used (94.0%); data.max_bad_rows allows 2.0%."


ONE_SIDED = (
    ". A night trains on some rows and compares the models on others, so each side needs one at least (which side "
    "a row is on depends on its content alone).\n  "
)


@pytest.mark.parametrize(
    ("rows", "keys", "expected"),
    [
        (
            [{"messages": [{"role": "user", "content": f"Question {i}?"}]} for i in range(5)],
            {},
            "No row is left to train on: of 5 rows, 0 are bad, 0 duplicates, 0 hold what is evaluated, 0 not "
            "preferred, 5 without an answer, and 0 too long for any of their answer to fit.\n"
            "  Expected conversations with answers of the assistant, or text.",
        ),
        (
            [pair(i) for i in range(10)],
            {"max_seq_len": 8},
            "10 of 10 rows are longer than 8 tokens and would be cut (100%); data.max_truncated allows 50%.\n"
            "  Raise sft.max_seq_len: 26 tokens would hold 95 of 100 rows whole.",
        ),
        (
            [pair(i) for i in range(10)],
            {"max_seq_len": 24, "max_truncated": 1.0},
            "The stop token is never trained: every row is longer than 24 tokens and loses its end, so the model "
            "would never stop.\n  Raise sft.max_seq_len: 26 tokens would hold 95 of 100 rows whole.",
        ),
        (
            [pair(i) for i in range(3)],
            {"held_out_share": 0.1},
            f"None of 3 rows is held out with data.held_out: 0.1{ONE_SIDED}"
            "Set data.held_out to 0.XXX or more, or add rows.",
        ),
        (
            [pair(i) for i in range(3)],
            {"held_out_share": 0.99},
            f"All 3 rows are held out with data.held_out: 0.99{ONE_SIDED}"
            "Set data.held_out to 0.XXX or less, or add rows.",
        ),
        (
            [pair(0)],
            {},
            f"Only one row is left{ONE_SIDED}Add rows: one row cannot be trained on and held out at once.",
        ),
        (
            [{"prompt": "Write a poem.", "completion": f"Poem {i}."} for i in range(50)],
            {},
            f"None of 50 rows is held out with data.held_out: 0.2{ONE_SIDED}"
            "All rows ask the same, and rows with the same prompt stay on one side, so that no trained prompt is "
            "evaluated. To split them all the same: data.split_by: content",
        ),
    ],
    ids=["no-answers", "mostly-cut", "no-stop", "none-held-out", "all-held-out", "one-row", "one-prompt"],
)
def test_rows_that_cannot_make_a_night(
    tmp_path: Path, rows: list[Any], keys: dict[str, Any], expected: str
) -> None:
    found = str(refused(tmp_path, rows, **keys))
    assert re.sub(r"(data\.held_out to) 0\.\d+", r"\1 0.XXX", found) == expected


def long_rows() -> list[dict[str, str]]:
    """20 short rows, and 10 of 34 tokens."""
    return [pair(i) for i in range(20)] + [pair(i, "An answer" * 3) for i in range(20, 30)]


@pytest.mark.parametrize(
    ("max_seq_len", "context", "advice"),
    [
        (12, None, "Raise sft.max_seq_len: 34 tokens would hold 95 of 100 rows whole."),
        (12, 34, "Raise sft.max_seq_len: 34 tokens would hold 95 of 100 rows whole."),
        (
            12,
            33,
            "Raise sft.max_seq_len to 33, which is all that the base reads and would hold 67% of the rows whole; "
            "beyond that, shorten or split rows, or choose a base with a longer context (34 tokens would hold 95 of "
            "100 rows whole).",
        ),
        (
            12,
            12,
            "The base reads no more than that. Shorten or split the longer rows, or choose a base with a longer "
            "context (34 tokens would hold 95 of 100 rows whole).",
        ),
    ],
)
def test_no_longer_row_is_advised_than_the_base_can_read(
    max_seq_len: int, context: int | None, advice: str, tmp_path: Path
) -> None:
    assert refused(tmp_path, long_rows(), max_seq_len=max_seq_len, context=context).hint == advice


def test_where_nearly_all_rows_fit_the_longest_is_advised(tmp_path: Path) -> None:
    rows = [pair(i) for i in range(40)] + [pair(40, "An answer" * 3)]
    error = refused(tmp_path, rows, max_seq_len=30, max_truncated=0.0)
    assert error.hint == "Raise sft.max_seq_len: 34 tokens would hold every row whole."


@pytest.mark.parametrize("share", [0.1, 0.99])
def test_the_share_that_is_advised_works(tmp_path: Path, share: float) -> None:
    rows = [pair(i) for i in range(3)]
    hint = refused(tmp_path, rows, held_out_share=share).hint
    assert hint is not None
    report = run(tmp_path, rows, held_out_share=float(hint.split()[3]))
    assert min(report.rows.train, report.rows.held_out) == 1


def test_text_needs_an_eos_token(tmp_path: Path) -> None:
    error = refused(tmp_path, [{"text": "x"}], ChatTemplate(tiny("<pad>"), CHATML, "tokenizer"))
    assert error.message == "The tokenizer has no eos token, so a document could not end."
