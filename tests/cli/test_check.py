"""`nomoat check`: the report of real rows, as people and as programs read it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from helpers.tiny_models import build, byte_level
from nomoat.chat.template import ChatTemplate
from nomoat.cli import check_view
from nomoat.cli.check_view import check_json, example_text, print_check
from nomoat.cli.main import app
from nomoat.data.prepare import prepare
from nomoat.night.check import CheckResult

Report = dict[str, Any]


def row(number: int, words: int = 3) -> str:
    answer = " ".join([f"Number {number}."] * words)
    return json.dumps({"prompt": f"Say {number}", "completion": answer})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """40 good rows, one of them twice and one too long, and two bad ones."""
    folder = tmp_path_factory.mktemp("check")
    lines = [row(number) for number in range(39)] + [row(7), row(99, words=60), '{"prompt": "x"}', "{oops"]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = byte_level()
    found = prepare(
        [folder / "rows.jsonl"],
        tokenizer=tokenizer,
        template=ChatTemplate.of(tokenizer),
        out=folder / "out",
        max_seq_len=128,
        max_bad_rows=0.1,
    )
    plain: Report = json.loads(json.dumps(found.to_dict()))
    return plain


def printed(report: Report, *, colour: bool = False) -> str:
    console = Console(
        file=io.StringIO(),
        width=160,
        markup=False,
        highlight=False,
        force_terminal=colour,
        color_system="standard" if colour else None,
    )
    print_check(CheckResult({"sft": report}, "embedded", None), "nomoat run", console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_counts_and_what_was_left_out(report: Report) -> None:
    text, rows = printed(report), report["rows"]
    assert text.startswith(f"Base: embedded\n{report['files'][0]}\n")
    assert "Chat template: the base's own; an answer ends with <|im_end|>\n" in text
    assert f"43 rows read: {rows['train']} to train on, {rows['held_out']} held out\n" in text
    assert "  2 bad (4.7%), left out\n" in text
    assert "  1 left out: the same as an earlier row (data.dedup)\n" in text
    assert "  1 cut at the end to sft.max_seq_len\n" in text
    assert f"{report['tokens']['train_supervised']:,} of them trained (" in text
    assert text.endswith("\nNext: nomoat run\n")


def test_lengths_are_drawn_as_bars(report: Report) -> None:
    lines = printed(report).splitlines()
    bars = [line for line in lines if "█" in line]
    assert len(bars) == sum(1 for _, rows in report["lengths"]["histogram"] if rows)
    assert any(line.split("█")[-1].strip() == "1  longer than sft.max_seq_len" for line in bars)
    longest = max(bars, key=lambda line: line.count("█"))
    most = max(rows for _, rows in report["lengths"]["histogram"])
    assert longest.count("█") == 40
    assert longest.split("█")[-1].strip() == str(most)
    assert f"the longest has {report['lengths']['longest']}" in printed(report)


def test_bad_rows_are_quoted_with_their_line(report: Report) -> None:
    text = printed(report)
    for bad, line in zip(report["bad"], (42, 43), strict=True):
        assert bad["where"].endswith(f"rows.jsonl:{line}")
        assert f"  {bad['where']}: {bad['reason']}\n" in text
    assert '      {"prompt": "x"}\n' in text


def test_many_bad_rows_are_counted(report: Report) -> None:
    bad = [{"where": f"a.jsonl:{n}", "reason": "is empty", "excerpt": "{}"} for n in range(20)]
    rows = {**report["rows"], "bad": 31}
    text = printed({**report, "bad": bad, "rows": rows})
    assert "a.jsonl:9: is empty" in text
    assert "a.jsonl:10: is empty" not in text
    assert "  … and 21 more\n" in text


def test_without_colour_trained_text_stands_in_brackets(report: Report) -> None:
    text = printed(report)
    assert "As the model sees them: what stands in ⟦…⟧ is trained on, the rest only read\n" in text
    assert text.count("── example ") == 3
    assert "<|im_start|>assistant\n⟦Number " in text
    assert "<|im_end|>⟧" in text, "the stop token is trained"
    assert "\x1b" not in text


def test_with_colour_trained_text_is_green_and_the_rest_dim(report: Report) -> None:
    text = printed(report, colour=True)
    assert "⟦" not in text
    assert "\x1b[32mNumber " in text
    assert "\x1b[2m<|im_start|>user" in text
    assert "\x1b[32mtrained on" in text


def test_long_pieces_are_shortened_in_their_middle_so_that_the_answer_is_seen() -> None:
    text = example_text([["a" * 400 + "b" * 1000 + "c" * 400, False], ["yes", True]], has_colour=False).plain
    assert text == "a" * 300 + " [… 1,200 characters …] " + "c" * 300 + "⟦yes⟧"


def test_rows_cannot_steer_the_terminal(report: Report) -> None:
    bad = [{"where": "a.jsonl:1", "reason": "got \x1b[2J", "excerpt": "\x1b[31m"}]
    assert "\x1b" not in printed({**report, "bad": bad, "examples": [[["\x1b[31mred", True]]]})


def test_json_has_the_documented_keys(report: Report) -> None:
    found = check_json(CheckResult({"sft": report}, "embedded", None), "nomoat run")
    assert found.keys() == check_view.KEYS.keys()
    assert (found["base"], found["next"], found["rows"]["read"]) == ("embedded", "nomoat run", 43)


def test_no_key_of_the_report_is_forgotten(report: Report) -> None:
    assert report.keys() <= check_view.KEYS.keys()
    for key in ("rows", "sequences", "tokens", "lengths", "template"):
        for name in report[key]:
            assert name in check_view.KEYS[key], (key, name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny base and forty rows."""
    monkeypatch.chdir(tmp_path)
    build(tmp_path / "base", "smollm")
    (tmp_path / "rows.jsonl").write_text("\n".join(row(number) for number in range(40)) + "\n")
    return tmp_path


def test_the_verb_checks_as_a_night_would(folder: Path) -> None:
    words = ["check", "--base", "base", "--data", "rows.jsonl", "sft.max_seq_len=128"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "40 rows read: " in result.stdout
    assert result.stdout.endswith("\nNext: nomoat run sft.max_seq_len=128 --base base --data=rows.jsonl\n")
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert found.keys() == check_view.KEYS.keys()
    assert found["rows"]["read"] == 40


def test_rows_that_hold_what_a_suite_asks_are_listed_and_removed_if_wished(folder: Path) -> None:
    prompts = [{"id": f"p{n}", "messages": [{"role": "user", "content": f"say {n}!"}]} for n in (3, 8, 99)]
    (folder / "mine.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    words = [
        "check",
        "--base",
        "base",
        "--data",
        "rows.jsonl",
        "evaluate.prompts=[mine.jsonl]",
        "sft.max_seq_len=128",
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert (
        "\n2 rows to train on hold what 2 of 3 held-out prompts ask, word for word or nearly\n"
        in result.stdout
    )
    assert "rows.jsonl:4: mine p3: asks the same\n" in result.stdout
    assert "rows.jsonl:9: mine p8: asks the same\n" in result.stdout
    assert "To leave such rows out: data.decontaminate: remove" in result.stdout
    result = CliRunner().invoke(app, [*words, "data.decontaminate=remove"])
    assert "  2 left out: hold what a held-out prompt asks (data.decontaminate)\n" in result.stdout
    assert "To leave such rows out" not in result.stdout
    found = json.loads(CliRunner().invoke(app, [*words, "data.decontaminate=remove", "--json"]).stdout)
    assert (found["rows"]["contaminated"], found["rows"]["train"] + found["rows"]["held_out"]) == (2, 38)
    assert [one["prompt"] for one in found["overlaps"]["found"]] == ["p3", "p8"]


def test_what_a_night_would_refuse_is_refused_with_the_reason(folder: Path) -> None:
    (folder / "rows.jsonl").write_text('{"prompt": "x"}\n' + row(1) + "\n")
    words = ["check", "--base", "base", "--data", "rows.jsonl", "sft.max_seq_len=128"]
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "1 of 2 rows cannot be used (50.0%); data.max_bad_rows allows 2.0%." in result.stderr
    assert "Traceback" not in result.stderr


def test_judged_answers_are_shown_after_the_rows_of_sft(report: Report) -> None:
    console = Console(file=io.StringIO(), width=160, markup=False, highlight=False)
    print_check(CheckResult({"sft": report, "prefer": report}, "embedded", None), "nomoat run", console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    first, second = text.split("For the stage prefer\n")
    assert first.startswith("Base: embedded\nFor the stage sft\n")
    assert "  1 cut at the end to sft.max_seq_len\n" in first
    assert "  1 cut at the end to prefer.max_seq_len\n" in second
    found = check_json(CheckResult({"sft": report, "prefer": report}, "embedded", None), "nomoat run")
    assert found["judgements"]["rows"] == found["rows"] == report["rows"]
    assert check_json(CheckResult({"sft": report}, "embedded", None), "nomoat run")["judgements"] is None
