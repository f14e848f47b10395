"""Which rows to train on hold what the suites ask, before any of them is trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from nomoat.data.overlap import Question, find_overlaps, question_of
from nomoat.data.prepare import answered
from nomoat.data.readers import open_rows
from nomoat.data.rows import BadRow, ChatRow, RatingRow, Row, Where
from nomoat.evaluate.prompts import Prompt, read_prompts
from nomoat.night.jobs import Folders, Outcome, Report

QUOTED = 20
"""Overlaps that are quoted; all are in the file."""
_FILE = "overlaps.json"


def run_overlaps(
    folders: Folders,
    report: Report,
    *,
    train: Sequence[str],
    format: str,
    judged: Sequence[str],
    prompts: Sequence[Path],
    suites: Sequence[Path],
) -> Outcome:
    """Write `overlaps.json`: every pair of a row, of the files `train` or `judged`, or a prompt of the files
    `prompts`, and a prompt of a suite that overlap (`data.overlap`). Rows that cannot be read are left to those who
    refuse them."""
    report(0.0, None, "rows against suites")
    questions = questions_of(suites)
    found = [asdict(one) for one in find_overlaps(_rows(train, format, judged, prompts), questions)]
    text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found)
    (folders.out / _FILE).write_text(text, encoding="utf-8", newline="\n")
    rows, asked = len({one["row"] for one in found}), len({(one["suite"], one["prompt"]) for one in found})
    said = f"{rows:,} rows to train on hold what {asked:,} of {len(questions):,} held-out prompts ask"
    return Outcome(
        {"rows": rows, "prompts": asked, "of": len(questions), "found": found[:QUOTED]},
        f"{said}, word for word or nearly",
    )


def questions_of(suites: Sequence[Path]) -> list[Question]:
    """What all prompts of the suites ask."""
    return [
        question_of(prompt.suite, prompt.id, prompt.conversation.messages)
        for suite in suites
        for prompt in read_prompts(suite)
    ]


def row_of(prompt: Prompt, where: Where | None = None) -> ChatRow:
    """A prompt that the model answers as a row which only asks."""
    return ChatRow(where or Where(prompt.suite, 0), prompt.conversation)


def contaminated(folder: Path) -> list[str]:
    """The hashes of all rows that `run_overlaps` found, sorted."""
    lines = (folder / _FILE).read_text(encoding="utf-8").splitlines()
    return sorted({json.loads(line)["row"] for line in lines})


def _rows(train: Sequence[str], format: str, judged: Sequence[str], prompts: Sequence[Path]) -> Iterator[Row]:
    """The rows as the stages `data` and `judgements` know them, and prompts."""
    for file in train:
        for row in open_rows(file, format=format)[1]:
            if not isinstance(row, BadRow) and not (isinstance(row, RatingRow) and not row.label):
                yield answered(row)
    for file in judged:
        for row in open_rows(file)[1]:
            if not isinstance(row, BadRow):
                yield row
    for path in prompts:
        for number, prompt in enumerate(read_prompts(path), 1):
            yield row_of(prompt, Where(str(path), number))
