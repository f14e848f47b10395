"""How long it takes to look for what suites ask among Alpaca's rows, and whether the time grows with them.

    python bench/overlap.py ../shared/data

Alpaca's 15,380 rows that are at hand are read over and over up to 52,000, as many as all of it has, against 824
prompts: self-instruct's seed and user-oriented tasks, Koala's and WizardLM's test sets."""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections.abc import Iterator
from itertools import chain, cycle, islice
from pathlib import Path

from nomoat.data.overlap import Question, find_overlaps
from nomoat.data.readers import read_rows
from nomoat.data.rows import BadRow, Row

SUITES = (
    "self_instruct/user_oriented_instructions",
    "self_instruct/seed_tasks",
    "eval_prompts/koala_test_set",
    "eval_prompts/wizardlm_testset",
)
ALPACA = ("alpaca/alpaca_random_sample.jsonl.gz", "alpaca/alpaca_quality_filtered_extra.jsonl.gz")


def questions(data: Path) -> Iterator[Question]:
    for suite in SUITES:
        with gzip.open(data / f"{suite}.jsonl.gz", "rt", encoding="utf-8") as lines:
            for number, row in enumerate(map(json.loads, lines)):
                text = row.get("prompt") or row.get("Instruction") or row["instruction"]
                inputs = "\n".join(instance["input"] for instance in row.get("instances", [])[:1])
                yield Question(suite, str(number), f"{text}\n{inputs}")


def rows(data: Path, count: int) -> Iterator[Row]:
    every = chain.from_iterable(read_rows(data / file) for file in cycle(ALPACA))
    return islice((row for row in every if not isinstance(row, BadRow)), count)


def main() -> None:
    data = Path(sys.argv[1])
    asked = list(questions(data))
    for count in (13_000, 26_000, 52_000):
        started = time.perf_counter()
        for _ in rows(data, count):
            pass
        reading_s = time.perf_counter() - started
        found = find_overlaps(rows(data, count), asked)
        seconds = time.perf_counter() - started - reading_s
        print(
            f"{count:,} rows, {len(asked)} prompts: {seconds:.1f} s, {reading_s:.1f} of them reading; "
            f"{len({one.row for one in found})} rows hold {len({(one.suite, one.prompt) for one in found})} prompts"
        )


if __name__ == "__main__":
    main()
