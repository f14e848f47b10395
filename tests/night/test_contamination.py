"""A night whose rows hold what its suites ask."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.families import save_tiny
from helpers.nights import QUICK, Watched, last_night, run, write_rows
from helpers.prepared import write
from nomoat.night.report import render

pytestmark = pytest.mark.slow


def test_rows_are_listed_or_left_out_and_nothing_else_is_done_anew(tmp_path: Path) -> None:
    base, rows = save_tiny("llama", tmp_path / "base"), write_rows(tmp_path / "rows.jsonl")
    asked = [json.loads(line)["messages"][0] for line in rows.read_text().splitlines()]
    prompts = tmp_path / "mine.jsonl"
    others = [{"role": "user", "content": f"Count to {n}."} for n in range(5)]
    write(prompts, [{"messages": [message]} for message in others])
    words = (f"base={base}", f"data.train={rows}", f"evaluate.prompts={prompts}", *QUICK)
    clean = run(tmp_path / "workspace", *words)
    assert clean.overlaps is not None
    assert clean.overlaps["rows"] == 0

    message = asked[7] | {
        "content": asked[7]["content"].upper() + " Well"
    }  # near, so not held out as the same
    write(prompts, [{"messages": [message]} for message in (*others, message)])
    watched = Watched()
    listed = run(tmp_path / "workspace", *words, watcher=watched)
    assert listed.overlaps is not None
    assert [(one["where"].rpartition("/")[2], one["prompt"]) for one in listed.overlaps["found"]] == [
        ("rows.jsonl:8", "6")
    ]
    assert any(
        note.endswith("ask, word for word or nearly: data.decontaminate: remove leaves them out")
        for note in watched.notes
    )
    assert {stage.how for stage in listed.stages if stage.kind in ("data", "sft")} == {"reused"}
    assert "rows.jsonl:8" in render(listed)

    removed = run(tmp_path / "workspace", *words, "data.decontaminate=remove")
    counts = removed.data_reports[0]["rows"]
    assert (counts["contaminated"], counts["train"] + counts["held_out"]) == (1, 59)
    assert "hold what a held-out prompt asks, left out" in render(removed)
    _, stages = last_night(tmp_path / "workspace")
    assert [stage.status for stage in stages if stage.name in ("data", "sft")] == ["done", "done"]
