"""Which rows to train on hold what the suites ask, before any of them is trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from nomoat.data.overlap import find_overlaps, question_of
from nomoat.data.prepare import answered
from nomoat.data.readers import open_rows
from nomoat.data.rows import BadRow, RatingRow, Row
from nomoat.evaluate.prompts import read_prompts
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
    suites: Sequence[Path],
) -> Outcome:
    """Write `overlaps.json`: every pair of a row, of the files `train` or `judged`, and a prompt of a suite that
    overlap (`data.overlap`). Rows that cannot be read are left to those who refuse them."""
    report(0.0, None, "rows against suites")
    questions = [
        question_of(prompt.suite, prompt.id, prompt.conversation.messages)
        for suite in suites
        for prompt in read_prompts(suite)
    ]
    found = [asdict(one) for one in find_overlaps(_rows(train, format, judged), questions)]
    text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found)
    (folders.out / _FILE).write_text(text, encoding="utf-8", newline="\n")
    rows, prompts = len({one["row"] for one in found}), len({(one["suite"], one["prompt"]) for one in found})
    said = f"{rows:,} rows to train on hold what {prompts:,} of {len(questions):,} held-out prompts ask"
    return Outcome(
        {"rows": rows, "prompts": prompts, "of": len(questions), "found": found[:QUOTED]},
        f"{said}, word for word or nearly",
    )


def contaminated(folder: Path) -> list[str]:
    """The hashes of all rows that `run_overlaps` found, sorted."""
    lines = (folder / _FILE).read_text(encoding="utf-8").splitlines()
    return sorted({json.loads(line)["row"] for line in lines})


def _rows(train: Sequence[str], format: str, judged: Sequence[str]) -> Iterator[Row]:
    """The rows as the stages `data` and `judgements` know them."""
    for file in train:
        for row in open_rows(file, format=format)[1]:
            if not isinstance(row, BadRow) and not (isinstance(row, RatingRow) and not row.label):
                yield answered(row)
    for file in judged:
        for row in open_rows(file)[1]:
            if not isinstance(row, BadRow):
                yield row
